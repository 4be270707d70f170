/*
 * One connection, asynchronously: calls take a callback and return at once.
 *
 *     rpc_channel_open(loop, fd, &events, &channel);
 *     rpc_channel_call(channel, &(struct rpc_call){.method = &management_methods[3], .params =
 * &ref, .timeout_ms = 2000, .done = on_done});
 *
 * Every call that was accepted has its callback called exactly once, on the loop's thread and never
 * from within rpc_channel_call(): with the result, with the server's error, or with what went wrong
 * (-ETIMEDOUT, -ECONNRESET when the connection ended, -ECANCELED when the channel was closed). An
 * answer that comes after its call has ended is dropped and counted.
 *
 * Many calls may be in flight; what is written in one round of the loop goes out together.
 */
#ifndef RPC_CHANNEL_H
#define RPC_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>
#include <rpc/metrics.h>
#include <schema/json.h>

struct rpc_loop;
struct rpc_channel;
struct rpc_progress;

struct rpc_outcome {
    int code;         /* 0, or -errno; an error answer has the errno that fits it */
    int fault;        /* JSON-RPC code of an error answer; 0: none came */
    void *result;     /* of the method's result type, the callback's: json_free(); NULL: none */
    const char *text; /* the result as JSON, for a call that asked so; valid in the callback */
    size_t text_length;
    bool
        unsent; /* with -ECONNRESET, -ETIMEDOUT, -ECANCELED: the server cannot have begun with it */
    const struct error *error; /* with code < 0: message and hint for a person */
    int *fds; /* that came with the answer; those that the callback sets to -1 are its own */
    size_t fds_count;
};

typedef void (*rpc_done)(void *data, const struct rpc_outcome *outcome);

struct rpc_call {
    const struct json_method *method;
    const void *params; /* of the method's params type; NULL: none */
    const char *text;   /* JSON, in place of params; NULL: params it is */
    size_t text_length;
    bool raw;            /* the result is wanted as JSON text */
    uint64_t timeout_ms; /* 0: as long as it takes; the server is told, and ends it, too */
    const int *fds;      /* that go with it, stay the caller's: they are duplicated; NULL: none */
    size_t fds_count;
    rpc_done done; /* NULL: a notification, which has no answer */
    void *data;
    /* How far it is (<schema/rpc.h>), any number of times before `done`; NULL: not asked for. */
    void (*progress)(void *data, const struct rpc_progress *progress);
};

struct rpc_channel_events {
    /* A request or notification that the server sent; NULL: dropped. params: JSON text. */
    void (*notified)(void *data, const char *method, size_t method_length, const char *params,
                     size_t params_length);
    /* The connection has ended, after the callbacks of its calls. The channel is still to be
     * closed. NULL: not told. */
    void (*ended)(void *data, const struct error *why);
    void *data;
    struct rpc_metrics *metrics; /* whose bytes and late answers are counted; NULL: nobody's */
};

struct rpc_channel_counts {
    uint64_t calls, answers, faults, timeouts, late, lost;
    size_t in_flight;
    size_t bytes_queued; /* not taken by the socket yet */
};

/* fd: a connected stream socket, taken over. */
int rpc_channel_open(struct rpc_loop *loop, int fd, const struct rpc_channel_events *events,
                     struct rpc_channel **ret, struct error *err);
/* Asks the server to speak another encoding, "cbor" or "json", before the first call (-EBUSY after
 * it; -EINVAL: we know none of that name). Calls made meanwhile wait for its answer. A server that
 * does not know it, or does not want to, is spoken to in JSON. */
int rpc_channel_negotiate(struct rpc_channel *channel, const char *encoding);
/* "json" or "cbor". */
const char *rpc_channel_encoding(const struct rpc_channel *channel);

/* Calls in flight end with -ECANCELED before it returns. NULL is nothing. */
void rpc_channel_close(struct rpc_channel *channel);

/* The call's number, for rpc_channel_cancel() (0 for a notification); or -errno, and there will be
 * no callback: -ENOTCONN after the end of the connection, -EFBIG for a request above
 * RPC_MESSAGE_MAX, -ENOBUFS with RPC_CHANNEL_IN_FLIGHT_MAX calls or RPC_CHANNEL_QUEUE_MAX bytes on
 * their way. */
int64_t rpc_channel_call(struct rpc_channel *channel, const struct rpc_call *call);

/* The call ends now with -ECANCELED, in this function, and the server is told; false: it has ended
 * already. */
bool rpc_channel_cancel(struct rpc_channel *channel, int64_t number);

/* Whether the connection still stands. */
bool rpc_channel_is_open(const struct rpc_channel *channel);
/* Whether the call is in flight, and the server cannot have begun with it. */
bool rpc_channel_is_unsent(struct rpc_channel *channel, int64_t number);

struct rpc_channel_counts rpc_channel_counts(const struct rpc_channel *channel);

enum {
    RPC_CHANNEL_IN_FLIGHT_MAX = 65536,
    RPC_CHANNEL_QUEUE_MAX = 16 << 20,
};

#endif
