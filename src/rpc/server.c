#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>

#include "server_internal.h"

enum { ACCEPT_RETRY_MS = 100, ACCEPT_AT_ONCE = 16 };

static void listen_again(struct rpc_server *server);

void server_unref(struct rpc_server *server)
{
    if (--server->references == 0)
        free(server);
}

static void on_retry(uv_timer_t *timer)
{
    listen_again(timer->data);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct rpc_server *server = poll->data;

    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        if (server->connections_count >= RPC_CONNECTIONS_MAX) {
            uv_poll_stop(&server->listener); /* until one goes */
            return;
        }
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            connection_open(server, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            uv_poll_stop(&server->listener);
            uv_timer_start(&server->retry, on_retry, ACCEPT_RETRY_MS, 0);
        }
        return;
    }
}

static void listen_again(struct rpc_server *server)
{
    if (!server->destroyed)
        uv_poll_start(&server->listener, UV_READABLE, on_connection);
}

int rpc_server_create(uv_loop_t *loop, int listen_fd, const struct rpc_method *methods,
                      size_t methods_count, void *context, struct rpc_server **ret,
                      struct error *err)
{
    struct rpc_server *server = xnew(struct rpc_server);

    *server = (struct rpc_server){.loop = loop,
                                  .methods = methods,
                                  .methods_count = methods_count,
                                  .context = context,
                                  .listen_fd = listen_fd,
                                  .references = 3};
    int r = uv_poll_init(loop, &server->listener, listen_fd); /* makes it non-blocking */
    if (r < 0) {
        close_fd(listen_fd);
        free(server);
        return error_set(err, r, "watch the management socket: %s", uv_strerror(r));
    }
    uv_timer_init(loop, &server->retry);
    server->listener.data = server;
    server->retry.data = server;
    listen_again(server);
    *ret = server;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    server_unref(handle->data);
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (!server)
        return;
    server->destroyed = true;
    while (server->connections)
        connection_close(server->connections);
    uv_close((uv_handle_t *)&server->listener, on_closed);
    uv_close((uv_handle_t *)&server->retry, on_closed);
    close_fd(server->listen_fd);
    server_unref(server);
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

size_t rpc_server_connections(const struct rpc_server *server)
{
    return server->connections_count;
}

size_t rpc_server_in_flight(const struct rpc_server *server)
{
    return server->in_flight;
}
