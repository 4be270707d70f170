/*
 * The management socket, server side: JSON-RPC 2.0, one message a line, Unix
 * SOCK_STREAM, descriptors beside a message that counts them in its member "fds".
 *
 * Every function here is to be called on the loop's thread; none blocks. Batches and notifications
 * are handled inside: a handler is called once per call, and answers it once, now or later.
 */
#ifndef RPC_SERVER_H
#define RPC_SERVER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

struct rpc_loop;
struct json_method;
struct rpc_server;
struct rpc_request;

enum {
    RPC_MESSAGE_MAX = 1 << 20,        /* bytes of a message; a longer one ends the connection */
    RPC_ANSWER_MAX = 16 << 20,        /* bytes of an answer that a client takes */
    RPC_DEPTH_MAX = 64,               /* nesting of a message */
    RPC_IN_FLIGHT_MAX = 64,           /* unanswered requests of a connection; then it is not read */
    RPC_CONNECTIONS_MAX = 1024,       /* then further ones are not accepted until one goes */
    RPC_OUTPUT_MAX = 8 * (1 << 20),   /* bytes a slow reader may owe; more ends the connection */
    RPC_FDS_MAX = 16,                 /* descriptors beside one message */
    RPC_BATCH_MAX = RPC_IN_FLIGHT_MAX /* calls in one batch */
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
};

/* params: the struct of the method's params type, parsed and checked; it and everything in it
 * belongs to the request and stays valid until that is answered. context: of the server. */
typedef void (*rpc_handler)(struct rpc_request *request, const void *params, void *context);

struct rpc_method {
    const struct json_method *type;
    rpc_handler handler;
};

/* Accepts connections of listen_fd (taken over, also on failure) until destroyed. methods and
 * context must outlive the server. */
int rpc_server_create(struct rpc_loop *loop, int listen_fd, const struct rpc_method *methods,
                      size_t methods_count, void *context, struct rpc_server **ret,
                      struct error *err);

/* Ends all connections, telling the disconnect callbacks. Requests that are not answered yet stay
 * valid and must still be answered (into the void). NULL is nothing. */
void rpc_server_destroy(struct rpc_server *server);

/* Open connections, and requests not yet answered, of all of them: for "idle since" decisions. */
size_t rpc_server_connections(const struct rpc_server *server);
size_t rpc_server_in_flight(const struct rpc_server *server);

/* Answers the request and releases it. Exactly one of rpc_reply and rpc_fail is called per request.
 * result: the struct of the method's result type, written before the call returns, stays the
 * caller's; NULL: an empty object. fds are taken over (also when the client is gone). */
void rpc_reply(struct rpc_request *request, const void *result, const int *fds, size_t fds_count);

/* code: enum rpc_error. The message and hint are the person's. err stays the caller's. */
void rpc_fail(struct rpc_request *request, int code, const struct error *err);

/* rpc_fail with the code that fits err->code: ENOENT not found; EEXIST, EBUSY, EALREADY, ESRCH
 * conflict; EINVAL, ERANGE, E2BIG, ENAMETOOLONG, EPROTO, EBADMSG, EFBIG, EILSEQ invalid argument;
 * EPERM, EACCES permission denied; EOPNOTSUPP, ENOSYS not supported; EAGAIN, EMFILE, ENFILE
 * temporarily unavailable; anything else internal error. */
void rpc_fail_errno(struct rpc_request *request, const struct error *err);

/* Descriptors that came with the request: how many, and taking one (ownership moves to the caller;
 * -1 when index is too large or it was taken already). Those not taken are closed at the answer. */
size_t rpc_request_fds_count(const struct rpc_request *request);
int rpc_request_take_fd(struct rpc_request *request, size_t index);

/* Name of the method called. */
const char *rpc_request_method(const struct rpc_request *request);

/* Who connected (SO_PEERCRED at connect time). */
uid_t rpc_request_uid(const struct rpc_request *request);
gid_t rpc_request_gid(const struct rpc_request *request);
pid_t rpc_request_pid(const struct rpc_request *request);

/* Called once if the client goes away before the answer; the request must be answered none the
 * less, from inside the callback or later. One callback per request; NULL takes it back. */
typedef void (*rpc_disconnect)(struct rpc_request *request, void *data);
void rpc_request_on_disconnect(struct rpc_request *request, rpc_disconnect callback, void *data);

#endif
