/*
 * include/cloche/rpc.h over the server: loops and connections are the inner ones by another name;
 * servers and requests have a struct of their own around the inner one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <cloche/rpc.h>
#include <rpc/loop.h>

#include "library.h"

/* ---- the loop ---- */

static struct rpc_loop *inner_loop(struct cloche_rpc_loop *loop)
{
    return (struct rpc_loop *)loop;
}

int cloche_rpc_loop_create(struct cloche_rpc_loop **ret)
{
    struct rpc_loop *loop;

    int r = rpc_loop_create(&loop, NULL);
    if (r == 0)
        *ret = (struct cloche_rpc_loop *)loop;
    return r;
}

void cloche_rpc_loop_destroy(struct cloche_rpc_loop *loop)
{
    rpc_loop_destroy(inner_loop(loop));
}

void cloche_rpc_loop_run_once(struct cloche_rpc_loop *loop, int timeout_ms)
{
    rpc_loop_run_once(inner_loop(loop), timeout_ms);
}

int cloche_rpc_loop_fd(struct cloche_rpc_loop *loop)
{
    return rpc_loop_fd(inner_loop(loop));
}

void cloche_rpc_loop_dispatch(struct cloche_rpc_loop *loop)
{
    rpc_loop_dispatch(inner_loop(loop));
}

void cloche_rpc_loop_wake(struct cloche_rpc_loop *loop)
{
    rpc_loop_wake(inner_loop(loop));
}

/* ---- structures that callers made ---- */

enum { SIZE_MAX_OF_ANY = 4096 };

/* What is there of it, and zeros. */
static int take_struct(void *ret, size_t known, const void *given)
{
    size_t size = 0;

    if (!given)
        return 0;
    memcpy(&size, given, sizeof(size));
    if (size < sizeof(size) || size > SIZE_MAX_OF_ANY)
        return -EINVAL;
    for (size_t i = known; i < size; i++) {
        if (((const char *)given)[i])
            return -E2BIG;
    }
    memcpy(ret, given, size < known ? size : known);
    return 0;
}

/* ---- the server ---- */

static int authorise(struct rpc_connection *connection, const struct json_method *method,
                     void *context, struct error *err)
{
    struct cloche_rpc_server *server = context;
    int r = 0;

    server->references++; /* it may be destroyed in there, and the method is its */
    if (server->settings.authorise &&
        !server->settings.authorise((struct cloche_rpc_connection *)connection, method->name,
                                    server->settings.context))
        r = error_set(err, -EACCES, "%s is not for you", method->name);
    library_server_unref(server);
    return r;
}

static void on_opened(struct rpc_connection *connection, void *context)
{
    const struct cloche_rpc_server *server = context;

    if (server->settings.opened)
        server->settings.opened((struct cloche_rpc_connection *)connection,
                                server->settings.context);
}

static void on_closed(struct rpc_connection *connection, void *context)
{
    const struct cloche_rpc_server *server = context;

    if (server->settings.closed)
        server->settings.closed((struct cloche_rpc_connection *)connection,
                                server->settings.context);
}

int cloche_rpc_server_create(struct cloche_rpc_loop *loop,
                             const struct cloche_rpc_settings *settings,
                             struct cloche_rpc_server **ret)
{
    struct cloche_rpc_server *server = xnew(struct cloche_rpc_server);
    const struct cloche_rpc_settings *taken = &server->settings;

    int r = take_struct(&server->settings, sizeof(server->settings), settings);
    struct rpc_server_options options = {
        .limits = {.message = taken->message_max,
                   .depth = taken->depth_max,
                   .batch = taken->batch_max,
                   .in_flight = taken->in_flight_max,
                   .connections = taken->connections_max,
                   .connections_per_peer = taken->connections_per_peer_max,
                   .output = taken->output_max},
        .context = server,
        .document = taken->document,
        .authorise = authorise,
        .opened = on_opened,
        .closed = on_closed};
    if (r == 0)
        r = rpc_server_create(inner_loop(loop), &options, &server->server, NULL);
    if (r < 0) {
        free(server);
        return r;
    }
    server->references = 1;
    *ret = server;
    return 0;
}

void library_server_unref(struct cloche_rpc_server *server)
{
    if (--server->references)
        return;
    while (server->methods) {
        struct library_method *method = server->methods;
        server->methods = method->next;
        free(method);
    }
    library_free_topics(server);
    free(server);
}

void cloche_rpc_server_destroy(struct cloche_rpc_server *server)
{
    if (!server)
        return;
    rpc_server_destroy(server->server);
    server->server = NULL;
    library_end_topics(server);
    library_server_unref(server);
}

/* Takes added over. */
static int add_method(struct cloche_rpc_server *server, struct library_method *added,
                      const struct rpc_method *inner)
{
    int r = rpc_server_add_methods(server->server, inner, 1, NULL);
    if (r < 0) {
        free(added);
        return r;
    }
    added->next = server->methods;
    server->methods = added;
    return 0;
}

int cloche_rpc_server_add(struct cloche_rpc_server *server, const struct cloche_rpc_method *method)
{
    return library_add_of_topic(server, method, NULL);
}

int library_add_of_topic(struct cloche_rpc_server *server, const struct cloche_rpc_method *method,
                         struct cloche_rpc_topic *topic)
{
    struct library_method *added = xnew(struct library_method);

    int r = take_struct(&added->method, sizeof(added->method), method);
    if (r == 0 &&
        (!added->method.name || !added->method.handler || added->method.fds > RPC_FDS_MAX))
        r = -EINVAL;
    if (r < 0) {
        free(added);
        return r;
    }
    added->topic = topic;
    added->type =
        (struct json_method){.name = added->method.name, .param_fds = (uint8_t)added->method.fds};
    const struct rpc_method inner = {
        .type = &added->type, .handler = library_handle, .untyped = true};
    return add_method(server, added, &inner);
}

int library_add_typed(struct cloche_rpc_server *server, const struct cloche_schema_method *typed,
                      const void *handlers)
{
    struct library_method *added = xnew(struct library_method);

    added->type = *(const struct json_method *)typed;
    added->typed = typed;
    added->handlers = handlers;
    const struct rpc_method inner = {.type = &added->type, .handler = library_handle_typed};
    return add_method(server, added, &inner);
}

/* A socket that a dead server has left. */
static void remove_left_behind(const char *path)
{
    struct stat status;

    if (lstat(path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return;
    int fd = socket_connect_unix(path, SOCK_STREAM | SOCK_CLOEXEC, NULL);
    if (fd == -ECONNREFUSED)
        unlink(path);
    close_fd(fd);
}

int cloche_rpc_server_listen(struct cloche_rpc_server *server, const char *path, mode_t mode)
{
    remove_left_behind(path);
    int fd = socket_listen_unix(path, SOCK_STREAM | SOCK_CLOEXEC, mode, NULL);
    return fd < 0 ? fd : cloche_rpc_server_listen_fd(server, fd);
}

int cloche_rpc_server_listen_fd(struct cloche_rpc_server *server, int fd)
{
    return rpc_server_listen(server->server, fd, NULL, NULL);
}

int cloche_rpc_server_adopt(struct cloche_rpc_server *server, int fd)
{
    return rpc_server_adopt(server->server, fd, NULL, NULL);
}

size_t cloche_rpc_server_connections(const struct cloche_rpc_server *server)
{
    return rpc_server_connections(server->server);
}

size_t cloche_rpc_server_in_flight(const struct cloche_rpc_server *server)
{
    return rpc_server_in_flight(server->server);
}

/* ---- connections ---- */

static const struct rpc_peer *peer_of(const struct cloche_rpc_connection *connection)
{
    return rpc_connection_peer((const struct rpc_connection *)connection);
}

uid_t cloche_rpc_connection_uid(const struct cloche_rpc_connection *connection)
{
    return peer_of(connection)->uid;
}

gid_t cloche_rpc_connection_gid(const struct cloche_rpc_connection *connection)
{
    return peer_of(connection)->gid;
}

pid_t cloche_rpc_connection_pid(const struct cloche_rpc_connection *connection)
{
    return peer_of(connection)->pid;
}

void *cloche_rpc_connection_data(const struct cloche_rpc_connection *connection)
{
    return rpc_connection_data((const struct rpc_connection *)connection);
}

void cloche_rpc_connection_set_data(struct cloche_rpc_connection *connection, void *data)
{
    rpc_connection_set_data((struct rpc_connection *)connection, data);
}

void cloche_rpc_connection_close(struct cloche_rpc_connection *connection)
{
    rpc_connection_close((struct rpc_connection *)connection);
}

int cloche_rpc_connection_notify(struct cloche_rpc_connection *connection, const char *method,
                                 const char *params)
{
    _cleanup_free_ char *line = params ? library_one_line(params) : NULL;

    if (params && (!line || (line[0] != '{' && line[0] != '[')))
        return -EINVAL;
    return rpc_connection_notify_json((struct rpc_connection *)connection, method, line);
}
