/*
 * server.c accepts, connection.c moves bytes and descriptors, request.c dispatches and answers.
 *
 * A connection that has failed is marked closed and taken off the server at once, but its memory
 * stays as long as somebody up the stack holds it.
 */
#ifndef RPC_SERVER_INTERNAL_H
#define RPC_SERVER_INTERNAL_H

#include <stdbool.h>
#include <sys/socket.h>

#include <base/buffer.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/json.h>

#include "message.h"

enum {
    OUTPUT_PAUSE = 256 * 1024, /* bytes owed; above it no further requests are read */
    ARRIVED_FDS_MAX = 4 * RPC_FDS_MAX,
};

struct connection;

struct method_slot { /* of a hash table by name, open addressing */
    uint32_t hash;
    const struct rpc_method *method;
};

struct rpc_server {
    struct rpc_loop *loop;
    struct method_slot *methods; /* owned */
    size_t methods_mask;
    void *context;
    struct rpc_watch listener;
    struct rpc_timer retry; /* of accepting, when descriptors have run out */
    struct connection *connections;
    size_t connections_count;
    size_t in_flight;
    size_t references; /* the owner, connections, unanswered requests */
    bool destroyed;
};

/* Messages on their way out. Descriptors go with the first byte of a message, so that one with
 * descriptors begins a chunk. */
struct output {
    struct output *next;
    struct buffer data;
    size_t sent;
    int fds[RPC_FDS_MAX]; /* owned */
    size_t fds_count;
};

struct connection {
    struct connection *next;
    struct rpc_server *server;
    struct rpc_watch watch;
    struct rpc_task flush;
    size_t references; /* being open, and whoever up the stack holds it */
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
    struct output *spare; /* the last chunk that was sent, for the next one; or NULL */
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
    void *params;
    int *fds; /* owned; -1: taken; NULL: none came */
    size_t fds_count;
    struct ucred peer;
    rpc_disconnect on_disconnect;
    void *disconnect_data;
    char id[]; /* JSON text; "": a notification, not answered */
};

void server_unref(struct rpc_server *server);
void server_connection_gone(struct rpc_server *server, struct connection *connection);
/* NULL: there is none. */
const struct rpc_method *server_find_method(const struct rpc_server *server, const char *name,
                                            size_t length);

/* Takes fd over. */
void connection_open(struct rpc_server *server, int fd);
void connection_close(struct connection *connection);
/* Around whatever may close it and goes on using it. */
void connection_hold(struct connection *connection);
void connection_release(struct connection *connection);

/* A message is appended to what connection_begin() returns, and ended with connection_end(). It is
 * sent when the loop has nothing else to do, or at once if that does not run. fds are taken over.
 * connection_end() may close the connection. */
struct buffer *connection_begin(struct connection *connection, const int *fds, size_t fds_count);
void connection_end(struct connection *connection);
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
