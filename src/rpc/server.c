#include <errno.h>
#include <fcntl.h>
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

static struct peer_count **find_peer(struct rpc_server *server, uid_t uid, uint64_t account)
{
    struct peer_count **at = &server->peers;

    while (*at && ((*at)->uid != uid || (*at)->account != account))
        at = &(*at)->next;
    return at;
}

struct peer_count *server_admit(struct rpc_server *server, uid_t uid, uint64_t account)
{
    const struct rpc_limits *limits = &server->options.limits;
    struct peer_count **at = find_peer(server, uid, account);

    if (server->connections_count >= limits->connections ||
        (*at && (*at)->connections >= limits->connections_per_peer))
        return NULL;
    if (!*at) {
        *at = xnew(struct peer_count);
        (*at)->uid = uid;
        (*at)->account = account;
    }
    (*at)->connections++;
    server->connections_count++;
    return *at;
}

void server_connection_gone(struct rpc_server *server, struct rpc_connection *connection)
{
    struct peer_count *peer = connection->count;
    struct peer_count **at = find_peer(server, peer->uid, peer->account);

    peer->bytes -= connection->charged;
    connection->charged = 0;

    *connection->at = connection->next;
    if (connection->next)
        connection->next->at = connection->at;
    server->connections_count--;
    if (--peer->connections)
        return;
    *at = peer->next;
    free(peer);
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

    for (int i = 0; i < ACCEPT_AT_ONCE && !server->destroyed; i++) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            connection_open(server, fd, listener->tag, 0);
            continue;
        }
        if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
            return;
        if (accept_without_room(server, watch->fd) < 0) {
            pause_listening(server);
            return;
        }
    }
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
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur / 4 * 3 > RPC_CONNECTIONS_MAX)
        return RPC_CONNECTIONS_MAX;
    return (size_t)files.rlim_cur / 4 * 3;
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

size_t rpc_server_connections(const struct rpc_server *server)
{
    return server->connections_count;
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
