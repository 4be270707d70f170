/*
 * The management socket, server side: JSON-RPC 2.0 on Unix SOCK_STREAM sockets, a JSON message a
 * line or, for clients that ask for it (rpc.hello), CBOR behind a length; descriptors beside a
 * message that counts them in its member "fds".
 *
 *     rpc_server_create(loop, &(struct rpc_server_options){.context = shop}, &server, err);
 *     rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), err);
 *     rpc_server_listen(server, fd, NULL, err);
 *
 * Every function here is to be called on the loop's thread; none blocks. Batches, notifications,
 * deadlines and rpc.hello, rpc.cancel, rpc.ping, rpc.discover and rpc.stats (runtime-spec/rpc.json)
 * are handled inside: a handler is called once per call, and answers it once, now or later.
 */
#ifndef RPC_SERVER_H
#define RPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

struct rpc_loop;
struct json_method;
struct json_type;
struct rpc_server;
struct rpc_connection;
struct rpc_request;

enum {
    RPC_MESSAGE_MAX = 1 << 20,      /* bytes of a message; a longer one ends the connection */
    RPC_ANSWER_MAX = 16 << 20,      /* bytes of an answer; a longer one becomes an error */
    RPC_DEPTH_MAX = 64,             /* nesting of a message */
    RPC_IN_FLIGHT_MAX = 64,         /* unanswered requests of a connection; then it is not read */
    RPC_CONNECTIONS_MAX = 16384,    /* and at most 3/4 of RLIMIT_NOFILE; others are refused */
    RPC_OUTPUT_MAX = 8 * (1 << 20), /* bytes a slow reader may owe, and one message more; what
                                       comes then ends the connection */
    RPC_PEER_BYTES_MAX = 64 << 20,  /* that all connections of a user hold; more ends the one that
                                       asks for it */
    RPC_BYTES_MAX = 4 * RPC_PEER_BYTES_MAX, /* and all connections of a server */
    RPC_GUESTS_MAX = 16,                    /* connections of those who are not welcome */
    RPC_GUEST_SECONDS = 5,                  /* that such a one lasts */
    RPC_FDS_MAX = 16,                       /* descriptors beside one message */
    RPC_BATCH_MAX = RPC_IN_FLIGHT_MAX       /* calls in one batch */
};

/* JSON-RPC's own errors and ours (x-errors of runtime-spec/management.json). */
enum rpc_error {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD_NOT_FOUND = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_INTERNAL_ERROR = -32603,
    RPC_NOT_FOUND = -1,
    RPC_CONFLICT = -2,
    RPC_INVALID_ARGUMENT = -3,
    RPC_PERMISSION_DENIED = -4,
    RPC_NOT_SUPPORTED = -5,
    RPC_PROGRAM_NOT_FOUND = -6,
    RPC_PROGRAM_NOT_EXECUTABLE = -7,
    RPC_NO_SUCH_IMAGE = -8,
    RPC_UNAVAILABLE = -9,
    RPC_DEADLINE_EXCEEDED = -10,
    RPC_CANCELLED = -11,
    RPC_TOO_MANY = -12,
};

/* ---- the server ---- */

/* What one peer, or all of them, may ask for. 0: the default, which is the _MAX above. message and
 * depth may not be more than that. */
struct rpc_limits {
    size_t message;              /* bytes */
    size_t depth;                /* levels */
    size_t batch;                /* calls */
    size_t in_flight;            /* of a connection */
    size_t connections;          /* of all peers */
    size_t connections_per_peer; /* of one uid; default: 3/4 of the connections */
    size_t output;               /* bytes queued for a connection, before the longest message */
    size_t peer_bytes;           /* of a uid's connections: partial messages, calls that are not
                                    answered, subscriptions, and output */
    size_t bytes;                /* the same of all connections; default: four times peer_bytes */
};

/* Who is at the other end of a connection. */
struct rpc_peer {
    uid_t uid; /* SO_PEERCRED, when it connected; -1 when that is not known */
    gid_t gid;
    pid_t pid;
    const char *name; /* of its certificate, as a door has said; NULL: none */
};

enum rpc_standing {
    RPC_WELCOME,
    RPC_GUEST,   /* may call, and be told by `authorise` why it may do nothing, for a few seconds;
                    one of RPC_GUESTS_MAX, beside those that the limits count */
    RPC_NOT_NOW, /* it is told to try again later */
};

struct rpc_server_options {
    struct rpc_limits limits;
    /* For handlers and the functions below; has to outlive the server. */
    void *context;
    /* The answer to rpc.discover, JSON text; has to outlive the server. NULL: there is no such
     * method. */
    const char *document;
    /* Whether the peer may call the method, asked for every call but rpc.hello, rpc.ping and
     * rpc.cancel, before its parameters are read. 0, or -errno with the reason in err: the call is
     * refused as rpc_fail_errno() would (-EACCES: permission denied). NULL: all may do all. */
    int (*authorise)(struct rpc_connection *connection, const struct json_method *method,
                     void *context, struct error *err);
    /* Asked of each new connection before anything else, and by rpc_server_review(). May set the
     * connection's data (`closed` follows, also for one that is not let in), and *account, 0 at
     * first: not 0 is what the limits of a peer count by instead of its uid. NULL: all are welcome.
     */
    enum rpc_standing (*admit)(struct rpc_connection *connection, uint64_t *account, void *context);
    /* A connection was made, and has ended. NULL: not told. */
    void (*opened)(struct rpc_connection *connection, void *context);
    void (*closed)(struct rpc_connection *connection, void *context);
};

/* options NULL: all defaults. -EINVAL: a limit that cannot be. */
int rpc_server_create(struct rpc_loop *loop, const struct rpc_server_options *options,
                      struct rpc_server **ret, struct error *err);

/* Ends all connections, telling the callbacks of requests and connections. Requests that are not
 * answered yet stay valid and must still be answered (into the void). NULL is nothing. */
void rpc_server_destroy(struct rpc_server *server);

/* Accepts connections of listen_fd (taken over, also on failure) until the server is destroyed. May
 * be called for several. tag: whatever the caller wants to know its connections by. */
int rpc_server_listen(struct rpc_server *server, int listen_fd, const void *tag, struct error *err);

/* Serves a connected stream socket (taken over, also on failure). */
int rpc_server_adopt(struct rpc_server *server, int fd, const void *tag, struct error *err);
/* The same for a door, whose uid says nothing: what is limited by uid is by this account (not 0).
 */
int rpc_server_adopt_for(struct rpc_server *server, int fd, const void *tag, uint64_t account,
                         struct error *err);

/* params: the struct of the method's params type, parsed and checked; it and everything in it
 * belongs to the request and stays valid until that is released. context: of the server. */
typedef void (*rpc_handler)(struct rpc_request *request, const void *params, void *context);

struct rpc_method {
    const struct json_method *type;
    rpc_handler handler;
    bool untyped; /* params is JSON text (const char *), whatever the type says; "{}": none came */
};

/* Methods with handlers that take their parameters untyped. They must outlive the server. -EEXIST:
 * a method of that name is there already. */
int rpc_server_add_methods(struct rpc_server *server, const struct rpc_method *methods,
                           size_t count, struct error *err);

/* Methods of a schema with typed handlers: NAME_methods, NAME_methods_count and a struct
 * NAME_handlers, all generated. Members of handlers that are NULL: the server does not have the
 * method. Both must outlive the server. */
int rpc_server_add_handlers(struct rpc_server *server, const struct json_method *methods,
                            size_t count, const void *handlers, struct error *err);

/* Who is welcome has changed: those who are not any more are ended, and guests who are now become
 * like others. */
void rpc_server_review(struct rpc_server *server);

/* Open connections, and requests not yet released, of all of them: for "idle since" decisions. */
size_t rpc_server_connections(const struct rpc_server *server);
size_t rpc_server_in_flight(const struct rpc_server *server);

/* The answer to rpc.discover from now on; of a server that has been made with one. */
void rpc_server_set_document(struct rpc_server *server, const char *document);

struct rpc_loop *rpc_server_loop(const struct rpc_server *server);

/* ---- requests ---- */

/* Answers the request and releases it. Exactly one of rpc_reply, rpc_reply_json and the rpc_fail
 * functions is called per request. result: the struct of the method's result type, written before
 * the call returns, stays the caller's; NULL: an empty object. fds are taken over (also when nobody
 * waits for the answer any more). */
void rpc_reply(struct rpc_request *request, const void *result, const int *fds, size_t fds_count);

/* The same with a result that is JSON text already, without line ends. */
void rpc_reply_json(struct rpc_request *request, const char *text, size_t length, const int *fds,
                    size_t fds_count);

/* code: enum rpc_error. The message and hint are the person's. err stays the caller's. */
void rpc_fail(struct rpc_request *request, int code, const struct error *err);

/* rpc_fail with the code that fits err->code: ENOENT not found; EEXIST, EBUSY, EALREADY, ESRCH
 * conflict; EINVAL, ERANGE, E2BIG, ENAMETOOLONG, EPROTO, EBADMSG, EFBIG, EILSEQ invalid argument;
 * EPERM, EACCES permission denied; EOPNOTSUPP, ENOSYS not supported; EAGAIN, EMFILE, ENFILE
 * temporarily unavailable; ETIMEDOUT deadline exceeded; ECANCELED cancelled; ENOBUFS too many;
 * anything else internal error. */
void rpc_fail_errno(struct rpc_request *request, const struct error *err);

/* Why nobody waits for the answer any more. */
enum rpc_wanted {
    RPC_STILL_WANTED,
    RPC_PEER_GONE,    /* the connection has ended */
    RPC_CALL_ENDED,   /* by rpc.cancel: answered -11 */
    RPC_TIME_IS_OVER, /* by its deadline: answered -10 */
};

/* Called once when nobody waits for the answer any more; that has been answered then, as far as it
 * is to be. The request must be answered none the less (into the void, which releases it), from
 * inside the callback or later. One callback per request; NULL takes it back. */
typedef void (*rpc_on_cancel)(struct rpc_request *request, void *data);
void rpc_request_on_cancel(struct rpc_request *request, rpc_on_cancel callback, void *data);
enum rpc_wanted rpc_request_wanted(const struct rpc_request *request);

/* Nanoseconds of CLOCK_MONOTONIC; 0: none. */
uint64_t rpc_request_deadline(const struct rpc_request *request);

/* Tells the client how far it is, if it asked to be told (and takes what it is told; else this one
 * is left out). total 0: not known. unit and text may be NULL. */
void rpc_request_progress(struct rpc_request *request, uint64_t done, uint64_t total,
                          const char *unit, const char *text);
bool rpc_request_wants_progress(const struct rpc_request *request);

/* Descriptors that came with the request: how many, and taking one (ownership moves to the caller;
 * -1 when index is too large or it was taken already). Those not taken are closed at the answer. */
size_t rpc_request_fds_count(const struct rpc_request *request);
int rpc_request_take_fd(struct rpc_request *request, size_t index);

/* The method called. */
const char *rpc_request_method(const struct rpc_request *request);
const struct json_method *rpc_request_type(const struct rpc_request *request);

/* Whether its answer goes out by itself: it is neither a notification nor part of a batch. */
bool rpc_request_is_alone(const struct rpc_request *request);

/* Who called; the connection stays valid as long as the request, also when it has ended. */
struct rpc_connection *rpc_request_connection(const struct rpc_request *request);
uid_t rpc_request_uid(const struct rpc_request *request);
gid_t rpc_request_gid(const struct rpc_request *request);
pid_t rpc_request_pid(const struct rpc_request *request);

/* ---- connections ---- */

/* Valid from `opened` to `closed`, and as long as a request of it; rpc_connection_hold() makes it
 * valid until rpc_connection_release(). */
void rpc_connection_hold(struct rpc_connection *connection);
void rpc_connection_release(struct rpc_connection *connection);
/* Ends it, in this function. */
void rpc_connection_close(struct rpc_connection *connection);
bool rpc_connection_closed(const struct rpc_connection *connection);

const struct rpc_peer *rpc_connection_peer(const struct rpc_connection *connection);
/* The connection's own, to ask the kernel of the peer; -1 when it has ended. */
int rpc_connection_fd(const struct rpc_connection *connection);
/* For a door that speaks for others: text is copied; NULL: none. */
void rpc_connection_set_name(struct rpc_connection *connection, const char *name);
const void *rpc_connection_tag(const struct rpc_connection *connection);
struct rpc_server *rpc_connection_server(const struct rpc_connection *connection);

/* One of the caller's own. */
void *rpc_connection_data(const struct rpc_connection *connection);
void rpc_connection_set_data(struct rpc_connection *connection, void *data);

/* What is kept for the connection counts for its peer, until it is taken back or the connection
 * ends. -ENOBUFS: that would be too much. */
int rpc_connection_charge(struct rpc_connection *connection, size_t bytes);
void rpc_connection_discharge(struct rpc_connection *connection, size_t bytes);

/* Queues a notification for the client; params may be NULL. -ENOTCONN: it has ended; -ENOBUFS: more
 * than RPC_NOTIFY_PAUSE bytes (or a quarter of limits.output) wait for it to read, and nothing was
 * queued. */
int rpc_connection_notify(struct rpc_connection *connection, const char *method,
                          const struct json_type *type, const void *params);
enum { RPC_NOTIFY_PAUSE = 256 * 1024 };

/* The same with params as JSON text, an object or an array; NULL: none. */
int rpc_connection_notify_json(struct rpc_connection *connection, const char *method,
                               const char *params);

/* Bytes that the client has not taken. */
size_t rpc_connection_queued(const struct rpc_connection *connection);

/* Told of what happens to a connection; in the struct of its user. */
struct rpc_connection_watch {
    struct rpc_connection_watch *next, **at; /* the connection's */
    /* All that was queued is sent, after rpc_connection_notify() said -ENOBUFS. Once per such. */
    void (*drained)(struct rpc_connection_watch *watch);
    /* It has ended; the watch is off already. */
    void (*closed)(struct rpc_connection_watch *watch);
};

/* Any number of them; added to a connection that has not ended. Both callbacks may be NULL. */
void rpc_connection_watch(struct rpc_connection *connection, struct rpc_connection_watch *watch);
/* Nothing when it is off already. */
void rpc_connection_unwatch(struct rpc_connection_watch *watch);

#endif
