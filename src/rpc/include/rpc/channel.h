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
 * answer that comes after its call has ended is dropped and counted. A request of which nothing was
 * sent when its call ends never is.
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
    bool answered;             /* the server's answer came, result or error */
    bool unsent;               /* without one: the server cannot have begun with it, and will not */
    bool heard;                /* without one: something came meanwhile, for others */
    const char *what, *where;  /* of the error answer's data; NULL: not told */
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
     * closed. why: -ECONNRESET it broke, -EPROTO what came was not understood, -EMFILE we have no
     * descriptors left, -ENOBUFS or -ETIMEDOUT rpc.hello was refused or not answered, or the
     * errno of an error that named no call. NULL: not told. */
    void (*ended)(void *data, const struct error *why);
    /* What rpc_channel_negotiate() asked is answered. NULL: not told. */
    void (*ready)(void *data);
    /* A late answer came: the server has room for another call. NULL: not told. */
    void (*has_room)(void *data);
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
/* Asks the server for its limits and to speak an encoding, "cbor" or "json", before the first call
 * (-EBUSY after it; -EINVAL: we know none of that name). Calls made meanwhile wait for its answer.
 * A server that does not know the encoding, or the question, is spoken to in JSON; one that does
 * not answer within the time-out (0: as long as it takes), or refuses for want of room, is left:
 * the connection ends. */
int rpc_channel_negotiate(struct rpc_channel *channel, const char *encoding, uint64_t timeout_ms);
/* "json" or "cbor". */
const char *rpc_channel_encoding(const struct rpc_channel *channel);

/* Calls in flight end with -ECANCELED before it returns. NULL is nothing. */
void rpc_channel_close(struct rpc_channel *channel);

/* The call's number, for rpc_channel_cancel() (0 for a notification); or -errno, and there will be
 * no callback: -ENOTCONN after the end of the connection, -EFBIG for a request above
 * rpc_channel_message_max(), -ENOBUFS with RPC_CHANNEL_IN_FLIGHT_MAX calls or RPC_CHANNEL_QUEUE_MAX
 * bytes on their way. */
int64_t rpc_channel_call(struct rpc_channel *channel, const struct rpc_call *call);

/* The call ends now with -ECANCELED, in this function, and the server is told if it has it; false:
 * it has ended already. */
bool rpc_channel_cancel(struct rpc_channel *channel, int64_t number);

/* Whether the connection still stands. */
bool rpc_channel_is_open(const struct rpc_channel *channel);
/* 0, or why the connection has ended: as told to `ended` above. */
int rpc_channel_ended(const struct rpc_channel *channel);
/* Whether it is open and nothing waits for the answer to rpc_channel_negotiate(). */
bool rpc_channel_is_ready(const struct rpc_channel *channel);
/* How many calls the server may have, with those that are owed an answer, so that it still reads.
 */
size_t rpc_channel_width(const struct rpc_channel *channel);
/* Answers to calls that have ended here, and not there, for all we know. */
size_t rpc_channel_owed(const struct rpc_channel *channel);
/* The moment (rpc_loop_now()) since which none of them has come; UINT64_MAX: none is owed. */
uint64_t rpc_channel_owed_since(const struct rpc_channel *channel);
/* Bytes of a request at most: the server's limit, if it is less than RPC_MESSAGE_MAX. */
size_t rpc_channel_message_max(const struct rpc_channel *channel);
/* Whether the call is in flight, and nothing of it is sent: cancelled now, it never will be. */
bool rpc_channel_is_unsent(struct rpc_channel *channel, int64_t number);

struct rpc_channel_counts rpc_channel_counts(const struct rpc_channel *channel);

enum {
    RPC_CHANNEL_IN_FLIGHT_MAX = 65536,
    RPC_CHANNEL_QUEUE_MAX = 16 << 20,
};

#endif
