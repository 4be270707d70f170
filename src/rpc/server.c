#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "server_internal.h"

enum { ACCEPT_RETRY_NS = 100 * 1000 * 1000, ACCEPT_AT_ONCE = 16, SLOTS_FIRST = 16 };

/* ---- methods ---- */

/* FNV-1a: the names are ours. */
static uint32_t hash_name(const char *name, size_t length)
{
    uint32_t hash = 2166136261U;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619U;
    return hash;
}

struct method *server_find_method(const struct rpc_server *server, const char *name, size_t length)
{
    uint32_t hash = hash_name(name, length);
    size_t at = hash & server->slots_mask;

    for (; server->slots[at].method; at = (at + 1) & server->slots_mask) {
        const struct method_slot *slot = &server->slots[at];
        const char *known = slot->method->type->name;
        /* A name in CBOR may have a NUL in it. */
        if (slot->hash == hash && strlen(known) == length && memcmp(known, name, length) == 0)
            return slot->method;
    }
    return NULL;
}

static void put_slot(struct rpc_server *server, struct method *method)
{
    uint32_t hash = hash_name(method->type->name, strlen(method->type->name));
    size_t at = hash & server->slots_mask;

    while (server->slots[at].method)
        at = (at + 1) & server->slots_mask;
    server->slots[at] = (struct method_slot){.hash = hash, .method = method};
}

static void grow_slots(struct rpc_server *server)
{
    size_t size = server->slots ? (server->slots_mask + 1) * 2 : SLOTS_FIRST;

    free(server->slots);
    server->slots = xnew_array(struct method_slot, size);
    server->slots_mask = size - 1;
    for (size_t i = 0; i < server->methods_count; i++)
        put_slot(server, server->methods[i]);
}

static int add_method(struct rpc_server *server, const struct json_method *type, struct method as,
                      struct error *err)
{
    if (server_find_method(server, type->name, strlen(type->name)))
        return error_set(err, -EEXIST, "there is a method '%s' already", type->name);
    struct method *method = xnew(struct method);
    *method = as;
    method->type = type;
    server->methods =
        xrealloc(server->methods, server->methods_count + 1, sizeof(*server->methods));
    server->methods[server->methods_count++] = method;
    if (server->methods_count * 2 > server->slots_mask)
        grow_slots(server);
    else
        put_slot(server, method);
    return 0;
}

int rpc_server_add_methods(struct rpc_server *server, const struct rpc_method *methods,
                           size_t count, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = add_method(
            server, methods[i].type,
            (struct method){.handler = methods[i].handler, .untyped = methods[i].untyped}, err);
    return r;
}

int rpc_server_add_handlers(struct rpc_server *server, const struct json_method *methods,
                            size_t count, const void *handlers, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        const char *at = (const char *)handlers + methods[i].handler;
        void (*handler)(void);
        memcpy(&handler, at, sizeof(handler));
        if (handler)
            r = add_method(server, &methods[i], (struct method){.handlers = handlers}, err);
    }
    return r;
}

/* ---- connections ---- */

/* Of all servers of the process: they share its descriptors. */
static atomic_size_t connections_of_all;

static size_t descriptors_of_process(void)
{
    struct rlimit files;

    return getrlimit(RLIMIT_NOFILE, &files) < 0 ? SIZE_MAX : (size_t)files.rlim_cur;
}

static struct peer_count *find_peer(const struct rpc_server *server, uid_t uid, uint64_t account)
{
    struct peer_count *peer = server->peers;

    while (peer && (peer->account != account || (!account && peer->uid != uid)))
        peer = peer->next;
    return peer;
}

static struct peer_count *add_peer(struct rpc_server *server, uid_t uid, uint64_t account)
{
    struct peer_count *peer = xnew(struct peer_count);

    peer->uid = uid;
    peer->account = account;
    peer->next = server->peers;
    peer->at = &server->peers;
    if (peer->next)
        peer->next->at = &peer->next;
    server->peers = peer;
    return peer;
}

void server_count_unref(struct rpc_server *server, struct peer_count *peer)
{
    if (--peer->references)
        return;
    *peer->at = peer->next;
    if (peer->next)
        peer->next->at = peer->at;
    free(peer);
}

bool server_is_full(const struct rpc_server *server)
{
    return (server->connections_count >= server->options.limits.connections &&
            (!server->options.admit || server->guests_count >= RPC_GUESTS_MAX)) ||
           connections_of_all >= server->all_max;
}

/* Whether there is room for one that is no guest. */
static bool has_room(const struct rpc_server *server, const struct peer_count *peer)
{
    const struct rpc_limits *limits = &server->options.limits;

    return server->connections_count < limits->connections &&
           (!peer || peer->connections < limits->connections_per_peer);
}

bool server_admit(struct rpc_connection *connection, uint64_t account)
{
    struct rpc_server *server = connection->server;
    struct peer_count *peer = find_peer(server, connection->peer.uid, account);

    if (connection->guest ? server->guests_count >= RPC_GUESTS_MAX : !has_room(server, peer))
        return false;
    if (!peer)
        peer = add_peer(server, connection->peer.uid, account);
    peer->references++;
    connection->count = peer;
    connections_of_all++;
    if (connection->guest) {
        server->guests_count++;
    } else {
        peer->connections++;
        server->connections_count++;
    }
    return true;
}

bool server_welcome(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;

    if (!has_room(server, connection->count))
        return false;
    connection->guest = false;
    server->guests_count--;
    server->connections_count++;
    connection->count->connections++;
    return true;
}

void server_connection_gone(struct rpc_server *server, struct rpc_connection *connection)
{
    *connection->at = connection->next;
    if (connection->next)
        connection->next->at = connection->at;
    connections_of_all--;
    if (connection->guest) {
        server->guests_count--;
    } else {
        server->connections_count--;
        connection->count->connections--;
    }
}

/* ---- accepting ---- */

static void listen_again(struct rpc_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        rpc_loop_watch(server->loop, &listener->watch, EPOLLIN);
}

static void on_retry(struct rpc_timer *timer)
{
    listen_again((struct rpc_server *)((char *)timer - offsetof(struct rpc_server, retry)));
}

static void pause_listening(struct rpc_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        rpc_loop_watch(server->loop, &listener->watch, 0);
    rpc_loop_set_timer(server->loop, &server->retry,
                       rpc_loop_update_now(server->loop) + ACCEPT_RETRY_NS);
}

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Without a descriptor a client could not even be told to go away: it would wait, and the loop be
 * called for it again and again. -1: there was none to give up, or nobody came. */
static int accept_without_room(struct rpc_server *server, int listen_fd)
{
    if (server->spare_fd < 0)
        return -1;
    close_fd(steal_fd(&server->spare_fd));
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        connection_turn_away(server, fd);
    server->spare_fd = open_spare();
    return fd;
}

static void on_connection(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct listener *listener =
        (struct listener *)((char *)watch - offsetof(struct listener, watch));
    struct rpc_server *server = listener->server;

    server->references++; /* whoever is told of a connection may destroy it */
    for (int i = 0; i < ACCEPT_AT_ONCE && !server->destroyed; i++) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            connection_open(server, fd, listener->tag, 0);
            continue;
        }
        if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
            break;
        if (accept_without_room(server, watch->fd) < 0) {
            pause_listening(server);
            break;
        }
    }
    server_unref(server);
}

int rpc_server_listen(struct rpc_server *server, int listen_fd, const void *tag, struct error *err)
{
    struct listener *listener = xnew(struct listener);

    *listener = (struct listener){.next = server->listeners,
                                  .server = server,
                                  .watch = {.fd = listen_fd, .callback = on_connection},
                                  .tag = tag};
    int r = socket_set_nonblocking(listen_fd);
    if (r == 0)
        r = rpc_loop_watch(server->loop, &listener->watch, EPOLLIN);
    if (r < 0) {
        close_fd(listen_fd);
        free(listener);
        return error_errno(err, -r, "watch the listening socket");
    }
    server->listeners = listener;
    if (server->spare_fd < 0)
        server->spare_fd = open_spare();
    return 0;
}

int rpc_server_adopt_for(struct rpc_server *server, int fd, const void *tag, uint64_t account,
                         struct error *err)
{
    int r = socket_set_nonblocking(fd);

    if (r < 0) {
        close_fd(fd);
        return error_errno(err, -r, "serve a connection");
    }
    connection_open(server, fd, tag, account);
    return 0;
}

int rpc_server_adopt(struct rpc_server *server, int fd, const void *tag, struct error *err)
{
    return rpc_server_adopt_for(server, fd, tag, 0, err);
}

/* ---- the server itself ---- */

void server_unref(struct rpc_server *server)
{
    if (--server->references)
        return;
    for (size_t i = 0; i < server->methods_count; i++)
        free(server->methods[i]);
    free(server->methods);
    free(server->slots);
    while (server->spares) {
        struct output *output = server->spares;
        server->spares = output->next;
        buffer_finish(&output->data);
        free(output);
    }
    buffer_finish(&server->scratch);
    free(server);
}

/* Descriptors are not for connections alone. */
static size_t default_connections(void)
{
    size_t most = descriptors_of_process() / 4 * 3;

    return most < RPC_CONNECTIONS_MAX ? most : RPC_CONNECTIONS_MAX;
}

static size_t or_default(size_t limit, size_t otherwise)
{
    return limit ? limit : otherwise;
}

static int set_limits(struct rpc_server *server, struct error *err)
{
    struct rpc_limits *limits = &server->options.limits;

    if (limits->message > RPC_MESSAGE_MAX || limits->depth > RPC_DEPTH_MAX)
        return error_set(err, -EINVAL, "a message has at most %d bytes and a depth of %d",
                         RPC_MESSAGE_MAX, RPC_DEPTH_MAX);
    if (limits->depth == 1)
        return error_set(err, -EINVAL, "a depth of 1 leaves no room for parameters");
    limits->message = or_default(limits->message, RPC_MESSAGE_MAX);
    limits->depth = or_default(limits->depth, RPC_DEPTH_MAX);
    limits->batch = or_default(limits->batch, RPC_BATCH_MAX);
    limits->in_flight = or_default(limits->in_flight, RPC_IN_FLIGHT_MAX);
    limits->connections = or_default(limits->connections, default_connections());
    limits->connections_per_peer =
        or_default(limits->connections_per_peer, limits->connections - limits->connections / 4);
    limits->output = or_default(limits->output, RPC_OUTPUT_MAX);
    limits->peer_bytes = or_default(limits->peer_bytes, RPC_PEER_BYTES_MAX);
    limits->bytes = or_default(limits->bytes, 4 * limits->peer_bytes);
    server->all_max = descriptors_of_process() / 8 * 7;
    server->pause = limits->output / 4 < RPC_NOTIFY_PAUSE ? limits->output / 4 : RPC_NOTIFY_PAUSE;
    server->bounds = (struct rpc_bounds){.depth = limits->depth, .batch = limits->batch};
    return 0;
}

int rpc_server_create(struct rpc_loop *loop, const struct rpc_server_options *options,
                      struct rpc_server **ret, struct error *err)
{
    struct rpc_server *server = xnew(struct rpc_server);

    *server = (struct rpc_server){.loop = loop,
                                  .retry = {.callback = on_retry},
                                  .spare_fd = -1,
                                  .started = rpc_loop_update_now(loop),
                                  .references = 1};
    if (options)
        server->options = *options;
    grow_slots(server);
    int r = set_limits(server, err);
    if (r == 0)
        r = builtin_add(server, err);
    if (r < 0) {
        server_unref(server);
        return r;
    }
    *ret = server;
    return 0;
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (!server)
        return;
    server->destroyed = true;
    while (server->listeners) {
        struct listener *listener = server->listeners;
        server->listeners = listener->next;
        rpc_loop_watch(server->loop, &listener->watch, 0);
        close_fd(listener->watch.fd);
        free(listener);
    }
    while (server->connections)
        rpc_connection_close(server->connections);
    rpc_loop_clear_timer(server->loop, &server->retry);
    close_fd(steal_fd(&server->spare_fd));
    server_unref(server);
}

void rpc_server_review(struct rpc_server *server)
{
    size_t count = 0, most = server->connections_count + server->guests_count;
    struct rpc_connection **all = xnew_array(struct rpc_connection *, most + 1);

    /* Ending one may end others. */
    for (struct rpc_connection *at = server->connections; at; at = at->next) {
        rpc_connection_hold(at);
        all[count++] = at;
    }
    for (size_t i = 0; i < count; i++) {
        connection_review(all[i]);
        rpc_connection_release(all[i]);
    }
    free(all);
}

size_t rpc_server_connections(const struct rpc_server *server)
{
    return server->connections_count + server->guests_count;
}

size_t rpc_server_in_flight(const struct rpc_server *server)
{
    return server->in_flight;
}

void rpc_server_set_document(struct rpc_server *server, const char *document)
{
    server->options.document = document;
}

struct rpc_loop *rpc_server_loop(const struct rpc_server *server)
{
    return server->loop;
}
