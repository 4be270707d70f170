/*
 * A client's connection from its begin to its end. Whatever happens (bytes, an answer, time), it
 * ends in update(), which does what the state asks for and watches what is awaited then:
 *
 *     advance()       heads and bodies out of `in`, as far as there are any (request.c)
 *     flush_stream()  what waits for the stream
 *     flush_client()  what waits for the client
 *     settle()        an answer that is said to the end makes room for the next request
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/socket.h>
#include <base/text.h>

#include "exchange.h"

enum { READ_SIZE = 64 * 1024, READ_ROUNDS = 4 };
#define NS_PER_SECOND 1000000000ULL

struct docker_server {
    struct rpc_loop *loop;
    struct connection *connections;
    size_t bytes; /* that all of them hold */
    struct listing listing;
};

static void update(struct connection *connection);

struct rpc_loop *connection_loop(struct connection *connection)
{
    return connection->server->loop;
}

struct listing *connection_listing(struct connection *connection)
{
    return &connection->server->listing;
}

void connection_touch(struct connection *connection)
{
    rpc_loop_queue_later(connection->server->loop, &connection->update);
}

bool connection_is_behind(const struct connection *connection)
{
    return connection->out.length >= DOCKER_PAUSE;
}

/* Whose time begins now. */
static void enter(struct connection *connection, enum connection_state state)
{
    connection->state = state;
    connection->moved = rpc_loop_now(connection->server->loop);
}

/* ---- the daemon ---- */

static void on_notified(void *data, const char *method, size_t method_length, const char *params,
                        size_t params_length)
{
    struct connection *connection = data;
    struct exchange *exchange = connection->exchange;

    if (exchange && exchange->notified && !exchange->ended)
        exchange->notified(exchange, method, method_length, params, params_length);
}

static void on_channel_ended(void *data, const struct error *why _unused_)
{
    struct connection *connection = data;

    connection->channel_ended = true;
    /* A stream of events that cannot go on is at its end. */
    if (connection->exchange && connection->exchange->notified && !connection->exchange->ended)
        answer_break(connection->exchange);
    connection_touch(connection);
}

struct rpc_channel *connection_channel(struct connection *connection, struct error *err)
{
    const struct rpc_channel_events events = {
        .notified = on_notified, .ended = on_channel_ended, .data = connection};

    if (connection->channel && !connection->channel_ended)
        return connection->channel;
    rpc_channel_close(steal_ptr(connection->channel));
    connection->channel_ended = false;
    int fd = connection->ops->open_inside(connection->data, err);
    if (fd < 0 ||
        rpc_channel_open(connection->server->loop, fd, &events, &connection->channel, err) < 0)
        return NULL;
    return connection->channel;
}

/* ---- ends ---- */

void connection_close_stream(struct connection *connection)
{
    if (connection->stream.fd < 0)
        return;
    rpc_loop_watch(connection->server->loop, &connection->stream, 0);
    close(connection->stream.fd);
    connection->stream.fd = -1;
    connection->directions = 0;
    buffer_finish(&connection->to_stream);
    connection->cut_off = false;
}

static void exchange_free(struct exchange *exchange)
{
    if (!exchange)
        return;
    calls_cancel(exchange);
    rpc_loop_clear_timer(exchange->connection->server->loop, &exchange->timer);
    if (exchange->release)
        exchange->release(exchange->state);
    head_finish(&exchange->head);
    target_finish(&exchange->target);
    for (size_t i = 0; i < ROUTE_WORDS_MAX; i++)
        free(exchange->words[i]);
    buffer_finish(&exchange->body);
    free(exchange->websocket);
    free(exchange);
}

static void connection_free(struct connection *connection)
{
    exchange_free(steal_ptr(connection->exchange));
    /* In this order: the end of a stream that the daemon still waits for would be that of the
     * whole. */
    rpc_channel_close(connection->channel);
    connection_close_stream(connection);
    rpc_loop_watch(connection->server->loop, &connection->client, 0);
    close(connection->client.fd);
    rpc_loop_unqueue(connection->server->loop, &connection->update);
    rpc_loop_unqueue(connection->server->loop, &connection->read_file);
    rpc_loop_clear_timer(connection->server->loop, &connection->timer);
    rpc_loop_clear_timer(connection->server->loop, &connection->look);
    connection->server->bytes -= connection->counted;
    buffer_finish(&connection->in);
    buffer_finish(&connection->out);
    buffer_finish(&connection->to_stream);
    buffer_finish(&connection->headers);
    buffer_finish(&connection->last_words);
    *connection->at = connection->next;
    if (connection->next)
        connection->next->at = connection->at;
    connection->ops->gone(connection->data);
    free(connection);
}

/* ---- bytes ---- */

/* The end of its WebSocket is said, and what was said before waits for the stream still. The client
 * may be gone meanwhile, and is not listened to. */
static bool is_parting(const struct connection *connection)
{
    return connection->state == CONNECTION_RELAY && connection->exchange->websocket &&
           connection->exchange->websocket->frames.closed;
}

static void advance(struct connection *connection)
{
    request_advance(connection);
    if (connection->state == CONNECTION_RELAY && connection->stream.fd < 0)
        buffer_clear(&connection->in); /* nobody wants it any more */
    if (connection->state == CONNECTION_RELAY && connection->in.length &&
        connection->to_stream.length < DOCKER_PAUSE)
        relay_input(connection->exchange);
    if (connection->state == CONNECTION_FAREWELL)
        buffer_clear(&connection->in);
}

static bool may_read_client(const struct connection *connection)
{
    if (connection->client_ended || is_parting(connection))
        return false;
    switch (connection->state) {
    case CONNECTION_HEAD:
        return connection->in.length <= HEAD_MAX && connection->out.length < DOCKER_PAUSE;
    case CONNECTION_BODY:
    case CONNECTION_FAREWELL:
        return true;
    case CONNECTION_EXCHANGE:
        return connection->body.state != BODY_DONE &&
               (connection->client_finished || connection->in.length < DOCKER_PAUSE);
    case CONNECTION_RELAY:
        return connection->client_finished ||
               connection->to_stream.length + connection->in.length < DOCKER_PAUSE;
    default:
        return false;
    }
}

static void lose_client(struct connection *connection)
{
    if (is_parting(connection))
        buffer_clear(&connection->out);
    else
        connection->state = CONNECTION_CLOSED;
}

static void read_client(struct connection *connection)
{
    for (int round = 0; may_read_client(connection); round++) {
        if (round >= READ_ROUNDS && !connection->client_finished)
            return;
        buffer_reserve(&connection->in, READ_SIZE);
        ssize_t n = recv(connection->client.fd, connection->in.data + connection->in.length,
                         READ_SIZE, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            lose_client(connection);
            return;
        }
        if (n == 0) {
            connection->client_ended = true;
            return;
        }
        connection->in.length += (size_t)n;
        connection->in.data[connection->in.length] = '\0';
        connection->moved = rpc_loop_now(connection->server->loop);
        advance(connection);
    }
}

static void flush_client(struct connection *connection)
{
    struct buffer *out = &connection->out;
    size_t sent = 0;

    while (sent < out->length) {
        ssize_t n = send(connection->client.fd, out->data + sent, out->length - sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            lose_client(connection);
            return;
        }
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    buffer_consume(out, sent);
    if (sent)
        connection->moved = rpc_loop_now(connection->server->loop);
    if (!out->length && out->capacity >= DOCKER_PAUSE)
        buffer_finish(out);
}

/* Pipes and sockets alike. */
static void flush_stream(struct connection *connection)
{
    struct buffer *to = &connection->to_stream;
    size_t sent = 0;

    while (connection->stream.fd >= 0 && sent < to->length) {
        ssize_t n = write(connection->stream.fd, to->data + sent, to->length - sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) { /* nobody wants it */
            sent = to->length;
            connection->directions &= ~(unsigned)STREAM_IN;
            connection->swallow = true;
            break;
        }
        sent += (size_t)n;
    }
    buffer_consume(to, sent);
    if (connection->stream.fd >= 0 && connection->state == CONNECTION_RELAY &&
        connection->client_ended && !to->length && !connection->in.length &&
        connection->directions & STREAM_IN) {
        connection->directions &= ~(unsigned)STREAM_IN;
        shutdown(connection->stream.fd, SHUT_WR);
    }
    bool whole = connection->state == CONNECTION_EXCHANGE && !to->length &&
                 connection->body.state == BODY_DONE && connection->directions & STREAM_IN &&
                 !connection->cut_off;
    if (connection->stream.fd >= 0 && whole) {
        connection->directions &= ~(unsigned)STREAM_IN;
        shutdown(connection->stream.fd, SHUT_WR); /* of a socket; a pipe is closed below */
    }
    if (connection->stream.fd >= 0 && !connection->directions)
        connection_close_stream(connection);
}

static bool may_read_stream(const struct connection *connection)
{
    return connection->stream.fd >= 0 && connection->directions & STREAM_OUT &&
           connection->out.length < DOCKER_PAUSE && !connection->looks;
}

void answer_hang_up(struct exchange *exchange)
{
    struct connection *connection = exchange->connection;

    if (exchange->websocket)
        frames_close(&exchange->websocket->frames, FRAMES_NORMAL, &connection->out);
    enter(connection, CONNECTION_FAREWELL);
    shutdown(connection->client.fd, SHUT_RD);
    connection_touch(connection);
}

static void check_parting(struct connection *connection)
{
    if (!is_parting(connection) || (connection->to_stream.length && connection->stream.fd >= 0))
        return;
    connection_close_stream(connection);
    answer_hang_up(connection->exchange);
}

/* docker-py reads the head of a stream through a buffer, and the stream past it: what comes in one
 * piece with the head is lost to it. dockerd is never as fast. */
static void look_for_reader(struct connection *connection)
{
    int unread = 0;

    if (!connection->looks || connection->out.length)
        return;
    connection->looks--;
    if (ioctl(connection->client.fd, SIOCOUTQ, &unread) < 0 || !unread)
        connection->looks = 0;
    if (!connection->looks) {
        buffer_append(&connection->out, connection->last_words.data, connection->last_words.length);
        buffer_finish(&connection->last_words);
        connection_touch(connection);
    }
    if (connection->looks)
        rpc_loop_set_timer(connection->server->loop, &connection->look,
                           rpc_loop_update_now(connection->server->loop) + LOOK_NS);
}

static void stream_dry(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;

    connection_close_stream(connection);
    if (connection->state == CONNECTION_RELAY && !exchange->dry) {
        answer_hang_up(exchange);
        return;
    }
    if (connection->state == CONNECTION_RELAY) {
        exchange->dry(exchange);
        return;
    }
    if (!exchange || exchange->ended)
        return;
    if (exchange->dry)
        exchange->dry(exchange);
    else
        answer_end(exchange);
}

static void read_stream(struct connection *connection)
{
    char data[READ_SIZE] _uninitialized_;

    for (int round = 0; round < READ_ROUNDS && may_read_stream(connection); round++) {
        ssize_t n = read(connection->stream.fd, data, sizeof(data));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            stream_dry(connection);
            return;
        }
        if (connection->state == CONNECTION_RELAY)
            relay_output(connection->exchange, data, (size_t)n);
        else if (connection->exchange->pumped)
            connection->exchange->pumped(connection->exchange, data, (size_t)n);
        else
            answer_data(connection->exchange, data, (size_t)n);
    }
}

/* ---- states ---- */

/* The answer is said to the end: the next request, or the end of all. */
static void settle(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;

    if (connection->state != CONNECTION_EXCHANGE || !exchange || !exchange->ended)
        return;
    connection->swallow = true;
    connection_close_stream(connection);
    if (connection->keep && connection->body.state != BODY_DONE && !connection->client_ended)
        return; /* what is left of its body comes first */
    exchange_free(steal_ptr(connection->exchange));
    enter(connection, connection->keep ? CONNECTION_HEAD : CONNECTION_FAREWELL);
    if (!connection->in.length)
        buffer_finish(&connection->in); /* of one that only waits */
}

/* Who says no more is not there any more, unless an answer is on its way. */
static void check_client(struct connection *connection)
{
    const struct exchange *exchange = connection->exchange;

    if (!connection->client_ended || request_waits(connection))
        return;
    if (connection->state == CONNECTION_HEAD || connection->state == CONNECTION_BODY ||
        (connection->state == CONNECTION_EXCHANGE && !exchange->ended && exchange->route &&
         exchange->route->flags & ROUTE_LONG)) {
        exchange_free(steal_ptr(connection->exchange));
        connection_close_stream(connection);
        enter(connection, CONNECTION_FAREWELL);
    } else if (connection->state == CONNECTION_EXCHANGE && connection->body.state != BODY_DONE) {
        size_t waiting = connection->in.length;
        advance(connection); /* there may be room now for what was read */
        bool waits = waiting && connection->to_stream.length >= DOCKER_PAUSE;
        if (connection->in.length == waiting && connection->body.state != BODY_DONE && !waits)
            request_cut_off(connection);
    }
}

static void check_farewell(struct connection *connection)
{
    if (connection->state != CONNECTION_FAREWELL || connection->out.length ||
        connection->last_words.length)
        return;
    shutdown(connection->client.fd, SHUT_WR);
    if (connection->client_ended)
        connection->state = CONNECTION_CLOSED;
}

/* However long what waits for the client is not read: a program that looks at the end of a log a
 * page at a time is no fault, and the kernel tells when the client is gone. How much waits is
 * limited (account()). */
static uint64_t patience(const struct connection *connection)
{
    if (is_parting(connection))
        return DOCKER_CLOSE_SECONDS;
    if (connection->out.length && connection->state != CONNECTION_BODY)
        return 0;
    switch (connection->state) {
    case CONNECTION_HEAD:
        return connection->in.length ? DOCKER_HEAD_SECONDS : DOCKER_IDLE_SECONDS;
    case CONNECTION_BODY:
        return DOCKER_BODY_SECONDS;
    case CONNECTION_FAREWELL:
        return DOCKER_CLOSE_SECONDS;
    case CONNECTION_EXCHANGE:
        return connection->exchange->ended ? DOCKER_BODY_SECONDS : 0;
    default:
        return 0;
    }
}

static void set_timer(struct connection *connection)
{
    uint64_t seconds = patience(connection);

    if (seconds)
        rpc_loop_set_timer(connection->server->loop, &connection->timer,
                           connection->moved + seconds * NS_PER_SECOND);
    else
        rpc_loop_clear_timer(connection->server->loop, &connection->timer);
}

static void set_watches(struct connection *connection)
{
    uint32_t client = connection->client_ended ? EPOLLHUP : EPOLLRDHUP, stream = 0;

    if (is_parting(connection))
        client = 0;
    if (may_read_client(connection))
        client |= EPOLLIN;
    if (connection->out.length)
        client |= EPOLLOUT;
    if (may_read_stream(connection))
        stream |= EPOLLIN;
    if (connection->to_stream.length)
        stream |= EPOLLOUT;
    if (rpc_loop_watch(connection->server->loop, &connection->client, client) < 0)
        connection->state = CONNECTION_CLOSED;
    int r = connection->stream.fd < 0
                ? 0
                : rpc_loop_watch(connection->server->loop, &connection->stream, stream);
    if (r == -EPERM && may_read_stream(connection)) /* a file, which is always ready */
        rpc_loop_queue_later(connection->server->loop, &connection->read_file);
    else if (r < 0 && r != -EPERM)
        connection->state = CONNECTION_CLOSED;
}

/* Until nothing moves by itself any more. */
static void move_on(struct connection *connection)
{
    enum connection_state before;
    size_t waiting, streaming;

    do {
        before = connection->state;
        waiting = connection->in.length;
        streaming = connection->to_stream.length;
        advance(connection);
        flush_stream(connection);
        check_parting(connection);
        settle(connection);
        check_client(connection);
    } while (connection->state != CONNECTION_CLOSED &&
             (connection->state != before || connection->in.length != waiting ||
              connection->to_stream.length != streaming) &&
             connection->out.length < DOCKER_PAUSE);
}

/* ---- memory ---- */

static size_t held_by(const struct connection *connection)
{
    const struct exchange *exchange = connection->exchange;

    return connection->in.capacity + connection->out.capacity + connection->to_stream.capacity +
           connection->headers.capacity + (exchange ? exchange->body.capacity : 0);
}

static void count(struct connection *connection, size_t bytes)
{
    connection->server->bytes += bytes - connection->counted;
    connection->counted = bytes;
}

static struct connection *find_largest(const struct docker_server *server)
{
    struct connection *largest = NULL;

    for (struct connection *other = server->connections; other; other = other->next)
        if (other->counted && (!largest || other->counted > largest->counted))
            largest = other;
    return largest;
}

/* While all of them together hold more than DOCKER_BUDGET, the one that holds most is ended. */
static void account(struct connection *connection)
{
    struct docker_server *server = connection->server;
    struct connection *largest;

    /* What follows events or waits for an end for days sends nothing. */
    if (!connection->in.length && connection->state != CONNECTION_HEAD)
        buffer_finish(&connection->in);
    count(connection, held_by(connection));
    while (server->bytes > DOCKER_BUDGET && (largest = find_largest(server))) {
        log_warning("docker: %zu bytes wait for clients, and most for one that is left now",
                    server->bytes);
        largest->state = CONNECTION_CLOSED;
        count(largest, 0);
        connection_touch(largest);
    }
}

/* ---- all of it ---- */

static void update(struct connection *connection)
{
    if (connection->state != CONNECTION_CLOSED)
        move_on(connection);
    if (connection->state != CONNECTION_CLOSED)
        flush_client(connection);
    look_for_reader(connection);
    if (connection->state != CONNECTION_CLOSED)
        check_farewell(connection);
    if (connection->state != CONNECTION_CLOSED)
        account(connection);
    if (connection->state != CONNECTION_CLOSED)
        set_watches(connection);
    if (connection->state == CONNECTION_CLOSED) {
        connection_free(connection);
        return;
    }
    set_timer(connection);
    /* A pipelined request that waited for room. */
    if (connection->out.length < DOCKER_PAUSE && request_waits(connection))
        connection_touch(connection);
}

/* ---- events ---- */

static void on_client(struct rpc_watch *watch, uint32_t events)
{
    struct connection *connection =
        (struct connection *)((char *)watch - offsetof(struct connection, client));

    /* It will say no more: what is still unread is at most what the socket holds, and is its last
     * words, however much waits for the container already. */
    if (events & (EPOLLRDHUP | EPOLLHUP))
        connection->client_finished = true;
    if (events & (EPOLLHUP | EPOLLERR) && !may_read_client(connection)) {
        lose_client(connection);
    } else {
        read_client(connection);
        if (events & EPOLLRDHUP && !may_read_client(connection))
            connection->client_ended = true;
    }
    update(connection);
}

static void on_stream(struct rpc_watch *watch, uint32_t events)
{
    struct connection *connection =
        (struct connection *)((char *)watch - offsetof(struct connection, stream));

    read_stream(connection);
    /* A pipe whose reader is gone, and nothing to write into it that would tell. */
    if (connection->stream.fd >= 0 && events & EPOLLERR && connection->directions == STREAM_IN) {
        connection_close_stream(connection);
        connection->swallow = true;
    }
    update(connection);
}

static void on_update(struct rpc_task *task)
{
    update((struct connection *)((char *)task - offsetof(struct connection, update)));
}

static void on_read_file(struct rpc_task *task)
{
    struct connection *connection =
        (struct connection *)((char *)task - offsetof(struct connection, read_file));

    read_stream(connection);
    update(connection);
}

static void on_look(struct rpc_timer *timer)
{
    update((struct connection *)((char *)timer - offsetof(struct connection, look)));
}

static void on_time(struct rpc_timer *timer)
{
    struct connection *connection =
        (struct connection *)((char *)timer - offsetof(struct connection, timer));

    connection->state = CONNECTION_CLOSED;
    update(connection);
}

/* ---- streams ---- */

bool exchange_read_rest(struct exchange *exchange)
{
    read_stream(exchange->connection);
    return exchange->connection->stream.fd < 0;
}

/* ---- begin and end ---- */

void docker_server_create(struct rpc_loop *loop, struct docker_server **ret)
{
    struct docker_server *server = xnew(struct docker_server);

    server->loop = loop;
    *ret = server;
}

void docker_server_destroy(struct docker_server *server)
{
    if (!server)
        return;
    while (server->connections)
        connection_free(server->connections);
    listing_finish(&server->listing);
    free(server);
}

void docker_server_accept(struct docker_server *server, int fd, const struct docker_client_ops *ops,
                          void *data)
{
    struct connection *connection = xnew(struct connection);

    *connection = (struct connection){.server = server,
                                      .ops = ops,
                                      .data = data,
                                      .client = {.fd = fd, .callback = on_client},
                                      .stream = {.fd = -1, .callback = on_stream},
                                      .update = {.callback = on_update},
                                      .read_file = {.callback = on_read_file},
                                      .timer = {.callback = on_time},
                                      .look = {.callback = on_look},
                                      .moved = rpc_loop_now(server->loop),
                                      .body = {.state = BODY_DONE}};
    connection->next = server->connections;
    connection->at = &server->connections;
    if (connection->next)
        connection->next->at = &connection->next;
    server->connections = connection;
    connection_touch(connection);
}
