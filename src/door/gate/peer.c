/*
 * A connection, from being accepted to its end. Bytes go through two buffers, flow.in and flow.out.
 * What is read depends on what waits, so that whoever does not read is not read from either:
 *
 *     outside -> in    while less than DOOR_PAUSE bytes wait in `in`, and as much in `out`
 *     inside -> out    while less than DOOR_PAUSE bytes wait in `out`
 *
 * Each half is shut by itself when its side has ended and what waited for it is sent. In the HTTP
 * phase inside is our own HTTP server, which is none the wiser about TLS.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/socket.h>
#include <rpc/server.h>

#include "gate.h"
#include "tls.h"
#include "websocket.h"

enum { READ_SIZE = 16 * 1024, READ_ROUNDS = 4 };

static void peer_update(struct peer *peer);

/* ---- ends ---- */

static void close_inside(struct peer *peer)
{
    if (peer->inside.fd < 0)
        return;
    rpc_loop_watch(peer->gate->loop, &peer->inside, 0);
    close(peer->inside.fd);
    peer->inside.fd = -1;
    buffer_finish(&peer->flow.in);
    buffer_finish(&peer->from_inside);
    peer->flow.in_ready = 0;
}

static void leave_handshake(struct peer *peer)
{
    if (peer->in_handshake)
        source_handshake_done(peer->gate, peer->source);
    peer->in_handshake = false;
}

static void peer_free(struct peer *peer)
{
    struct gate *gate = peer->gate;

    rpc_loop_watch(gate->loop, &peer->outside, 0);
    close_inside(peer);
    close_fd(steal_fd(&peer->upgrade_fd));
    rpc_loop_clear_timer(gate->loop, &peer->timer);
    rpc_loop_unqueue(gate->loop, &peer->update);
    stream_finish(&peer->stream);
    websocket_destroy(peer->websocket);
    buffer_finish(&peer->flow.out);
    share_memory_back(peer);
    source_leave(gate, peer->source, peer->in_handshake);
    if (peer->previous)
        peer->previous->next = peer->next;
    else
        gate->peers = peer->next;
    if (peer->next)
        peer->next->previous = peer->previous;
    free(peer);
    gate_peer_gone(gate);
}

/* Nothing comes from inside any more. What waits still goes out. */
static void begin_farewell(struct peer *peer)
{
    close_inside(peer);
    peer->state = PEER_FAREWELL;
    peer->since = rpc_loop_now(peer->gate->loop);
}

static void flush_inside(struct peer *peer);

/* The same, of a client that has nothing more to say: the messages before its end still go in. */
static void end_of_client(struct peer *peer)
{
    struct flow *flow = &peer->flow;

    flush_inside(peer);
    if (!flow->in_ready || peer->inside.fd < 0) {
        begin_farewell(peer);
        return;
    }
    if (flow->in.length > flow->in_ready) {
        flow->in.length = flow->in_ready;
        flow->in.data[flow->in.length] = '\0';
    }
    peer->state = PEER_FAREWELL;
    peer->since = rpc_loop_now(peer->gate->loop);
}

/* The connection is lost, and nobody is there to be told anything. */
static void lose_outside(struct peer *peer)
{
    bool may_have_more =
        peer->state == PEER_RELAY || (peer->state == PEER_FAREWELL && peer->inside.fd >= 0);

    if (!may_have_more) {
        peer->state = PEER_CLOSED;
        return;
    }
    peer->outside_ended = peer->outside_shut = true;
    buffer_finish(&peer->flow.out);
    peer->stream.unsent = peer->bye_waits = false;
    if (peer->state == PEER_RELAY)
        end_of_client(peer);
}

static void say_farewell(struct peer *peer, enum websocket_code code, const char *reason)
{
    if (peer->websocket)
        websocket_close(peer->websocket, code, reason);
    begin_farewell(peer);
}

/* ---- outside to inside ---- */

static bool may_read_outside(const struct peer *peer)
{
    if (peer->outside_ended)
        return false;
    if (peer->state == PEER_FAREWELL)
        return true;
    return (peer->state == PEER_HTTP || peer->state == PEER_RELAY) &&
           peer->flow.in_ready < DOOR_PAUSE && peer->flow.out.length < DOOR_PAUSE;
}

/* What a browser sends, to whatever port a page names, begins with the name of an HTTP method; the
 * lines that a page puts behind it must not count as calls. */
static bool begins_as_json(const char *data)
{
    return strchr("{[ \t\r\n", *data) && *data;
}

/* When the message that is not whole began, and when there was last more of it. */
static void watch_message(struct peer *peer)
{
    uint64_t now = rpc_loop_now(peer->gate->loop), whole = websocket_whole(peer->websocket);
    size_t part = peer->flow.in.length - peer->flow.in_ready;

    if (!websocket_has_begun(peer->websocket)) {
        peer->part_since = 0;
        return;
    }
    if (!peer->part_since || whole != peer->whole) {
        peer->part_since = peer->part_grew = now;
        peer->part = 0;
        peer->whole = whole;
    }
    if (part > peer->part)
        peer->part_grew = now;
    peer->part = part;
}

static void take_input(struct peer *peer, const char *data, size_t length)
{
    if (peer->state == PEER_FAREWELL && !peer->websocket)
        return; /* read, so that closing does not look like a reset */
    if (peer->websocket) {
        websocket_receive(peer->websocket, data, length);
        if (peer->state == PEER_RELAY && websocket_is_closed(peer->websocket))
            end_of_client(peer);
        watch_message(peer);
        return;
    }
    if (peer->state == PEER_RELAY && !peer->heard_first && !begins_as_json(data)) {
        if (gate_may_log(peer->gate, peer->source))
            log_info("%s: what came is no JSON", peer->address);
        peer->state = PEER_CLOSED;
        return;
    }
    peer->heard_first = peer->state == PEER_RELAY;
    buffer_append(&peer->flow.in, data, length);
    peer->flow.in_ready = peer->flow.in.length;
}

static void read_outside(struct peer *peer)
{
    char data[READ_SIZE] _uninitialized_;

    for (int round = 0; may_read_outside(peer); round++) {
        if (round >= READ_ROUNDS && !stream_has_more(&peer->stream))
            return; /* the others, too */
        ssize_t n = stream_read(&peer->stream, data, sizeof(data));
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            lose_outside(peer);
            return;
        }
        if (n == 0) {
            peer->outside_ended = true;
            return;
        }
        peer->heard = peer->moved = rpc_loop_now(peer->gate->loop);
        peer->pinged = 0;
        take_input(peer, data, (size_t)n);
    }
}

static void flush_inside(struct peer *peer)
{
    struct flow *flow = &peer->flow;
    size_t sent = 0;

    while (peer->inside.fd >= 0 && sent < flow->in_ready) {
        ssize_t n =
            send(peer->inside.fd, flow->in.data + sent, flow->in_ready - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            peer->inside_shut = true; /* what it said before its end can still be read */
            sent = flow->in_ready;
        }
        if (n < 0)
            break;
        sent += (size_t)n;
        peer->moved = rpc_loop_now(peer->gate->loop);
    }
    buffer_consume(&flow->in, sent);
    flow->in_ready -= sent;
    if (peer->inside.fd >= 0 && peer->outside_ended && !flow->in_ready && !peer->inside_shut) {
        /* A WebSocket that ends without farewell has nothing more to ask. */
        peer->inside_shut = true;
        shutdown(peer->inside.fd, SHUT_WR);
    }
}

/* ---- inside to outside ---- */

static bool may_read_inside(const struct peer *peer)
{
    return peer->inside.fd >= 0 && !peer->inside_ended && peer->state != PEER_FAREWELL &&
           peer->flow.out.length < DOOR_PAUSE;
}

static void take_from_inside(struct peer *peer, const char *data, size_t length)
{
    if (!peer->flow.out.length)
        peer->drained = rpc_loop_now(peer->gate->loop);
    if (!peer->websocket) {
        buffer_append(&peer->flow.out, data, length);
        return;
    }
    buffer_append(&peer->from_inside, data, length);
    if (!websocket_forward(peer->websocket, &peer->from_inside)) {
        log_error("%s: the daemon sent what is no message", peer->address);
        say_farewell(peer, WEBSOCKET_GOING_AWAY, "the daemon sent what is no message");
    }
}

static void read_inside(struct peer *peer)
{
    char data[READ_SIZE] _uninitialized_;

    for (int round = 0; round < READ_ROUNDS && may_read_inside(peer); round++) {
        ssize_t n = recv(peer->inside.fd, data, sizeof(data), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            peer->inside_ended = true;
            return;
        }
        peer->moved = rpc_loop_now(peer->gate->loop);
        take_from_inside(peer, data, (size_t)n);
        if (n < READ_SIZE)
            return;
    }
}

static void flush_outside(struct peer *peer)
{
    struct buffer *out = &peer->flow.out;
    size_t sent = 0;

    if (peer->state == PEER_HANDSHAKE)
        return;
    while (sent < out->length) {
        ssize_t n = stream_write(&peer->stream, out->data + sent, out->length - sent);
        if (n == -EAGAIN)
            break;
        if (n < 0) {
            lose_outside(peer);
            return;
        }
        sent += (size_t)n;
    }
    buffer_consume(out, sent);
    if (sent)
        peer->moved = rpc_loop_now(peer->gate->loop);
    if (sent || !out->length)
        peer->drained = rpc_loop_now(peer->gate->loop);
}

/* ---- states ---- */

static void start_relay(struct peer *peer, int inside_fd)
{
    peer->inside.fd = inside_fd;
    peer->inside_ended = peer->inside_shut = false;
    peer->state = PEER_RELAY;
    peer->heard = peer->moved = peer->drained = rpc_loop_now(peer->gate->loop);
    leave_handshake(peer);
}

/* Behind the handshake of a connection without HTTP. */
static void connect_inside(struct peer *peer)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    int fd = inside_open_peer(peer, NULL, &err);
    if (fd < 0) {
        if (gate_may_log(peer->gate, peer->source))
            log_failure(LOG_WARNING, &err, "%s: no connection to the daemon", peer->address);
        begin_farewell(peer);
        return;
    }
    start_relay(peer, fd);
}

static void connect_docker(struct peer *peer)
{
    int fd = docker_open(peer);

    if (fd < 0) {
        peer->state = PEER_CLOSED;
        return;
    }
    peer->heard_first = true;
    start_relay(peer, fd);
}

static void connect_http(struct peer *peer)
{
    int fd = http_open(peer->gate->http, peer);

    if (fd < 0) {
        peer->state = PEER_CLOSED;
        return;
    }
    peer->inside.fd = fd;
    peer->state = PEER_HTTP;
}

static void continue_handshake(struct peer *peer)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = stream_handshake(&peer->stream, &err);
    if (r < 0) {
        if (gate_may_log(peer->gate, peer->source))
            log_info("%s at %s: %s", peer->address, peer->listener->url, error_message(&err));
        peer->state = PEER_CLOSED;
    } else if (r && door_transport_is_docker(peer->listener->address.transport)) {
        connect_docker(peer);
    } else if (r && door_transport_is_http(peer->listener->address.transport)) {
        connect_http(peer);
    } else if (r) {
        connect_inside(peer);
    }
}

/* What the HTTP server has said to the end, which lies in its socket pair by now. */
static void read_answer(struct peer *peer)
{
    char data[READ_SIZE] _uninitialized_;
    ssize_t n;

    while ((n = recv(peer->inside.fd, data, sizeof(data), MSG_DONTWAIT)) > 0)
        buffer_append(&peer->flow.out, data, (size_t)n);
    peer->drained = rpc_loop_now(peer->gate->loop);
}

void peer_upgrade(struct peer *peer, const void *early, size_t early_length)
{
    read_answer(peer);
    struct buffer rest = peer->flow.in;
    peer->flow.in = (struct buffer)BUFFER_INIT;
    close_inside(peer);
    peer->websocket = websocket_create(&peer->flow, RPC_MESSAGE_MAX);
    start_relay(peer, steal_fd(&peer->upgrade_fd));
    if (early_length)
        take_input(peer, early, early_length);
    if (rest.length)
        take_input(peer, rest.data, rest.length);
    buffer_finish(&rest);
    rpc_loop_queue_later(peer->gate->loop, &peer->update);
}

/* The daemon, or the HTTP server, has said all it will. */
static void check_inside_ended(struct peer *peer)
{
    if (!peer->inside_ended || peer->inside.fd < 0)
        return;
    say_farewell(peer, WEBSOCKET_GOING_AWAY, "the daemon has ended the connection");
}

static void check_farewell(struct peer *peer)
{
    if (peer->state != PEER_FAREWELL)
        return;
    if (peer->inside.fd >= 0 && !peer->flow.in_ready)
        close_inside(peer);
    if (peer->flow.out.length || peer->stream.unsent)
        return;
    if (!peer->outside_shut) {
        peer->bye_waits = stream_shutdown(&peer->stream) == -EAGAIN;
        peer->outside_shut = !peer->bye_waits;
    }
    if (peer->outside_ended && !peer->bye_waits && peer->inside.fd < 0)
        peer->state = PEER_CLOSED;
}

/* A buffer that was once full is as large ever after. */
static void give_back(struct buffer *buffer)
{
    if (!buffer->length && buffer->capacity > DOOR_PAUSE)
        buffer_finish(buffer);
}

static void settle_memory(struct peer *peer)
{
    give_back(&peer->flow.in);
    give_back(&peer->flow.out);
    give_back(&peer->from_inside);
    share_memory(peer);
}

void peer_overloaded(struct peer *peer)
{
    say_farewell(peer, WEBSOCKET_TRY_LATER, "the door is overloaded");
    rpc_loop_queue_later(peer->gate->loop, &peer->update);
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* So long after the state began, or, while what waits is taken, after something last was; though
 * not for ever. */
static uint64_t end_of_state(const struct peer *peer, uint64_t seconds)
{
    uint64_t from = peer->since;

    if (door_transport_is_docker(peer->listener->address.transport) && peer->drained > from)
        return peer->drained + seconds * NS_PER_SECOND;

    if (peer->flow.out.length && peer->drained > from)
        from = earlier(peer->drained, peer->since + DOOR_DRAIN_SECONDS * NS_PER_SECOND);
    return from + seconds * NS_PER_SECOND;
}

static uint64_t end_of_message(const struct peer *peer)
{
    if (!peer->part_since || !peer->reads)
        return UINT64_MAX;
    return earlier(peer->part_since + DOOR_MESSAGE_SECONDS * NS_PER_SECOND,
                   peer->part_grew + peer->gate->config->stall_seconds * NS_PER_SECOND);
}

/* A client of the Docker Engine API may leave unread what it likes for as long as it likes: whoever
 * looks at a log a page at a time does. */
static bool may_stall(const struct peer *peer)
{
    return peer->flow.out.length && door_transport_is_docker(peer->listener->address.transport);
}

/* When something is to be done if nothing happens until then. */
static uint64_t next_deadline(const struct peer *peer)
{
    const struct door_config *config = peer->gate->config;

    if (peer->state == PEER_HANDSHAKE || peer->state == PEER_HTTP)
        return end_of_state(peer, config->handshake_seconds);
    if (peer->state == PEER_FAREWELL && may_stall(peer))
        return UINT64_MAX;
    if (peer->state == PEER_FAREWELL)
        return end_of_state(peer, DOOR_CLOSE_SECONDS);
    uint64_t due = end_of_message(peer);
    if (peer->flow.out.length && !may_stall(peer))
        due = earlier(due, peer->drained + config->stall_seconds * NS_PER_SECOND);
    if (peer->websocket && peer->reads)
        due = earlier(due, (peer->pinged ? peer->pinged : peer->heard) +
                               config->ping_seconds * NS_PER_SECOND);
    if (config->idle_seconds)
        due = earlier(due, peer->moved + config->idle_seconds * NS_PER_SECOND);
    return due;
}

static void give_up(struct peer *peer, const char *why)
{
    if (gate_may_log(peer->gate, peer->source))
        log_info("%s at %s: %s", peer->address, peer->listener->url, why);
    say_farewell(peer, WEBSOCKET_POLICY, why);
}

static void do_what_is_due(struct peer *peer, uint64_t now)
{
    const struct door_config *config = peer->gate->config;
    uint64_t ping = config->ping_seconds * NS_PER_SECOND;

    if (peer->state != PEER_RELAY)
        peer->state = PEER_CLOSED;
    else if (peer->flow.out.length && !may_stall(peer) &&
             now >= peer->drained + config->stall_seconds * NS_PER_SECOND)
        give_up(peer, "nothing was read for too long");
    else if (config->idle_seconds && now >= peer->moved + config->idle_seconds * NS_PER_SECOND)
        give_up(peer, "nothing was said for too long");
    else if (now >= end_of_message(peer))
        give_up(peer, "a message took too long");
    else if (!peer->websocket || !peer->reads)
        return;
    else if (peer->pinged && now >= peer->pinged + ping)
        give_up(peer, "no answer to a ping");
    else if (!peer->pinged && now >= peer->heard + ping) {
        websocket_ping(peer->websocket);
        peer->pinged = now;
    }
}

static void on_time(struct rpc_timer *timer)
{
    struct peer *peer = (struct peer *)((char *)timer - offsetof(struct peer, timer));
    uint64_t now = rpc_loop_now(peer->gate->loop);

    if (now >= next_deadline(peer))
        do_what_is_due(peer, now);
    peer_update(peer);
}

static void set_timer(struct peer *peer)
{
    uint64_t due = next_deadline(peer);

    /* A timer that comes too early looks again. */
    if (due != UINT64_MAX && (!peer->timer.place || peer->timer.due > due))
        rpc_loop_set_timer(peer->gate->loop, &peer->timer, due);
}

/* ---- events ---- */

/* What was not read cannot count for silence. */
static void note_reading(struct peer *peer)
{
    bool reads = may_read_outside(peer);

    if (reads && !peer->reads) {
        peer->heard = rpc_loop_now(peer->gate->loop);
        peer->pinged = 0;
        if (peer->part_since)
            peer->part_since = peer->part_grew = peer->heard;
    }
    peer->reads = reads;
}

static void set_watches(struct peer *peer)
{
    /* A client that is gone for good is told of in any case, if the descriptor stays watched. */
    uint32_t outside = EPOLLHUP, inside = 0;

    if (peer->state == PEER_HANDSHAKE)
        outside = stream_wants_write(&peer->stream) ? EPOLLOUT : EPOLLIN;
    else if (may_read_outside(peer))
        outside |= EPOLLIN;
    if (peer->flow.out.length || peer->bye_waits)
        outside |= EPOLLOUT;
    if (peer->outside_ended && peer->outside_shut)
        outside = 0;
    if (may_read_inside(peer))
        inside = EPOLLIN;
    if (peer->inside.fd >= 0 && peer->flow.in_ready)
        inside |= EPOLLOUT;
    if (rpc_loop_watch(peer->gate->loop, &peer->outside, outside) < 0 ||
        (peer->inside.fd >= 0 && rpc_loop_watch(peer->gate->loop, &peer->inside, inside) < 0))
        peer->state = PEER_CLOSED;
}

/* After whatever has happened. May free it. */
static void peer_update(struct peer *peer)
{
    if (peer->state != PEER_CLOSED)
        flush_inside(peer);
    if (peer->state != PEER_CLOSED)
        flush_outside(peer);
    if (peer->state != PEER_CLOSED) {
        check_inside_ended(peer);
        settle_memory(peer);
        flush_outside(peer);
    }
    if (peer->state != PEER_CLOSED)
        check_farewell(peer);
    if (peer->state != PEER_CLOSED)
        set_watches(peer);
    if (peer->state == PEER_CLOSED) {
        peer_free(peer);
        return;
    }
    note_reading(peer);
    set_timer(peer);
    /* Room was made for what the descriptor does not tell of. */
    if (may_read_outside(peer) && stream_has_more(&peer->stream))
        rpc_loop_queue_later(peer->gate->loop, &peer->update);
}

static void on_update(struct rpc_task *task)
{
    struct peer *peer = (struct peer *)((char *)task - offsetof(struct peer, update));

    read_outside(peer);
    peer_update(peer);
}

static void on_outside(struct rpc_watch *watch, uint32_t events)
{
    struct peer *peer = (struct peer *)((char *)watch - offsetof(struct peer, outside));

    if (peer->state == PEER_HANDSHAKE)
        continue_handshake(peer);
    if (events & EPOLLOUT)
        flush_outside(peer);
    /* A connection that is gone for good and that nobody reads from: nothing else would tell. */
    if ((events & (EPOLLERR | EPOLLHUP)) && !may_read_outside(peer) && peer->state != PEER_CLOSED)
        lose_outside(peer);
    if (peer->state != PEER_CLOSED)
        read_outside(peer);
    peer_update(peer);
}

static void on_inside(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct peer *peer = (struct peer *)((char *)watch - offsetof(struct peer, inside));

    read_inside(peer);
    peer_update(peer);
}

/* ---- begin and end ---- */

static void set_options(int fd)
{
    const int on = 1, idle = 60, interval = 15, count = 4;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void link_peer(struct peer *peer)
{
    struct gate *gate = peer->gate;

    peer->number = ++gate->last_number;
    peer->next = gate->peers;
    if (peer->next)
        peer->next->previous = peer;
    gate->peers = peer;
    gate->peers_count++;
}

void peer_create(struct gate *gate, const struct listener *listener, int fd, struct source *source,
                 const struct sockaddr_storage *address)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    bool tls = door_transport_is_tls(listener->address.transport);
    struct sockaddr_storage local = {0};
    socklen_t length = sizeof(local);
    struct peer *peer = xnew(struct peer);

    *peer = (struct peer){.gate = gate,
                          .listener = listener,
                          .source = source,
                          .in_handshake = true,
                          .state = PEER_HANDSHAKE,
                          .outside = {.fd = fd, .callback = on_outside},
                          .inside = {.fd = -1, .callback = on_inside},
                          .upgrade_fd = -1,
                          .timer = {.callback = on_time},
                          .update = {.callback = on_update},
                          .since = rpc_loop_now(gate->loop)};
    door_address_format(address, peer->address);
    getsockname(fd, (struct sockaddr *)&local, &length);
    door_address_format(&local, peer->local);
    link_peer(peer);
    set_options(fd);
    bool http = door_transport_is_http(listener->address.transport) ||
                door_transport_is_docker(listener->address.transport);
    if (stream_open(&peer->stream, fd, tls ? gate->tls : NULL, http, &err) < 0) {
        log_failure(LOG_WARNING, &err, "%s at %s", peer->address, listener->url);
        peer->state = PEER_CLOSED;
    } else {
        continue_handshake(peer);
    }
    peer_update(peer);
}

struct peer *peer_find(struct gate *gate, uint64_t number)
{
    struct peer *peer = gate->peers;

    while (peer && peer->number != number)
        peer = peer->next;
    return peer;
}

/* Whether to prefer the second; peers are listed from the youngest on. */
static bool makes_more_room(const struct peer *best, const struct peer *peer)
{
    return !best || peer->source->handshakes >= best->source->handshakes;
}

bool peers_drop_handshake(struct gate *gate)
{
    struct peer *best = NULL;

    for (struct peer *peer = gate->peers; peer; peer = peer->next) {
        if (peer->in_handshake && makes_more_room(best, peer))
            best = peer;
    }
    if (!best)
        return false;
    if (gate_may_log(gate, best->source))
        log_info("%s at %s: gives way to others before its handshake is done", best->address,
                 best->listener->url);
    peer_free(best);
    return true;
}

void peers_check(struct gate *gate, struct tls *trust)
{
    struct peer *next;

    for (struct peer *peer = gate->peers; peer; peer = next) {
        next = peer->next;
        bool trusted = !trust || !peer->stream.session || tls_trusts(trust, peer->stream.session);
        if (peer->state != PEER_RELAY && peer->state != PEER_FAREWELL) {
            peer_free(peer);
        } else if (!trusted && peer->state == PEER_RELAY) {
            give_up(peer, "the certificate is not trusted any more");
            rpc_loop_queue_later(gate->loop, &peer->update);
        }
    }
}

void peers_end(struct gate *gate)
{
    while (gate->peers) {
        struct peer *peer = gate->peers;
        flush_inside(peer);
        if (peer->state == PEER_RELAY)
            say_farewell(peer, WEBSOCKET_GOING_AWAY, "the door closes");
        flush_outside(peer);
        if (peer->state == PEER_FAREWELL && !peer->outside_shut)
            stream_shutdown(&peer->stream);
        peer_free(peer);
    }
}
