/*
 * The server that `cloche rpc` speaks to: the instance's daemon, or whoever listens on a socket
 * that was named. Calls by name and JSON text, since the server may know methods that we do not.
 */
#ifndef CLOCHE_RPC_REMOTE_H
#define CLOCHE_RPC_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli.h"

struct rpc_remote; /* opaque */

/* What a notification brings; both texts are valid in the callback only. */
typedef void (*rpc_remote_notified)(void *data, const char *method, size_t method_length,
                                    const char *params, size_t params_length);

enum { RPC_REMOTE_FDS_MAX = 16 };

struct rpc_remote_call {
    const char *method;
    const char *params;  /* JSON; NULL: none */
    uint64_t timeout_ms; /* 0: as long as it takes */
    int fd;              /* goes with it, stays the caller's; -1: none */
};

struct rpc_remote_answer {
    int fault;                   /* JSON-RPC code of an error answer; 0: none came */
    char *result;                /* JSON text, owned; NULL: an error */
    uint64_t took_ns;            /* from sending it to the answer */
    int fds[RPC_REMOTE_FDS_MAX]; /* owned */
    size_t fds_count;
};

/* socket: NULL for the instance's, whose daemon is started when none runs unless only_running.
 * notified may be NULL. */
int rpc_remote_open(struct cli *cli, const char *socket, bool only_running,
                    rpc_remote_notified notified, void *data, struct rpc_remote **ret,
                    struct error *err);
void rpc_remote_close(struct rpc_remote *remote); /* NULL allowed */

/* Blocks until it is answered, or has failed. ret is filled in either case, for
 * rpc_remote_answer_finish(). */
int rpc_remote_call(struct rpc_remote *remote, const struct rpc_remote_call *call,
                    struct rpc_remote_answer *ret, struct error *err);

/* Waits for something to come and handles it. -ECONNRESET: the connection has ended. -EINTR: a
 * signal came. */
int rpc_remote_wait(struct rpc_remote *remote, struct error *err);

void rpc_remote_answer_finish(struct rpc_remote_answer *answer);

static inline void cleanup_rpc_remote_p(struct rpc_remote **remote)
{
    rpc_remote_close(*remote);
}
#define _cleanup_rpc_remote_ _cleanup_(cleanup_rpc_remote_p)
#define _cleanup_rpc_remote_answer_ _cleanup_(rpc_remote_answer_finish)

/* "Error: message (-1 in container.start)\nhint" on standard error; with json as an object on one
 * line:
 * {"error":{"code":...,"message":...,"data":{"where":...,"hint":...}}}. Returns EXIT_FAILED. */
int rpc_remote_fail(const struct error *err, int fault, const char *method, bool json);

/* "2s", "1m30s", "500ms", or seconds with a fraction. For options of OPTION_PARSED; value points at
 * a uint64_t of milliseconds. */
int rpc_parse_timeout(const char *text, void *value, struct error *err);

#endif
