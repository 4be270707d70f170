/*
 * The management socket, client side: JSON-RPC 2.0, one message a line, descriptors beside it.
 *
 *     rpc_client_connect("/run/cloche/cloche.sock", &client, err);
 *     rpc_client_call(client, "container.start", &api_container_ref_type, &ref,
 *                     &api_changed_type, (void **)&changed, NULL, 0, NULL, NULL, err);
 *
 * Blocking, for one thread. Requests may be in flight together through rpc_client_send() and
 * rpc_client_receive(); answers are matched by number, whatever their order.
 *
 * An error answer becomes a struct error: message and hint are the server's, the code is an errno
 * that fits (-ENOENT for "not found" ...), and rpc_client_error_code() gives the exact number
 * (x-errors of runtime-spec/management.json). A connection that broke (-ECONNRESET, -EPROTO ...)
 * stays broken: every later call fails with -ENOTCONN.
 */
#ifndef RPC_CLIENT_H
#define RPC_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

struct json_type;
struct rpc_client;

/* Connects to the Unix socket at path. -ENOENT or -ECONNREFUSED: nobody listens there. */
int rpc_client_connect(const char *path, struct rpc_client **ret, struct error *err);

/* Takes fd, a connected SOCK_STREAM Unix socket, over. */
struct rpc_client *rpc_client_from_fd(int fd);

/* NULL is nothing. Answers in flight are lost, descriptors of unread answers are closed. */
void rpc_client_destroy(struct rpc_client *client);

/* Sends a request and waits for its answer, for ever.
 *
 * params: written by params_type; params_type NULL: no params. The answer is read by result_type
 * into *ret_result, owned by the caller (json_free(result_type, result)); result_type NULL: not
 * looked at. fds stay the caller's and go beside the request. ret_fds (room for *ret_fds_count,
 * written back) receives the answer's descriptors, owned by the caller; NULL: none are expected.
 * More descriptors than there is room for are closed and the call is -EPROTO. */
int rpc_client_call(struct rpc_client *client, const char *method,
                    const struct json_type *params_type, const void *params,
                    const struct json_type *result_type, void **ret_result, const int *fds,
                    size_t fds_count, int *ret_fds, size_t *ret_fds_count, struct error *err);

/* The same in two halves. send returns the request's number (> 0) in *ret_id; it blocks only while
 * the socket is full. */
int rpc_client_send(struct rpc_client *client, const char *method,
                    const struct json_type *params_type, const void *params, const int *fds,
                    size_t fds_count, uint64_t *ret_id, struct error *err);

/* Waits for the answer to request id; answers to others that come first are kept for their own
 * call. At most RPC_CLIENT_PENDING_MAX are kept. */
int rpc_client_receive(struct rpc_client *client, uint64_t id, const struct json_type *result_type,
                       void **ret_result, int *ret_fds, size_t *ret_fds_count, struct error *err);

enum { RPC_CLIENT_PENDING_MAX = 64 };

/* Requests sent from now on ask to be told how far they are: the handler is called on the way, by
 * whichever function reads from the connection. NULL: they do not ask. */
struct rpc_progress;
typedef void (*rpc_client_progress)(const struct rpc_progress *progress, void *data);
void rpc_client_on_progress(struct rpc_client *client, rpc_client_progress handler, void *data);

/* Reads what is there and returns 1 when the answer to id has come, so that rpc_client_receive()
 * will not block; 0 when not yet; -errno. For use after poll() says POLLIN on rpc_client_fd(). */
int rpc_client_ready(struct rpc_client *client, uint64_t id, struct error *err);

int rpc_client_fd(const struct rpc_client *client);

/* JSON-RPC code of the last error answer; 0 when the last failure was not one. */
int rpc_client_error_code(const struct rpc_client *client);

static inline void cleanup_rpc_client_p(struct rpc_client **client)
{
    rpc_client_destroy(*client);
}
#define _cleanup_rpc_client_ _cleanup_(cleanup_rpc_client_p)

#endif
