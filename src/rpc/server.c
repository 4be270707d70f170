#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "server_internal.h"

enum { ACCEPT_RETRY_NS = 100 * 1000 * 1000, ACCEPT_AT_ONCE = 16 };

/* ---- methods ---- */

/* FNV-1a: the names are ours. */
static uint32_t hash_name(const char *name, size_t length)
{
    uint32_t hash = 2166136261U;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619U;
    return hash;
}

static void index_methods(struct rpc_server *server, const struct rpc_method *methods, size_t count)
{
    size_t size = 8;

    while (size < count * 2)
        size *= 2;
    server->methods = xnew_array(struct method_slot, size);
    server->methods_mask = size - 1;
    for (size_t i = 0; i < count; i++) {
        uint32_t hash = hash_name(methods[i].type->name, strlen(methods[i].type->name));
        size_t at = hash & server->methods_mask;
        while (server->methods[at].method)
            at = (at + 1) & server->methods_mask;
        server->methods[at] = (struct method_slot){.hash = hash, .method = &methods[i]};
    }
}

const struct rpc_method *server_find_method(const struct rpc_server *server, const char *name,
                                            size_t length)
{
    uint32_t hash = hash_name(name, length);
    size_t at = hash & server->methods_mask;

    for (; server->methods[at].method; at = (at + 1) & server->methods_mask) {
        const struct method_slot *slot = &server->methods[at];
        const char *known = slot->method->type->name;
        if (slot->hash == hash && strncmp(known, name, length) == 0 && !known[length])
            return slot->method;
    }
    return NULL;
}

/* ---- accepting ---- */

static void listen_again(struct rpc_server *server)
{
    if (!server->destroyed)
        rpc_loop_watch(server->loop, &server->listener, EPOLLIN);
}

static void on_retry(struct rpc_timer *timer)
{
    listen_again((struct rpc_server *)((char *)timer - offsetof(struct rpc_server, retry)));
}

static void on_connection(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct rpc_server *server =
        (struct rpc_server *)((char *)watch - offsetof(struct rpc_server, listener));

    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        if (server->connections_count >= RPC_CONNECTIONS_MAX) {
            rpc_loop_watch(server->loop, watch, 0); /* until one goes */
            return;
        }
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            connection_open(server, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            rpc_loop_watch(server->loop, watch, 0);
            rpc_loop_set_timer(server->loop, &server->retry,
                               rpc_loop_update_now(server->loop) + ACCEPT_RETRY_NS);
        }
        return;
    }
}

void server_connection_gone(struct rpc_server *server, struct connection *connection)
{
    struct connection **at = &server->connections;

    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
    if (server->connections_count-- == RPC_CONNECTIONS_MAX)
        listen_again(server);
}

/* ---- the server itself ---- */

void server_unref(struct rpc_server *server)
{
    if (--server->references)
        return;
    free(server->methods);
    free(server);
}

int rpc_server_create(struct rpc_loop *loop, int listen_fd, const struct rpc_method *methods,
                      size_t methods_count, void *context, struct rpc_server **ret,
                      struct error *err)
{
    struct rpc_server *server = xnew(struct rpc_server);

    *server = (struct rpc_server){.loop = loop,
                                  .context = context,
                                  .listener = {.fd = listen_fd, .callback = on_connection},
                                  .retry = {.callback = on_retry},
                                  .references = 1};
    int r = socket_set_nonblocking(listen_fd);
    if (r == 0)
        r = rpc_loop_watch(loop, &server->listener, EPOLLIN);
    if (r < 0) {
        close_fd(listen_fd);
        free(server);
        return error_errno(err, -r, "watch the listening socket");
    }
    index_methods(server, methods, methods_count);
    *ret = server;
    return 0;
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (!server)
        return;
    server->destroyed = true;
    while (server->connections)
        connection_close(server->connections);
    rpc_loop_watch(server->loop, &server->listener, 0);
    rpc_loop_clear_timer(server->loop, &server->retry);
    close_fd(server->listener.fd);
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
