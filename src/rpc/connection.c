#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "server_internal.h"

enum {
    READ_SIZE = 64 * 1024,
    READ_ROUNDS = 4,
    CHUNK_SIZE = 64 * 1024,  /* a longer chunk takes no further messages */
    CHUNK_KEPT = 256 * 1024, /* a larger one is not kept for the next message */
    INPUT_KEPT = 256 * 1024, /* a larger buffer is given back when it is empty */
};

static void output_free(struct output *output)
{
    if (!output)
        return;
    close_fds(output->fds, output->fds_count);
    buffer_finish(&output->data);
    free(output);
}

void connection_hold(struct connection *connection)
{
    connection->references++;
}

void connection_release(struct connection *connection)
{
    if (--connection->references)
        return;
    server_unref(connection->server);
    buffer_finish(&connection->in);
    output_free(connection->spare);
    free(connection);
}

void connection_close(struct connection *connection)
{
    struct rpc_loop *loop = connection->server->loop;

    if (connection->closed)
        return;
    connection->closed = true;
    server_connection_gone(connection->server, connection);
    rpc_loop_watch(loop, &connection->watch, 0);
    rpc_loop_unqueue(loop, &connection->flush);
    close_fd(connection->watch.fd);
    close_fds(connection->fds, connection->fds_count);
    connection->fds_count = 0;
    while (connection->output_first) {
        struct output *output = connection->output_first;
        connection->output_first = output->next;
        output_free(output);
    }
    requests_orphan(connection);
    connection_release(connection);
}

/* ---- out ---- */

static struct output *add_chunk(struct connection *connection)
{
    struct output *output = connection->spare;

    if (output)
        connection->spare = NULL;
    else
        output = xnew(struct output);
    if (connection->output_first)
        connection->output_last->next = output;
    else
        connection->output_first = output;
    connection->output_last = output;
    return output;
}

static void chunk_is_sent(struct connection *connection)
{
    struct output *output = connection->output_first;

    connection->output_first = output->next;
    if (connection->spare || output->data.capacity > CHUNK_KEPT) {
        output_free(output);
        return;
    }
    buffer_clear(&output->data);
    output->sent = 0;
    output->next = NULL;
    connection->spare = output;
}

/* 0: all is sent; -EAGAIN: the rest later; else the client is gone. */
static int flush(struct connection *connection)
{
    while (connection->output_first) {
        struct output *output = connection->output_first;
        ssize_t n = socket_send(connection->watch.fd, output->data.data + output->sent,
                                output->data.length - output->sent, output->fds, output->fds_count);
        if (n < 0)
            return (int)n;
        close_fds(output->fds, output->fds_count);
        output->fds_count = 0;
        output->sent += (size_t)n;
        connection->output_bytes -= (size_t)n;
        if (output->sent == output->data.length)
            chunk_is_sent(connection);
    }
    connection->output_last = NULL;
    return 0;
}

/* Sends what it can, and closes the connection when nobody takes it any more. */
static void flush_or_close(struct connection *connection)
{
    int r = flush(connection);

    if ((r < 0 && r != -EAGAIN) || connection->output_bytes > RPC_OUTPUT_MAX)
        connection_close(connection);
}

static void on_flush(struct rpc_task *task)
{
    struct connection *connection =
        (struct connection *)((char *)task - offsetof(struct connection, flush));

    connection_hold(connection);
    flush_or_close(connection);
    connection_update(connection);
    connection_release(connection);
}

struct buffer *connection_begin(struct connection *connection, const int *fds, size_t fds_count)
{
    struct output *output = connection->output_last;

    if (!output || fds_count || output->data.length >= CHUNK_SIZE)
        output = add_chunk(connection);
    if (fds_count)
        memcpy(output->fds, fds, fds_count * sizeof(*fds));
    output->fds_count += fds_count;
    connection->output_bytes -= output->data.length - output->sent;
    return &output->data;
}

void connection_end(struct connection *connection)
{
    struct output *output = connection->output_last;

    buffer_append_char(&output->data, '\n');
    connection->output_bytes += output->data.length - output->sent;
    if (connection->output_bytes > RPC_OUTPUT_MAX)
        flush_or_close(connection);
    if (!connection->closed)
        rpc_loop_queue(connection->server->loop, &connection->flush);
}

/* ---- in ---- */

/* Hands on the complete lines, as long as there may be further requests. */
static void take_lines(struct connection *connection)
{
    struct buffer *in = &connection->in;
    size_t start = 0;

    connection->busy = true;
    while (!connection->closed && connection->in_flight < RPC_IN_FLIGHT_MAX &&
           connection->output_bytes <= OUTPUT_PAUSE && start < in->length) {
        size_t from = connection->searched > start ? connection->searched : start;
        char *newline = memchr(in->data + from, '\n', in->length - from);
        if (!newline) {
            connection->searched = in->length;
            break;
        }
        size_t end = (size_t)(newline - in->data);
        connection->searched = end + 1;
        if (end > start)
            requests_take_line(connection, in->data + start, end - start);
        start = end + 1;
    }
    buffer_consume(in, start);
    connection->searched -= start < connection->searched ? start : connection->searched;
    connection->busy = false;
    if (in->length == 0 && in->capacity > INPUT_KEPT)
        buffer_finish(in);
}

static void refuse(struct connection *connection, const char *why)
{
    connection->input_ended = true;
    connection->in.length = 0;
    connection->searched = 0;
    rpc_write_error(connection_begin(connection, NULL, 0), (struct rpc_part){0},
                    RPC_INVALID_REQUEST, why, NULL, NULL);
    connection_end(connection);
}

static bool has_line(const struct connection *connection)
{
    const struct buffer *in = &connection->in;

    return in->length > connection->searched &&
           memchr(in->data + connection->searched, '\n', in->length - connection->searched);
}

/* What is left when the lines are taken: not too long, and no descriptors without a message. */
static void check_rest(struct connection *connection)
{
    if (connection->closed || has_line(connection))
        return;
    if (connection->in.length > RPC_MESSAGE_MAX)
        refuse(connection, "the message is too long");
    else if (connection->in.length == 0 && connection->fds_count)
        refuse(connection, "descriptors came that no message counts");
}

/* Bytes read, 0: not now, negative: no more. */
static ssize_t read_some(struct connection *connection)
{
    size_t room = ARRIVED_FDS_MAX - connection->fds_count;
    struct buffer *in = &connection->in;

    if (room > SOCKET_FDS_MAX)
        room = SOCKET_FDS_MAX;
    buffer_reserve(in, READ_SIZE);
    ssize_t n = socket_receive(connection->watch.fd, in->data + in->length, READ_SIZE,
                               connection->fds + connection->fds_count, &room);
    if (n == -EAGAIN)
        return 0;
    if (n <= 0)
        return n < 0 ? n : -ESHUTDOWN;
    connection->fds_count += room;
    in->length += (size_t)n;
    in->data[in->length] = '\0';
    return n;
}

static bool may_read(const struct connection *connection)
{
    return !connection->closed && !connection->input_ended &&
           connection->in_flight < RPC_IN_FLIGHT_MAX && connection->output_bytes <= OUTPUT_PAUSE;
}

static void on_readable(struct connection *connection)
{
    for (int round = 0; round < READ_ROUNDS && may_read(connection); round++) {
        ssize_t n = read_some(connection);
        if (n == 0)
            return;
        if (n == -ESHUTDOWN)
            connection->input_ended = true;
        else if (n < 0) {
            connection_close(connection);
            return;
        }
        take_lines(connection);
        check_rest(connection);
        if (n < READ_SIZE) /* that was all, and if not, the loop says so again */
            return;
    }
}

static void on_event(struct rpc_watch *watch, uint32_t events)
{
    struct connection *connection =
        (struct connection *)((char *)watch - offsetof(struct connection, watch));
    bool gone = events & (EPOLLHUP | EPOLLERR);

    connection_hold(connection);
    if (gone && !may_read(connection))
        connection_close(connection); /* for good: one that has only shut its half is no hang-up */
    if (!connection->closed && (events & EPOLLOUT))
        flush_or_close(connection);
    if (!connection->closed && (gone || (events & EPOLLIN)))
        on_readable(connection);
    connection_update(connection);
    connection_release(connection);
}

/* Whether the connection has nothing left to do. */
static bool is_done(const struct connection *connection)
{
    return connection->input_ended && connection->in_flight == 0 && !connection->output_first &&
           !has_line(connection);
}

void connection_update(struct connection *connection)
{
    if (connection->closed || connection->busy)
        return;
    /* Lines that had to wait until earlier requests were answered. */
    if (has_line(connection)) {
        take_lines(connection);
        check_rest(connection);
    }
    if (connection->closed)
        return;
    if (is_done(connection)) {
        connection_close(connection);
        return;
    }
    /* EPOLLPRI never comes on a Unix socket; asked for, so that a hang-up is told. */
    uint32_t events = EPOLLPRI;
    if (may_read(connection))
        events |= EPOLLIN;
    if (connection->output_first && !connection->flush.queued)
        events |= EPOLLOUT;
    rpc_loop_watch(connection->server->loop, &connection->watch, events);
}

void connection_open(struct rpc_server *server, int fd)
{
    struct connection *connection = xnew(struct connection);
    socklen_t length = sizeof(connection->peer);

    connection->server = server;
    connection->references = 1;
    connection->watch = (struct rpc_watch){.fd = fd, .callback = on_event};
    connection->flush.callback = on_flush;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &connection->peer, &length) < 0 ||
        rpc_loop_watch(server->loop, &connection->watch, EPOLLIN | EPOLLPRI) < 0) {
        close(fd);
        free(connection);
        return;
    }
    connection->next = server->connections;
    server->connections = connection;
    server->connections_count++;
    server->references++;
}
