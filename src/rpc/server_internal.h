/*
 * server.c accepts, connection.c moves bytes and descriptors, dispatch.c finds who answers,
 * request.c has what was asked until it is answered, builtin.c the methods that every server has.
 *
 * A connection that has failed is marked closed and taken off the server at once, but its memory
 * stays as long as somebody up the stack, or a request, holds it.
 */
#ifndef RPC_SERVER_INTERNAL_H
#define RPC_SERVER_INTERNAL_H

#include <stdbool.h>
#include <sys/socket.h>

#include <base/buffer.h>
#include <rpc/loop.h>
#include <rpc/metrics.h>
#include <rpc/server.h>
#include <schema/json.h>

#include "codec.h"

enum {
    ARRIVED_FDS_MAX = 4 * RPC_FDS_MAX,
    /* Descriptors count among the process's own: those that wait for the rest of their message, and
     * those in answers that are not read. */
    FDS_WAITING_MAX = 512,     /* of all connections of a server */
    FDS_WAITING_PER_PEER = 96, /* and of a peer's */
    FDS_WAITING_SECONDS = 30,  /* without a message becoming whole */
    FDS_OUT_MAX = 2048,
    FDS_OUT_PER_PEER = 256,
    FDS_OUT_PER_CONNECTION = 64, /* then it is not read */
    SPARE_MAX = 16,
};

/* A method that the server has. */
struct method {
    const struct json_method *type;
    rpc_handler handler;  /* NULL: type->call with handlers */
    const void *handlers; /* struct NAME_handlers */
    bool untyped;
    struct rpc_metrics metrics;
};

struct method_slot { /* of a hash table by name, open addressing */
    uint32_t hash;
    struct method *method;
};

/* Connections of a user, or of an account. */
struct peer_count {
    struct peer_count *next, **at;
    size_t references; /* connections that have memory; a call may outlive its connection's end */
    uid_t uid;
    uint64_t account; /* 0: of the uid */
    size_t connections;
    size_t bytes; /* as its connections were charged */
    size_t fds_waiting, fds_out;
};

struct listener {
    struct listener *next;
    struct rpc_server *server;
    struct rpc_watch watch;
    const void *tag;
};

struct rpc_server {
    struct rpc_loop *loop;
    struct rpc_server_options options; /* with the defaults put in */
    struct rpc_bounds bounds;
    struct method **methods; /* owned; in the order in which they were added */
    size_t methods_count;
    struct method_slot *slots; /* owned */
    size_t slots_mask;
    struct listener *listeners;
    struct rpc_timer retry; /* of accepting, when memory has run out */
    int spare_fd;           /* given up for a moment to turn clients away when descriptors have run
                               out; -1: none */
    struct rpc_connection *connections;
    struct peer_count *peers;
    size_t connections_count; /* without guests */
    size_t guests_count;
    size_t all_max; /* connections of all servers of the process */
    size_t in_flight;
    size_t pause;       /* bytes of output with which a connection is not read, nor notified */
    size_t bytes;       /* of all peers */
    size_t fds_waiting; /* for their message to be whole, or taken */
    size_t fds_out;     /* in answers that are not sent */
    size_t references;  /* the owner, connections */
    bool destroyed;
    /* Shared by connections, so that an idle one has no memory of its own for data. */
    struct buffer scratch; /* what is read; empty between two reads */
    struct output *spares; /* chunks that were sent, for the next ones */
    size_t spares_count;
    uint64_t started;
    uint64_t accepted, refused, overflowed, malformed, unknown, notifications, bytes_in, bytes_out;
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

struct rpc_connection {
    struct rpc_connection *next, **at; /* in the server's list */
    struct rpc_server *server;
    const struct rpc_codec *codec;
    struct rpc_watch watch;
    struct rpc_task flush;
    struct rpc_timer patience; /* with a guest, or with descriptors whose message does not come */
    size_t references;         /* being open, its requests, and whoever up the stack holds it */
    bool closed;
    bool guest;
    bool progressed;  /* a message was taken since patience was set */
    bool busy;        /* frames are being taken: connection_update() follows */
    bool input_ended; /* the client has shut its half, or is not to be read any more */
    bool has_paused;  /* a notification was refused: `drained` follows */
    struct rpc_peer peer;
    struct peer_count *count;
    size_t charged;     /* bytes that count for it */
    size_t held_bytes;  /* of calls that are not answered */
    size_t extra_bytes; /* rpc_connection_charge() */
    char *name;         /* owned; peer.name */
    const void *tag;
    void *data;
    struct rpc_connection_watch *watches;
    struct buffer in; /* what is there of the next frame */
    bool borrowed;    /* in is the server's scratch */
    size_t searched;  /* bytes of it that the codec need not look at again */
    int *fds;         /* owned; arrived: the messages in `in` count how many are theirs */
    size_t fds_count;
    struct rpc_request *requests; /* not released */
    size_t in_flight;
    struct output *output_first, *output_last;
    size_t output_bytes;
    size_t output_longest; /* of the messages in it */
    size_t output_fds;
    size_t batch_bytes; /* answers that wait for others of their batch */
    size_t mark;        /* of the message being written */
};

/* The answers to a batch, until the last is there. */
struct batch {
    struct rpc_connection *connection; /* held */
    size_t outstanding;
    struct buffer text;
    size_t mark;          /* of the answer being written */
    int fds[RPC_FDS_MAX]; /* owned */
    size_t fds_count;
};

struct rpc_request {
    struct rpc_request *next, **at;    /* in the connection's list */
    struct rpc_connection *connection; /* held */
    struct batch *batch;               /* NULL: alone, or answered */
    struct method *method;
    const struct rpc_codec *codec; /* that id is encoded in */
    void *params;
    int *fds; /* owned; -1: taken; NULL: none came */
    size_t fds_count;
    enum rpc_wanted wanted;
    bool progress;
    bool ended; /* counted, and its batch told */
    bool *gone; /* set when it is released while its handler runs */
    int fault;  /* code of its error answer; 0: none */
    struct rpc_timer deadline;
    uint64_t started;
    rpc_on_cancel on_cancel;
    void *cancel_data;
    uint32_t held_bytes;
    uint16_t id_length; /* 0: a notification, not answered */
    char id[];
};

void server_unref(struct rpc_server *server);
/* Whether a further connection can be no more than turned away. */
bool server_is_full(const struct rpc_server *server);
/* Counts one more of the user's, or of the account's when that is not 0; false: it may not be made.
 */
bool server_admit(struct rpc_connection *connection, uint64_t account);
/* A guest becomes like others; false: there are too many. */
bool server_welcome(struct rpc_connection *connection);
void server_connection_gone(struct rpc_server *server, struct rpc_connection *connection);
/* The connection, which is not open any more, counts for nobody. */
void server_count_unref(struct rpc_server *server, struct peer_count *count);
/* NULL: there is none. */
struct method *server_find_method(const struct rpc_server *server, const char *name, size_t length);

/* One connection too many: it is told so, as far as its socket takes it, and closed. */
void connection_turn_away(struct rpc_server *server, int fd);
/* Asks anew whether it is welcome. */
void connection_review(struct rpc_connection *connection);
/* Takes fd over. account 0: it counts for the uid. */
void connection_open(struct rpc_server *server, int fd, const void *tag, uint64_t account);

/* So many descriptors more, or less, that came and wait for their message. */
void connection_count_fds(struct rpc_connection *connection, ptrdiff_t count);

/* A message is appended to what connection_begin() returns, and ended with connection_end(). It is
 * sent when the loop has nothing else to do, or at once if that does not run. fds are taken over.
 * connection_end() may close the connection. */
struct buffer *connection_begin(struct rpc_connection *connection, const int *fds,
                                size_t fds_count);
void connection_end(struct rpc_connection *connection);
/* In place of connection_end(): what was written since connection_begin() is taken back, with the
 * descriptors that came with it. */
void connection_undo(struct rpc_connection *connection, size_t fds_count);
/* What the connection holds counts for its peer. False: for all of the peer's, or of all peers,
 * that is too much, and this one wants more than it had. */
bool connection_charge(struct rpc_connection *connection);
/* Reads on, or not, as its state asks. */
void connection_update(struct rpc_connection *connection);

/* Handles what came in one piece. May close the connection. */
void dispatch_frame(struct rpc_connection *connection, const char *text, size_t length);
/* Answers what was no message; hint may be NULL. */
void dispatch_refuse(struct rpc_connection *connection, int code, const char *message,
                     const char *hint);

/* Where an answer is to be written: among those of its batch (NULL: none), or on its way. fds are
 * taken over. */
struct buffer *answer_begin(struct rpc_connection *connection, struct batch *batch, const int *fds,
                            size_t fds_count);
void answer_end(struct rpc_connection *connection, struct batch *batch);
/* One call of a batch is done; the last sends all answers, in one message. */
void batch_unref(struct batch *batch);

/* The message's params, checked, and descriptors; both taken over. */
struct rpc_request *request_create(struct rpc_connection *connection, struct batch *batch,
                                   struct method *method, const struct rpc_message *message,
                                   void *params, int *fds);
/* The call stays, and with it what became of parameters of so many bytes. */
void request_hold_bytes(struct rpc_request *request, size_t bytes);
/* When its handler has not answered at once. */
void request_set_deadline(struct rpc_request *request);
/* Nobody waits for it any more: answered, if it is to be, and its handler told. */
void request_end_early(struct rpc_request *request, enum rpc_wanted why);
/* The code that rpc_fail_errno() has for it. */
int rpc_code_of_errno(int code);
/* The client has gone: tells those who wanted to know. */
void requests_orphan(struct rpc_connection *connection);

/* The methods of the protocol itself. */
int builtin_add(struct rpc_server *server, struct error *err);

static inline void close_fds(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close_fd(fds[i]);
}

#endif
