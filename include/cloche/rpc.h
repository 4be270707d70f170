/*
 * libcloche-rpc, server side: functions that are called from elsewhere, by JSON-RPC 2.0.
 *
 *     static void add(struct cloche_rpc_request *request, void *context)
 *     {
 *         double a, b;
 *
 *         if (cloche_rpc_number(request, "a", &a) < 0 || cloche_rpc_number(request, "b", &b) < 0)
 *             cloche_rpc_fail_params(request);
 *         else
 *             cloche_rpc_reply_format(request, "%.17g", a + b);
 *     }
 *
 *     static const char *const add_params[] = {"a", "b", NULL};
 *     const struct cloche_rpc_method method = {
 *         .size = sizeof(method), .name = "add", .params = add_params, .handler = add};
 *
 *     if (cloche_rpc_loop_create(&loop) < 0 ||
 *         cloche_rpc_server_create(loop, NULL, &server) < 0 ||
 *         cloche_rpc_server_add(server, &method) < 0 ||
 *         cloche_rpc_server_listen(server, "/run/shop.sock", 0600) < 0)
 *         return EXIT_FAILURE;
 *     while (running)
 *         cloche_rpc_loop_run_once(loop, -1);
 *
 * The wire is that of Cloche's management socket, cloche-rpc(7): a message a line, or CBOR for
 * clients that ask for it; batches, notifications, deadlines (timeoutMs), rpc.cancel, rpc.hello,
 * rpc.ping and rpc.stats are done here. A handler is called once for each call, and answers it
 * once, now or later.
 *
 * Results. Functions return 0 (or something useful and non-negative) or -errno; *ret is written on
 * success only. A want of memory ends the calling process (abort(3)).
 *
 * Threads. A loop, with its servers and what belongs to them, is for one thread at a time, which
 * runs it; only cloche_rpc_loop_wake() is for any. Nothing blocks but cloche_rpc_loop_run_once().
 * Callbacks may do anything but destroy the loop.
 *
 * Structures. Those with a `size` may get members in later versions, at their end. The caller sets
 * `size` to sizeof of the structure and all that it does not use to zero, which is the default of
 * every member. -EINVAL without a size; -E2BIG when a member that this library does not know is not
 * zero. Strings given are borrowed for the call, but for what a method and the settings have: that
 * has to outlive the server.
 */
#ifndef CLOCHE_RPC_H
#define CLOCHE_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* ---- the loop -------------------------------------------------------------------------------- */

struct cloche_rpc_loop;

int cloche_rpc_loop_create(struct cloche_rpc_loop **ret);
/* After its servers. NULL is nothing. */
void cloche_rpc_loop_destroy(struct cloche_rpc_loop *loop);

/* Waits for something to do and does it. -1: as long as it takes. */
void cloche_rpc_loop_run_once(struct cloche_rpc_loop *loop, int timeout_ms);

/* For another loop: readable when cloche_rpc_loop_dispatch() has something to do, which does not
 * block. */
int cloche_rpc_loop_fd(struct cloche_rpc_loop *loop);
void cloche_rpc_loop_dispatch(struct cloche_rpc_loop *loop);

/* From any thread, or a signal handler: cloche_rpc_loop_run_once() returns. */
void cloche_rpc_loop_wake(struct cloche_rpc_loop *loop);

/* ---- the server ------------------------------------------------------------------------------ */

struct cloche_rpc_server;
struct cloche_rpc_connection;
struct cloche_rpc_request;

/* JSON-RPC's errors, and those that Cloche's own methods have. Any other number may be used, too.
 */
enum cloche_rpc_code {
    CLOCHE_RPC_PARSE_ERROR = -32700,
    CLOCHE_RPC_INVALID_REQUEST = -32600,
    CLOCHE_RPC_METHOD_NOT_FOUND = -32601,
    CLOCHE_RPC_INVALID_PARAMS = -32602,
    CLOCHE_RPC_INTERNAL_ERROR = -32603,
    CLOCHE_RPC_NOT_FOUND = -1,
    CLOCHE_RPC_CONFLICT = -2,
    CLOCHE_RPC_INVALID_ARGUMENT = -3,
    CLOCHE_RPC_PERMISSION_DENIED = -4,
    CLOCHE_RPC_NOT_SUPPORTED = -5,
    CLOCHE_RPC_UNAVAILABLE = -9,
    CLOCHE_RPC_DEADLINE_EXCEEDED = -10,
    CLOCHE_RPC_CANCELLED = -11,
    CLOCHE_RPC_TOO_MANY = -12,
};

struct cloche_rpc_settings {
    size_t size;
    void *context; /* for handlers and the functions below */

    /* The answer to rpc.discover, JSON text on one line. NULL: there is no such method. */
    const char *document;

    /* Whether the peer may call the method (rpc.hello, rpc.ping and rpc.cancel are not asked for).
     * NULL: all may do all. */
    bool (*authorise)(struct cloche_rpc_connection *connection, const char *method, void *context);

    /* A connection was made, and has ended: it is valid in between, and as long as a request of
     * its. NULL: not told. */
    void (*opened)(struct cloche_rpc_connection *connection, void *context);
    void (*closed)(struct cloche_rpc_connection *connection, void *context);

    /* What clients may ask for; 0: the default. */
    size_t message_max;              /* bytes of a message; 1 MiB, and not more */
    size_t depth_max;                /* objects and arrays in each other; 64, and not more */
    size_t batch_max;                /* calls in a batch; 64 */
    size_t in_flight_max;            /* calls of a connection that are not answered; 64 */
    size_t connections_max;          /* 16384, and 3/4 of RLIMIT_NOFILE */
    size_t connections_per_peer_max; /* of one user; 3/4 of connections_max */
    size_t output_max;               /* bytes that a client has not read; 8 MiB */
};

/* settings may be NULL: all defaults. */
int cloche_rpc_server_create(struct cloche_rpc_loop *loop,
                             const struct cloche_rpc_settings *settings,
                             struct cloche_rpc_server **ret);

/* Ends all connections. Requests that are not answered yet stay valid and must still be answered,
 * into the void. NULL is nothing. */
void cloche_rpc_server_destroy(struct cloche_rpc_server *server);

struct cloche_rpc_method {
    size_t size;
    const char *name;
    /* What the parameters are called, in the order that they have by position; ends with NULL. Of
     * those that come by name none may be called otherwise. NULL: anything is taken. */
    const char *const *params;
    void (*handler)(struct cloche_rpc_request *request, void *context);
    unsigned fds; /* descriptors that come with the call; 16 at most */
};

/* The structure is copied, what it points to is not. -EEXIST: there is one of that name. */
int cloche_rpc_server_add(struct cloche_rpc_server *server, const struct cloche_rpc_method *method);

/* A Unix socket at path, with mode; a socket that is there and that nobody listens on makes way. */
int cloche_rpc_server_listen(struct cloche_rpc_server *server, const char *path, mode_t mode);
/* A listening or a connected stream socket; taken over, also on failure. */
int cloche_rpc_server_listen_fd(struct cloche_rpc_server *server, int fd);
int cloche_rpc_server_adopt(struct cloche_rpc_server *server, int fd);

/* Open connections, and requests that are not answered. */
size_t cloche_rpc_server_connections(const struct cloche_rpc_server *server);
size_t cloche_rpc_server_in_flight(const struct cloche_rpc_server *server);

/* ---- parameters ------------------------------------------------------------------------------ */

/* One of the parameters, whether it came by name or by position. -ENOENT: it did not come (or is
 * null); -EINVAL: it is of another kind, or out of range. What went wrong last is remembered for
 * cloche_rpc_fail_params(). */
int cloche_rpc_integer(struct cloche_rpc_request *request, const char *name, int64_t *ret);
int cloche_rpc_number(struct cloche_rpc_request *request, const char *name, double *ret);
int cloche_rpc_boolean(struct cloche_rpc_request *request, const char *name, bool *ret);
/* Valid as long as the request. */
int cloche_rpc_string(struct cloche_rpc_request *request, const char *name, const char **ret);
/* JSON text of any kind, valid as long as the request. */
int cloche_rpc_json(struct cloche_rpc_request *request, const char *name, const char **ret);

/* All of them: an object or an array. "{}" when none came. Valid as long as the request. Handlers
 * that were generated (cloche-rpcgen(1)) have theirs as a structure, and find none by these
 * functions. */
const char *cloche_rpc_params(struct cloche_rpc_request *request);

/* Descriptors that came with the call; the caller's from then on. -1: there is none, or it was
 * taken already. Those that nobody takes are closed at the answer. */
int cloche_rpc_take_fd(struct cloche_rpc_request *request, size_t index);

/* ---- answers --------------------------------------------------------------------------------- */

/* Exactly one of these five for each request, which is gone then. Nobody may wait for the answer
 * any more: it goes nowhere then. */

/* result: JSON text without line ends; NULL: null. What is not JSON is answered as an internal
 * error, and the call is -EINVAL. */
int cloche_rpc_reply(struct cloche_rpc_request *request, const char *result);
/* The same with descriptors, which are taken over, 16 at most. */
int cloche_rpc_reply_fds(struct cloche_rpc_request *request, const char *result, const int *fds,
                         size_t fds_count);
/* The same as by printf(3). */
int cloche_rpc_reply_format(struct cloche_rpc_request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* message: for a person, one line; hint: what to try, or NULL. */
void cloche_rpc_fail(struct cloche_rpc_request *request, int code, const char *message,
                     const char *hint);
/* CLOCHE_RPC_INVALID_PARAMS with what the last of the functions above found. */
void cloche_rpc_fail_params(struct cloche_rpc_request *request);

/* Text as a JSON string with its quotes, for answers; free(3). */
char *cloche_rpc_quote(const char *text);

/* Called once when nobody waits for the answer any more: the deadline has passed, the client has
 * cancelled the call, or is gone; that has been answered then, where it is to be. The request must
 * be answered none the less, from inside of the callback or later. One of a request; NULL takes it
 * back. */
void cloche_rpc_on_cancel(struct cloche_rpc_request *request,
                          void (*callback)(struct cloche_rpc_request *request, void *data),
                          void *data);
bool cloche_rpc_is_wanted(const struct cloche_rpc_request *request);

/* Nanoseconds of CLOCK_MONOTONIC; 0: none. */
uint64_t cloche_rpc_deadline(const struct cloche_rpc_request *request);

/* Tells the client how far it is, if it asked to be told. total 0: not known. unit and text may be
 * NULL. */
void cloche_rpc_progress(struct cloche_rpc_request *request, uint64_t done, uint64_t total,
                         const char *unit, const char *text);

/* ---- connections ----------------------------------------------------------------------------- */

struct cloche_rpc_connection *cloche_rpc_request_connection(struct cloche_rpc_request *request);

/* Who it is: as the kernel says of a Unix socket, when it connected; -1, -1 and 0 of others. */
uid_t cloche_rpc_connection_uid(const struct cloche_rpc_connection *connection);
gid_t cloche_rpc_connection_gid(const struct cloche_rpc_connection *connection);
pid_t cloche_rpc_connection_pid(const struct cloche_rpc_connection *connection);

/* One of the caller's own. */
void *cloche_rpc_connection_data(const struct cloche_rpc_connection *connection);
void cloche_rpc_connection_set_data(struct cloche_rpc_connection *connection, void *data);

/* Ends it. */
void cloche_rpc_connection_close(struct cloche_rpc_connection *connection);

/* A notification for the client; params: JSON text, an object or an array, or NULL. -ENOTCONN: it
 * has ended; -ENOBUFS: more than 256 KiB wait for the client to read them, and nothing was queued;
 * -EINVAL: params are none. */
int cloche_rpc_connection_notify(struct cloche_rpc_connection *connection, const char *method,
                                 const char *params);

/* ---- topics ---------------------------------------------------------------------------------- */

/* Numbered events for those who subscribe, as cloche-rpc(7) describes them: a topic "sales" has the
 * methods sales.subscribe {since?, boot?, sinceTime?} and sales.unsubscribe {subscription}, and
 * notifies by sales.event and sales.lost. The last 4096 events, and at most 8 MiB of them, are kept
 * for replay. Clients that do not read cost nobody anything, and are told what they have lost. The
 * client side is cloche_client_subscribe(). */
struct cloche_rpc_topic;

/* It is the server's, and ends with it. name is copied. -EEXIST: there are methods of such names;
 * the topic is not to be had then. */
int cloche_rpc_topic_create(struct cloche_rpc_server *server, const char *name,
                            struct cloche_rpc_topic **ret);

/* event: a JSON object. Its number: 1 for the first, and one more for each that follows. It is sent
 * when the loop runs next. -EINVAL: it is none. */
int64_t cloche_rpc_topic_publish(struct cloche_rpc_topic *topic, const char *event);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
