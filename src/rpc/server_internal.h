/*
 * server.c accepts, connection.c moves bytes and descriptors, request.c dispatches and answers.
 *
 * A connection that has failed is marked closed and taken off the server at once, but its memory
 * stays until libuv has let go of its handle, so that whoever is up the stack may still look.
 */
#ifndef RPC_SERVER_INTERNAL_H
#define RPC_SERVER_INTERNAL_H

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

#include <base/buffer.h>
#include <rpc/server.h>
#include <schema/json.h>

#include "message.h"

enum {
    OUTPUT_PAUSE = 256 * 1024, /* bytes owed; above it no further requests are read */
    ARRIVED_FDS_MAX = 4 * RPC_FDS_MAX,
};

struct connection;

struct rpc_server {
    uv_loop_t *loop;
    const struct rpc_method *methods;
    size_t methods_count;
    void *context;
    int listen_fd;
    uv_poll_t listener;
    uv_timer_t retry; /* of accepting, when descriptors have run out */
    struct connection *connections;
    size_t connections_count;
    size_t in_flight;
    size_t references; /* the owner, libuv's handles, unanswered requests */
    bool destroyed;
};

/* One message on its way out. Descriptors go with its first byte. */
struct output {
    struct output *next;
    char *data; /* owned */
    size_t length;
    size_t sent;
    int fds[RPC_FDS_MAX]; /* owned */
    size_t fds_count;
};

struct connection {
    struct connection *next;
    struct rpc_server *server;
    uv_poll_t poll;
    int fd;
    int events; /* asked of libuv */
    bool closed;
    bool busy;        /* lines are being taken: connection_update() follows */
    bool input_ended; /* the client has shut its half, or is not to be read any more */
    struct ucred peer;
    struct buffer in;
    size_t searched;          /* bytes of in without a line end */
    int fds[ARRIVED_FDS_MAX]; /* arrived; the messages in `in` count how many are theirs */
    size_t fds_count;
    struct rpc_request *requests; /* unanswered */
    size_t in_flight;
    struct output *output_first, *output_last;
    size_t output_bytes;
};

/* The answers to a batch, until the last is there. */
struct batch {
    struct connection *connection; /* NULL: gone */
    size_t outstanding;
    struct buffer text;
    int fds[RPC_FDS_MAX]; /* owned */
    size_t fds_count;
};

struct rpc_request {
    struct rpc_request *next, *previous; /* in the connection's list */
    struct connection *connection;       /* NULL: gone */
    struct rpc_server *server;
    struct batch *batch; /* NULL: alone */
    const struct rpc_method *method;
    char id[RPC_ID_MAX]; /* "": a notification, not answered */
    void *params;
    int fds[RPC_FDS_MAX]; /* owned; -1: taken */
    size_t fds_count;
    struct ucred peer;
    rpc_disconnect on_disconnect;
    void *disconnect_data;
};

void server_unref(struct rpc_server *server);
void server_connection_gone(struct rpc_server *server, struct connection *connection);

/* Takes fd over. */
void connection_open(struct rpc_server *server, int fd);
void connection_close(struct connection *connection);

/* Queues and begins to send; fds are taken over. May close the connection. */
void connection_send(struct connection *connection, struct buffer *message, const int *fds,
                     size_t fds_count);
/* Reads on, or not, as its state asks. */
void connection_update(struct connection *connection);

/* Handles one line. May close the connection. */
void requests_take_line(struct connection *connection, const char *text, size_t length);
/* The client has gone: tells those who wanted to know. */
void requests_orphan(struct connection *connection);

static inline void close_fds(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close_fd(fds[i]);
}

#endif
