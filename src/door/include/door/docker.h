/*
 * The Docker Engine API (1.22 to 1.44) on connected stream sockets: HTTP in front, our management
 * API behind. One server per process, on rpc's loop; nothing blocks.
 */
#ifndef DOOR_DOCKER_H
#define DOOR_DOCKER_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

struct docker_server;
struct rpc_loop;

enum docker_client_kind {
    DOCKER_CLIENT_LOCAL, /* of a Unix socket */
    DOCKER_CLIENT_PLAIN, /* of TCP: whatever a browser was told to connect to can be this */
    DOCKER_CLIENT_TLS,   /* our certificate was good enough for it */
};

/* Whose connection it is; told with `data`. */
struct docker_client_ops {
    enum docker_client_kind kind;
    /* A new connection to the daemon on behalf of the client, non-blocking; -errno. */
    int (*open_inside)(void *data, struct error *err);
    /* The connection has ended; the last that is heard of it. */
    void (*gone)(void *data);
};

void docker_server_create(struct rpc_loop *loop, struct docker_server **ret);
/* Ends all its connections. NULL is nothing. */
void docker_server_destroy(struct docker_server *server);

/* Serves a connected, non-blocking stream socket, which is taken over. */
void docker_server_accept(struct docker_server *server, int fd, const struct docker_client_ops *ops,
                          void *data);

#endif
