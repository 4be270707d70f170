/*
 * What a client or a server counts of its calls, and how that is shown: as JSON and as OpenMetrics
 * text. The same struct on both sides.
 *
 *     rpc_metrics_begin(&metrics);
 *     ...
 *     rpc_metrics_end(&metrics, RPC_ENDED_ANSWERED, 0, nanoseconds);
 *
 * A zeroed struct is an empty one. Any thread may count and read at any time; a reader sees each
 * number as it was at some moment, not all of them at the same one. Nothing blocks.
 *
 * Latencies are kept in buckets that are at most a quarter wide of where they begin, from a
 * microsecond to an hour: what is told of them is exact to a fifth, however many there were.
 */
#ifndef RPC_METRICS_H
#define RPC_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>

struct json_writer;

enum {
    RPC_LATENCY_STEPS = 4, /* buckets in each doubling */
    RPC_LATENCY_DOUBLINGS = 32,
    RPC_LATENCY_BUCKETS = RPC_LATENCY_STEPS * RPC_LATENCY_DOUBLINGS,
    RPC_METRICS_CODES_MAX = 24, /* error codes told apart; what comes later counts as 0 */
};

enum rpc_ended {
    RPC_ENDED_ANSWERED,  /* with a result */
    RPC_ENDED_FAULT,     /* with an error of the server; it has a code */
    RPC_ENDED_TIMEOUT,   /* the deadline passed */
    RPC_ENDED_CANCELLED, /* by the caller */
    RPC_ENDED_LOST,      /* with the connection, or without one */
    RPC_ENDED_KINDS,
};

struct rpc_metrics {
    uint64_t calls;                  /* begun */
    uint64_t ended[RPC_ENDED_KINDS]; /* calls less all of these are in flight */
    uint64_t retries;                /* sent again, or to somebody else */
    uint64_t late;                   /* answers that came after their call had ended */
    uint64_t bytes_in, bytes_out;
    struct rpc_metrics_code {
        int64_t code;
        uint64_t count; /* 0: the entry is free */
    } codes[RPC_METRICS_CODES_MAX];
    struct rpc_latency {
        uint64_t buckets[RPC_LATENCY_BUCKETS];
        uint64_t count, sum_ns;
    } latency; /* of calls that were answered, with a result or an error */
};

void rpc_metrics_begin(struct rpc_metrics *metrics);
/* code: of the error answer; looked at only for RPC_ENDED_FAULT. */
void rpc_metrics_end(struct rpc_metrics *metrics, enum rpc_ended how, int code,
                     uint64_t nanoseconds);
/* The same for a struct that one thread alone counts in, while any may read: without the price of
 * counters that several write. */
void rpc_metrics_begin_alone(struct rpc_metrics *metrics);
void rpc_metrics_end_alone(struct rpc_metrics *metrics, enum rpc_ended how, int code,
                           uint64_t nanoseconds);
/* For the plain counters: rpc_metrics_add(&metrics->late, 1). */
static inline void rpc_metrics_add(uint64_t *counter, uint64_t more)
{
    __atomic_fetch_add(counter, more, __ATOMIC_RELAXED);
}

/* A copy that nobody else counts in. */
void rpc_metrics_snapshot(const struct rpc_metrics *metrics, struct rpc_metrics *ret);
uint64_t rpc_metrics_in_flight(const struct rpc_metrics *metrics);

/* The nanoseconds that the given part (0 to 1) of the calls stayed below: the upper end of the
 * bucket in which it lies. 0 without calls. */
uint64_t rpc_latency_quantile(const struct rpc_latency *latency, double part);
/* Upper end of a bucket, in nanoseconds; UINT64_MAX of the last. */
uint64_t rpc_latency_bound(size_t bucket);

/* The members of an object that the caller has begun: calls, inFlight, answered, timeouts,
 * cancelled, lost, retries, late, bytesIn, bytesOut, errors {code: count}, latency {count, sumNs,
 * p50Ns, p90Ns, p99Ns, maxNs, buckets [{belowNs, count}]} with the buckets that are not empty. */
void rpc_metrics_write_json(const struct rpc_metrics *metrics, struct json_writer *writer);

/* OpenMetrics text of several sets that differ in their labels. prefix: "cloche_rpc_client".
 * labels: "endpoint=\"0\"" or "". Without the line "# EOF", which is the whole document's. */
struct rpc_metrics_series {
    const char *labels;
    const struct rpc_metrics *metrics;
};
void rpc_metrics_write_text(struct buffer *out, const char *prefix,
                            const struct rpc_metrics_series *series, size_t count);

/* The same for one family of numbers that the caller keeps: rpc_metrics_write_family(out,
 * "cloche_rpc_connections", "gauge", "open connections"), then a sample for each. type: "gauge" or
 * "counter" (samples of counters are named NAME_total, which is done here). */
void rpc_metrics_write_family(struct buffer *out, const char *name, const char *type,
                              const char *help);
void rpc_metrics_write_sample(struct buffer *out, const char *name, const char *type,
                              const char *labels, uint64_t value);
/* Appends text as the value of a label, with quotes and escapes. */
void rpc_metrics_write_label(struct buffer *out, const char *name, const char *value);

#endif
