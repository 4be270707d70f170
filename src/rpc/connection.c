#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "server_internal.h"

enum { READ_SIZE = 32 * 1024, READ_ROUNDS = 8 };

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    server_unref(connection->server);
    buffer_finish(&connection->in);
    free(connection);
}

void connection_close(struct connection *connection)
{
    if (connection->closed)
        return;
    connection->closed = true;
    server_connection_gone(connection->server, connection);
    uv_close((uv_handle_t *)&connection->poll, on_closed);
    close_fd(connection->fd);
    close_fds(connection->fds, connection->fds_count);
    connection->fds_count = 0;
    while (connection->output_first) {
        struct output *output = connection->output_first;
        connection->output_first = output->next;
        close_fds(output->fds, output->fds_count);
        free(output->data);
        free(output);
    }
    requests_orphan(connection);
}

/* ---- out ---- */

/* 0: all is sent; -EAGAIN: the rest later; else the client is gone. */
static int flush(struct connection *connection)
{
    while (connection->output_first) {
        struct output *output = connection->output_first;
        ssize_t n = socket_send(connection->fd, output->data + output->sent,
                                output->length - output->sent, output->fds, output->fds_count);
        if (n < 0)
            return (int)n;
        close_fds(output->fds, output->fds_count);
        output->fds_count = 0;
        output->sent += (size_t)n;
        connection->output_bytes -= (size_t)n;
        if (output->sent < output->length)
            continue;
        connection->output_first = output->next;
        free(output->data);
        free(output);
    }
    connection->output_last = NULL;
    return 0;
}

void connection_send(struct connection *connection, struct buffer *message, const int *fds,
                     size_t fds_count)
{
    struct output *output = xnew(struct output);

    buffer_append_char(message, '\n');
    output->length = message->length;
    output->data = buffer_steal(message);
    output->fds_count = fds_count;
    if (fds_count)
        memcpy(output->fds, fds, fds_count * sizeof(*fds));
    if (connection->output_first)
        connection->output_last->next = output;
    else
        connection->output_first = output;
    connection->output_last = output;
    connection->output_bytes += output->length;
    int r = flush(connection);
    if ((r < 0 && r != -EAGAIN) || connection->output_bytes > RPC_OUTPUT_MAX)
        connection_close(connection);
    else
        connection_update(connection);
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
}

static void refuse(struct connection *connection, const char *why)
{
    _cleanup_buffer_ struct buffer message = BUFFER_INIT;

    connection->input_ended = true;
    connection->in.length = 0;
    connection->searched = 0;
    rpc_write_error(&message, "", RPC_INVALID_REQUEST, why, NULL, NULL);
    connection_send(connection, &message, NULL, 0);
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
    ssize_t n = socket_receive(connection->fd, in->data + in->length, READ_SIZE,
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

/* Whether it has closed for good; one that has only shut its half still waits for answers. */
static bool has_hung_up(const struct connection *connection)
{
    struct pollfd state = {.fd = connection->fd, .events = 0};

    return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR));
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
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct connection *connection = poll->data;

    if (status < 0 ||
        ((connection->input_ended || (events & UV_PRIORITIZED)) && has_hung_up(connection))) {
        connection_close(connection);
        return;
    }
    if (events & UV_WRITABLE) {
        int r = flush(connection);
        if (r < 0 && r != -EAGAIN) {
            connection_close(connection);
            return;
        }
    }
    if (events & UV_READABLE)
        on_readable(connection);
    if (!connection->closed && connection->input_ended && has_hung_up(connection))
        connection_close(connection);
    if (!connection->closed)
        connection_update(connection);
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
    /* UV_PRIORITIZED never comes on a Unix socket; asked for, so that a hang-up is told. */
    int events = UV_PRIORITIZED;
    if (may_read(connection))
        events |= UV_READABLE;
    if (connection->output_first)
        events |= UV_WRITABLE;
    if (events != connection->events)
        uv_poll_start(&connection->poll, events, on_poll);
    connection->events = events;
}

void connection_open(struct rpc_server *server, int fd)
{
    struct connection *connection = xnew(struct connection);
    socklen_t length = sizeof(connection->peer);

    connection->server = server;
    connection->fd = fd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &connection->peer, &length) < 0 ||
        uv_poll_init(server->loop, &connection->poll, fd) < 0) {
        close(fd);
        free(connection);
        return;
    }
    connection->poll.data = connection;
    connection->next = server->connections;
    server->connections = connection;
    server->connections_count++;
    server->references++;
    connection_update(connection);
}
