/*
 * What generated stubs are made of: calls of a client (include/cloche/client.h) by the tables of
 * the schemas. Blocking and threads are as said there.
 */
#ifndef RPC_POOL_CALLS_H
#define RPC_POOL_CALLS_H

#include <stddef.h>
#include <stdint.h>

#include <cloche/client.h>
#include <schema/json.h>

/* params: of the method's params type; NULL: none. *ret_result: of its result type, the caller's:
 * json_free(); ret_result may be NULL. fd: goes with the request, -1: none, and stays the caller's.
 * ret_fd: the one that comes with the answer, the caller's; NULL: it is not wanted. -EPROTO when it
 * does not come. */
int rpc_stub_call(struct cloche_client *client, const struct json_method *method,
                  const void *params, int fd, const struct cloche_call_options *options,
                  void **ret_result, int *ret_fd, struct cloche_error *error);

/* function: the caller's callback, which `call` calls: as many types as there are methods. fd: -1
 * when none came; the callback's. */
typedef void (*rpc_stub_done)(void (*function)(void), void *data, void *result, int fd,
                              const struct cloche_error *error);

/* The call's number, or -errno; see cloche_client_call_async(). */
int64_t rpc_stub_call_async(struct cloche_client *client, const struct json_method *method,
                            const void *params, int fd, const struct cloche_call_options *options,
                            rpc_stub_done call, void (*function)(void), void *data);

#endif
