#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "server_internal.h"

#define NS_PER_SECOND UINT64_C(1000000000)

enum {
    READ_SIZE = 64 * 1024,
    READ_ROUNDS = 4,
    CHUNK_SIZE = 64 * 1024,  /* a longer chunk takes no further messages */
    CHUNK_KEPT = 128 * 1024, /* a larger one is not kept for others */
};

static void output_free(struct output *output)
{
    close_fds(output->fds, output->fds_count);
    buffer_finish(&output->data);
    free(output);
}

void connection_count_fds(struct rpc_connection *connection, ptrdiff_t count)
{
    connection->fds_count += (size_t)count;
    connection->count->fds_waiting += (size_t)count;
    connection->server->fds_waiting += (size_t)count;
}

static void count_output_fds(struct rpc_connection *connection, ptrdiff_t count)
{
    connection->output_fds += (size_t)count;
    connection->count->fds_out += (size_t)count;
    connection->server->fds_out += (size_t)count;
}

void rpc_connection_hold(struct rpc_connection *connection)
{
    connection->references++;
}

void rpc_connection_release(struct rpc_connection *connection)
{
    if (--connection->references)
        return;
    server_count_unref(connection->server, connection->count);
    server_unref(connection->server);
    buffer_finish(&connection->in);
    free(connection->fds);
    free(connection->name);
    free(connection);
}

static void tell_watches(struct rpc_connection *connection)
{
    while (connection->watches) {
        struct rpc_connection_watch *watch = connection->watches;
        rpc_connection_unwatch(watch);
        if (watch->closed)
            watch->closed(watch);
    }
}

void rpc_connection_close(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;

    if (connection->closed)
        return;
    connection->closed = true;
    server_connection_gone(server, connection);
    rpc_loop_watch(server->loop, &connection->watch, 0);
    rpc_loop_unqueue(server->loop, &connection->flush);
    rpc_loop_clear_timer(server->loop, &connection->patience);
    close_fd(connection->watch.fd);
    close_fds(connection->fds, connection->fds_count);
    connection_count_fds(connection, -(ptrdiff_t)connection->fds_count);
    while (connection->output_first) {
        struct output *output = connection->output_first;
        connection->output_first = output->next;
        count_output_fds(connection, -(ptrdiff_t)output->fds_count);
        output_free(output);
    }
    connection->output_last = NULL;
    connection->output_bytes = 0;
    requests_orphan(connection);
    tell_watches(connection);
    connection_charge(connection);
    if (server->options.closed)
        server->options.closed(connection, server->options.context);
    rpc_connection_release(connection);
}

bool connection_charge(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;
    const struct rpc_limits *limits = &server->options.limits;
    size_t bytes = connection->held_bytes + connection->batch_bytes;
    size_t before = connection->charged;

    /* Calls, and the batches that they belong to, outlive the connection. */
    if (!connection->closed)
        bytes += (connection->borrowed ? 0 : connection->in.capacity) + connection->output_bytes +
                 connection->extra_bytes;
    connection->count->bytes += bytes - before;
    server->bytes += bytes - before;
    connection->charged = bytes;
    return connection->closed || bytes <= before ||
           (connection->count->bytes <= limits->peer_bytes && server->bytes <= limits->bytes);
}

int rpc_connection_charge(struct rpc_connection *connection, size_t bytes)
{
    connection->extra_bytes += bytes;
    if (connection_charge(connection))
        return 0;
    rpc_connection_discharge(connection, bytes);
    return -ENOBUFS;
}

void rpc_connection_discharge(struct rpc_connection *connection, size_t bytes)
{
    connection->extra_bytes -= bytes;
    connection_charge(connection);
}

/* ---- out ---- */

static struct output *add_chunk(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;
    struct output *output = server->spares;

    if (output) {
        server->spares = output->next;
        server->spares_count--;
        output->next = NULL;
    } else {
        output = xnew(struct output);
    }
    if (connection->output_first)
        connection->output_last->next = output;
    else
        connection->output_first = output;
    connection->output_last = output;
    return output;
}

static void chunk_is_sent(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;
    struct output *output = connection->output_first;

    connection->output_first = output->next;
    if (server->spares_count >= SPARE_MAX || output->data.capacity > CHUNK_KEPT) {
        output_free(output);
        return;
    }
    buffer_clear(&output->data);
    output->sent = 0;
    output->next = server->spares;
    server->spares = output;
    server->spares_count++;
}

static void tell_drained(struct rpc_connection *connection)
{
    struct rpc_connection_watch *watch, *next;

    connection->has_paused = false;
    for (watch = connection->watches; watch && !connection->closed; watch = next) {
        next = watch->next; /* a callback takes off none but its own */
        if (watch->drained)
            watch->drained(watch);
    }
}

/* 0: all is sent; -EAGAIN: the rest later; else the client is gone. */
static int flush(struct rpc_connection *connection)
{
    while (connection->output_first) {
        struct output *output = connection->output_first;
        ssize_t n =
            socket_send_now(connection->watch.fd, output->data.data + output->sent,
                            output->data.length - output->sent, output->fds, output->fds_count);
        if (n < 0)
            return (int)n;
        if (output->fds_count) {
            close_fds(output->fds, output->fds_count);
            count_output_fds(connection, -(ptrdiff_t)output->fds_count);
            output->fds_count = 0;
        }
        output->sent += (size_t)n;
        connection->output_bytes -= (size_t)n;
        connection->server->bytes_out += (size_t)n;
        if (output->sent == output->data.length)
            chunk_is_sent(connection);
    }
    connection->output_last = NULL;
    connection->output_longest = 0;
    return 0;
}

/* One message is taken in any case: who reads promptly gets it, however long it is. */
static bool owes_too_much(const struct rpc_connection *connection)
{
    return connection->output_bytes >
           connection->server->options.limits.output + connection->output_longest;
}

/* Sends what it can, and closes the connection when nobody takes it any more. */
static void flush_or_close(struct rpc_connection *connection)
{
    int r = flush(connection);
    bool overflow = !connection_charge(connection) || owes_too_much(connection);
    if (overflow)
        connection->server->overflowed++;
    if ((r < 0 && r != -EAGAIN) || overflow)
        rpc_connection_close(connection);
    else if (r == 0 && connection->has_paused)
        tell_drained(connection);
}

static void on_flush(struct rpc_task *task)
{
    struct rpc_connection *connection =
        (struct rpc_connection *)((char *)task - offsetof(struct rpc_connection, flush));

    rpc_connection_hold(connection);
    flush_or_close(connection);
    connection_update(connection);
    rpc_connection_release(connection);
}

struct buffer *connection_begin(struct rpc_connection *connection, const int *fds, size_t fds_count)
{
    struct output *output = connection->output_last;

    if (!output || fds_count || output->data.length >= CHUNK_SIZE)
        output = add_chunk(connection);
    if (fds_count) {
        memcpy(output->fds, fds, fds_count * sizeof(*fds));
        output->fds_count = fds_count;
        count_output_fds(connection, (ptrdiff_t)fds_count);
    }
    connection->output_bytes -= output->data.length - output->sent;
    connection->mark = connection->codec->begin(&output->data);
    return &output->data;
}

void connection_end(struct rpc_connection *connection)
{
    struct output *output = connection->output_last;

    connection->codec->end(&output->data, connection->mark);
    connection->output_bytes += output->data.length - output->sent;
    if (output->data.length - connection->mark > connection->output_longest)
        connection->output_longest = output->data.length - connection->mark;
    if (owes_too_much(connection))
        flush_or_close(connection);
    if (!connection->closed)
        rpc_loop_queue(connection->server->loop, &connection->flush);
}

void connection_undo(struct rpc_connection *connection, size_t fds_count)
{
    struct output *output = connection->output_last;
    struct buffer kept = BUFFER_INIT;

    if (fds_count) {
        close_fds(output->fds, fds_count);
        output->fds_count = 0;
        count_output_fds(connection, -(ptrdiff_t)fds_count);
    }
    /* What was taken back was long. */
    buffer_append(&kept, output->data.data, connection->mark);
    buffer_finish(&output->data);
    output->data = kept;
    connection->output_bytes += kept.length - output->sent;
}

static int notify(struct rpc_connection *connection, const char *method,
                  const struct json_type *type, const void *params)
{
    struct rpc_head head = {
        .method = method, .timeout_ms = RPC_NO_TIMEOUT, .params = params != NULL};

    if (connection->closed)
        return -ENOTCONN;
    if (connection->output_bytes > connection->server->pause) {
        connection->has_paused = true;
        return -ENOBUFS;
    }
    struct buffer *out = connection_begin(connection, NULL, 0);
    connection->codec->request_begin(out, &head);
    if (type && params)
        connection->codec->write(type, params, out);
    else if (params)
        connection->codec->write_json(params, strlen(params), out);
    connection->codec->request_end(out, &head);
    connection->server->notifications++;
    rpc_connection_hold(connection);
    connection_end(connection);
    connection_update(connection);
    rpc_connection_release(connection);
    return 0;
}

int rpc_connection_notify(struct rpc_connection *connection, const char *method,
                          const struct json_type *type, const void *params)
{
    return notify(connection, method, type, params);
}

int rpc_connection_notify_json(struct rpc_connection *connection, const char *method,
                               const char *params)
{
    return notify(connection, method, NULL, params);
}

/* ---- in ---- */

static bool may_take(const struct rpc_connection *connection)
{
    return !connection->closed &&
           connection->in_flight < connection->server->options.limits.in_flight &&
           connection->output_bytes <= connection->server->pause &&
           connection->output_fds <= FDS_OUT_PER_CONNECTION;
}

/* As rpc_codec.split of what begins at `start`. */
static int next_frame(struct rpc_connection *connection, size_t start, struct rpc_span *ret)
{
    struct buffer *in = &connection->in;

    return connection->codec->split(in->data + start, in->length - start,
                                    connection->server->options.limits.message,
                                    &connection->searched, ret);
}

static void refuse_rest(struct rpc_connection *connection, int code, const char *why,
                        const char *hint)
{
    connection->input_ended = true;
    buffer_finish(&connection->in);
    connection->searched = 0;
    dispatch_refuse(connection, code, why, hint);
}

/* The answer to a message of more bytes than are taken; what follows it cannot be found when it is
 * not whole. */
static void refuse_long(struct rpc_connection *connection, bool whole)
{
    _cleanup_free_ char *hint =
        xasprintf("a message has at most %zu bytes", connection->server->options.limits.message);

    if (whole)
        dispatch_refuse(connection, RPC_TOO_MANY, "the message is too long", hint);
    else
        refuse_rest(connection, RPC_TOO_MANY, "the message is too long", hint);
}

/* Hands on the complete messages, as long as there may be further requests. */
static void take_frames(struct rpc_connection *connection)
{
    size_t start = 0;

    connection->busy = true;
    while (may_take(connection) && start < connection->in.length) {
        struct rpc_span span;
        int r = next_frame(connection, start, &span);
        if (r < 0 && !span.consumed) {
            refuse_long(connection, false);
            start = 0;
            break;
        }
        if (r == 0)
            break;
        start += span.consumed;
        connection->progressed = true;
        if (r < 0)
            refuse_long(connection, true);
        else if (span.length)
            dispatch_frame(connection, span.text, span.length);
    }
    if (start)
        buffer_consume(&connection->in, start);
    connection->busy = false;
}

static bool has_frame(struct rpc_connection *connection)
{
    struct rpc_span span;

    return connection->in.length && next_frame(connection, 0, &span) != 0;
}

/* Descriptors without a message. */
static void check_rest(struct rpc_connection *connection)
{
    if (!connection->closed && connection->in.length == 0 && connection->fds_count &&
        !connection->input_ended)
        refuse_rest(connection, RPC_INVALID_REQUEST, "descriptors came that no message counts",
                    "count them in the message's member \"fds\"");
}

static void keep_fds(struct rpc_connection *connection, const int *fds, size_t count)
{
    if (!count)
        return;
    if (!connection->fds)
        connection->fds = xnew_array(int, ARRIVED_FDS_MAX);
    memcpy(connection->fds + connection->fds_count, fds, count * sizeof(*fds));
    connection_count_fds(connection, (ptrdiff_t)count);
}

static bool has_too_many_fds(const struct rpc_connection *connection)
{
    return connection->fds_count && (connection->server->fds_waiting > FDS_WAITING_MAX ||
                                     connection->count->fds_waiting > FDS_WAITING_PER_PEER);
}

/* Bytes read, which are in the server's scratch; 0: not now, negative: no more. */
static ssize_t read_some(struct rpc_connection *connection)
{
    struct buffer *scratch = &connection->server->scratch;
    size_t room = ARRIVED_FDS_MAX - connection->fds_count;
    int fds[SOCKET_FDS_MAX];

    if (room > SOCKET_FDS_MAX)
        room = SOCKET_FDS_MAX;
    buffer_reserve(scratch, READ_SIZE);
    ssize_t n = socket_receive_now(connection->watch.fd, scratch->data, READ_SIZE, fds, &room);
    if (n == -EAGAIN)
        return 0;
    if (n <= 0)
        return n < 0 ? n : -ESHUTDOWN;
    keep_fds(connection, fds, room);
    connection->server->bytes_in += (size_t)n;
    return n;
}

/* What came, and is not done with. */
static size_t stays(const struct rpc_connection *connection)
{
    return connection->in.length + connection->held_bytes;
}

/* Takes what is whole right out of the scratch; only the rest gets memory of the connection's. */
static void take_input(struct rpc_connection *connection, size_t length)
{
    struct rpc_server *server = connection->server;
    bool borrowed = connection->in.length == 0;
    size_t before = stays(connection);

    connection->borrowed = borrowed;
    if (borrowed) {
        buffer_finish(&connection->in);
        connection->in = server->scratch;
        connection->in.length = length;
        server->scratch = (struct buffer)BUFFER_INIT;
    } else {
        buffer_append(&connection->in, server->scratch.data, length);
    }
    take_frames(connection);
    check_rest(connection);
    if (borrowed) {
        server->scratch = connection->in;
        connection->in = (struct buffer)BUFFER_INIT;
        if (server->scratch.length)
            buffer_append(&connection->in, server->scratch.data, server->scratch.length);
        buffer_clear(&server->scratch);
    } else if (connection->in.length == 0) {
        buffer_finish(&connection->in);
    }
    connection->borrowed = false;
    /* Answers are on their way out: they are looked at when they are not taken. */
    if (!connection_charge(connection) && stays(connection) > before)
        refuse_rest(connection, RPC_TOO_MANY, "too much is on its way from this user",
                    "wait for answers, and read them");
}

static bool may_read(const struct rpc_connection *connection)
{
    return may_take(connection) && !connection->input_ended;
}

static void on_readable(struct rpc_connection *connection)
{
    for (int round = 0; round < READ_ROUNDS && may_read(connection); round++) {
        ssize_t n = read_some(connection);
        if (n == 0)
            return;
        if (n == -ESHUTDOWN)
            connection->input_ended = true;
        else if (n < 0) {
            rpc_connection_close(connection);
            return;
        }
        if (n > 0)
            take_input(connection, (size_t)n);
        if (has_too_many_fds(connection)) {
            rpc_connection_close(connection);
            return;
        }
        if (n < READ_SIZE) /* that was all, and if not, the loop says so again */
            return;
    }
}

static void on_event(struct rpc_watch *watch, uint32_t events)
{
    struct rpc_connection *connection =
        (struct rpc_connection *)((char *)watch - offsetof(struct rpc_connection, watch));
    bool gone = events & (EPOLLHUP | EPOLLERR);

    rpc_connection_hold(connection);
    if (gone && !may_read(connection))
        rpc_connection_close(connection); /* for good: one that shut its half is no hang-up */
    if (!connection->closed && (events & EPOLLOUT))
        flush_or_close(connection);
    if (!connection->closed && (gone || (events & EPOLLIN)))
        on_readable(connection);
    connection_update(connection);
    rpc_connection_release(connection);
}

static void set_patience(struct rpc_connection *connection, unsigned seconds)
{
    struct rpc_loop *loop = connection->server->loop;

    connection->progressed = false;
    rpc_loop_set_timer(loop, &connection->patience, rpc_loop_now(loop) + seconds * NS_PER_SECOND);
}

/* A client whose calls wait for answers is not to blame for what it sent meanwhile. */
static void on_patience(struct rpc_timer *timer)
{
    struct rpc_connection *connection =
        (struct rpc_connection *)((char *)timer - offsetof(struct rpc_connection, patience));

    if (connection->guest ||
        (connection->fds_count && may_take(connection) && !connection->progressed))
        rpc_connection_close(connection);
    else if (connection->fds_count)
        set_patience(connection, FDS_WAITING_SECONDS);
}

/* Whether the connection has nothing left to do. */
static bool is_done(struct rpc_connection *connection)
{
    return connection->input_ended && connection->in_flight == 0 && !connection->output_first &&
           !has_frame(connection);
}

void connection_update(struct rpc_connection *connection)
{
    if (connection->closed || connection->busy)
        return;
    /* Messages that had to wait until earlier requests were answered. */
    if (connection->in.length && may_take(connection) && has_frame(connection)) {
        take_frames(connection);
        check_rest(connection);
        if (connection->in.length == 0)
            buffer_finish(&connection->in);
    }
    if (connection->closed)
        return;
    if (is_done(connection)) {
        rpc_connection_close(connection);
        return;
    }
    /* A hang-up is told in any case; asked for, so that the descriptor stays watched. */
    uint32_t events = EPOLLHUP;
    if (may_read(connection))
        events |= EPOLLIN;
    if (connection->output_first && !connection->flush.queued)
        events |= EPOLLOUT;
    if (connection->fds_count && !connection->patience.place)
        set_patience(connection, FDS_WAITING_SECONDS);
    rpc_loop_watch(connection->server->loop, &connection->watch, events);
}

/* ---- the connection itself ---- */

void connection_review(struct rpc_connection *connection)
{
    const struct rpc_server_options *options = &connection->server->options;
    uint64_t account = 0;

    if (connection->closed || !options->admit)
        return;
    bool welcome = options->admit(connection, &account, options->context) == RPC_WELCOME;
    if (!welcome && !connection->guest)
        rpc_connection_close(connection);
    else if (welcome && connection->guest && server_welcome(connection))
        rpc_loop_clear_timer(connection->server->loop, &connection->patience);
}

/* Nobody will read on: what fits into the socket is all there is to say. */
void connection_turn_away(struct rpc_server *server, int fd)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    server->refused++;
    rpc_write_error(&rpc_codec_json, &out, (struct rpc_part){0}, RPC_TOO_MANY,
                    "too many connections", NULL, "close others, or try again later");
    rpc_codec_json.end(&out, 0);
    socket_send_now(fd, out.data, out.length, NULL, 0);
    close(fd);
}

static struct rpc_peer peer_of(int fd)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return (struct rpc_peer){.uid = (uid_t)-1, .gid = (gid_t)-1};
    return (struct rpc_peer){
        .uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid};
}

static struct rpc_connection *connection_create(struct rpc_server *server, int fd, const void *tag)
{
    struct rpc_connection *connection = xnew(struct rpc_connection);

    connection->server = server;
    connection->codec = &rpc_codec_json;
    connection->references = 1;
    connection->peer = peer_of(fd);
    connection->tag = tag;
    connection->watch = (struct rpc_watch){.fd = fd, .callback = on_event};
    connection->flush.callback = on_flush;
    connection->patience.callback = on_patience;
    return connection;
}

/* Whether it is let in; else it is gone. */
static bool admit(struct rpc_connection *connection, uint64_t account)
{
    const struct rpc_server_options *options = &connection->server->options;
    enum rpc_standing standing = RPC_WELCOME;

    if (options->admit)
        standing = options->admit(connection, &account, options->context);
    connection->guest = standing == RPC_GUEST;
    if (standing != RPC_NOT_NOW && server_admit(connection, account))
        return true;
    if (options->admit && options->closed)
        options->closed(connection, options->context);
    connection_turn_away(connection->server, connection->watch.fd);
    free(connection->name);
    free(connection);
    return false;
}

static void connection_link(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;

    connection->next = server->connections;
    connection->at = &server->connections;
    if (connection->next)
        connection->next->at = &connection->next;
    server->connections = connection;
    server->references++;
    server->accepted++;
}

void connection_open(struct rpc_server *server, int fd, const void *tag, uint64_t account)
{
    if (server_is_full(server)) {
        connection_turn_away(server, fd);
        return;
    }
    struct rpc_connection *connection = connection_create(server, fd, tag);
    if (!admit(connection, account))
        return;
    connection_link(connection);
    rpc_connection_hold(connection);
    if (connection->guest)
        set_patience(connection, RPC_GUEST_SECONDS);
    if (rpc_loop_watch(server->loop, &connection->watch, EPOLLIN | EPOLLHUP) < 0)
        connection->input_ended = true;
    if (server->options.opened)
        server->options.opened(connection, server->options.context);
    if (connection->input_ended)
        rpc_connection_close(connection);
    rpc_connection_release(connection);
}

const struct rpc_peer *rpc_connection_peer(const struct rpc_connection *connection)
{
    return &connection->peer;
}

int rpc_connection_fd(const struct rpc_connection *connection)
{
    return connection->closed ? -1 : connection->watch.fd;
}

void rpc_connection_set_name(struct rpc_connection *connection, const char *name)
{
    free(connection->name);
    connection->name = xstrdup(name);
    connection->peer.name = connection->name;
}

const void *rpc_connection_tag(const struct rpc_connection *connection)
{
    return connection->tag;
}

struct rpc_server *rpc_connection_server(const struct rpc_connection *connection)
{
    return connection->server;
}

void *rpc_connection_data(const struct rpc_connection *connection)
{
    return connection->data;
}

void rpc_connection_set_data(struct rpc_connection *connection, void *data)
{
    connection->data = data;
}

bool rpc_connection_closed(const struct rpc_connection *connection)
{
    return connection->closed;
}

size_t rpc_connection_queued(const struct rpc_connection *connection)
{
    return connection->output_bytes;
}

void rpc_connection_watch(struct rpc_connection *connection, struct rpc_connection_watch *watch)
{
    watch->next = connection->watches;
    watch->at = &connection->watches;
    if (watch->next)
        watch->next->at = &watch->next;
    connection->watches = watch;
}

void rpc_connection_unwatch(struct rpc_connection_watch *watch)
{
    if (!watch->at)
        return;
    *watch->at = watch->next;
    if (watch->next)
        watch->next->at = watch->at;
    watch->at = NULL;
}
