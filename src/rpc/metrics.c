#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <rpc/metrics.h>
#include <schema/json.h>

enum { LATENCY_SHIFT = 10 }; /* the first doubling begins at 1024 ns */

#define NS_PER_SECOND 1e9

static uint64_t read_counter(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* ---- latencies: each doubling is cut into equal steps ---- */

static size_t bucket_of(uint64_t nanoseconds)
{
    uint64_t value = nanoseconds >> LATENCY_SHIFT;

    if (value == 0)
        return 0;
    unsigned doubling = 63U - (unsigned)__builtin_clzll(value);
    uint64_t rest = nanoseconds - (UINT64_C(1) << (doubling + LATENCY_SHIFT));
    size_t bucket = 1 + doubling * RPC_LATENCY_STEPS +
                    (size_t)(rest * RPC_LATENCY_STEPS >> (doubling + LATENCY_SHIFT));
    return bucket < RPC_LATENCY_BUCKETS ? bucket : RPC_LATENCY_BUCKETS - 1;
}

uint64_t rpc_latency_bound(size_t bucket)
{
    if (bucket >= RPC_LATENCY_BUCKETS - 1)
        return UINT64_MAX;
    if (bucket == 0)
        return UINT64_C(1) << LATENCY_SHIFT;
    unsigned doubling = (unsigned)((bucket - 1) / RPC_LATENCY_STEPS);
    uint64_t start = UINT64_C(1) << (doubling + LATENCY_SHIFT);
    return start + start / RPC_LATENCY_STEPS * ((bucket - 1) % RPC_LATENCY_STEPS + 1);
}

uint64_t rpc_latency_quantile(const struct rpc_latency *latency, double part)
{
    uint64_t seen = 0;

    if (!latency->count)
        return 0;
    uint64_t wanted = (uint64_t)(part * (double)latency->count);
    for (size_t i = 0; i < RPC_LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (latency->buckets[i] && (seen > wanted || seen >= latency->count))
            return rpc_latency_bound(i);
    }
    return 0;
}

/* ---- counting ---- */

void rpc_metrics_begin(struct rpc_metrics *metrics)
{
    rpc_metrics_add(&metrics->calls, 1);
}

/* An entry is taken by its count, which is then never 0 again; two threads that find the same entry
 * free at once are told apart by the code, which is set before. */
static void count_code(struct rpc_metrics *metrics, int64_t code)
{
    for (size_t i = 0; i < RPC_METRICS_CODES_MAX; i++) {
        struct rpc_metrics_code *entry = &metrics->codes[i];
        int64_t free_code = 0, wanted = i + 1 < RPC_METRICS_CODES_MAX ? code : INT64_MIN;
        if (__atomic_compare_exchange_n(&entry->code, &free_code, wanted, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED) ||
            free_code == wanted) {
            rpc_metrics_add(&entry->count, 1);
            return;
        }
    }
}

void rpc_metrics_end(struct rpc_metrics *metrics, enum rpc_ended how, int code,
                     uint64_t nanoseconds)
{
    rpc_metrics_add(&metrics->ended[how], 1);
    if (how == RPC_ENDED_FAULT)
        count_code(metrics, code ? code : INT64_MIN);
    if (how != RPC_ENDED_ANSWERED && how != RPC_ENDED_FAULT)
        return;
    rpc_metrics_add(&metrics->latency.buckets[bucket_of(nanoseconds)], 1);
    rpc_metrics_add(&metrics->latency.count, 1);
    rpc_metrics_add(&metrics->latency.sum_ns, nanoseconds);
}

static void add_alone(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, read_counter(counter) + more, __ATOMIC_RELAXED);
}

void rpc_metrics_begin_alone(struct rpc_metrics *metrics)
{
    add_alone(&metrics->calls, 1);
}

void rpc_metrics_end_alone(struct rpc_metrics *metrics, enum rpc_ended how, int code,
                           uint64_t nanoseconds)
{
    add_alone(&metrics->ended[how], 1);
    if (how == RPC_ENDED_FAULT)
        count_code(metrics, code ? code : INT64_MIN);
    if (how != RPC_ENDED_ANSWERED && how != RPC_ENDED_FAULT)
        return;
    add_alone(&metrics->latency.buckets[bucket_of(nanoseconds)], 1);
    add_alone(&metrics->latency.count, 1);
    add_alone(&metrics->latency.sum_ns, nanoseconds);
}

void rpc_metrics_snapshot(const struct rpc_metrics *metrics, struct rpc_metrics *ret)
{
    const uint64_t *from = (const uint64_t *)metrics;
    uint64_t *to = (uint64_t *)ret;

    _Static_assert(sizeof(*metrics) % sizeof(uint64_t) == 0, "nothing but 64-bit counters");
    for (size_t i = 0; i < sizeof(*metrics) / sizeof(uint64_t); i++)
        to[i] = read_counter(&from[i]);
}

uint64_t rpc_metrics_in_flight(const struct rpc_metrics *metrics)
{
    uint64_t ended = 0;

    for (size_t i = 0; i < RPC_ENDED_KINDS; i++)
        ended += read_counter(&metrics->ended[i]);
    uint64_t calls = read_counter(&metrics->calls); /* last: never less than those that ended */
    return calls > ended ? calls - ended : 0;
}

/* ---- JSON ---- */

static void write_number(struct json_writer *writer, const char *name, uint64_t value)
{
    json_writer_key(writer, name);
    json_writer_unsigned(writer, value);
}

static void write_codes(struct json_writer *writer, const struct rpc_metrics *metrics)
{
    char name[32];

    json_writer_key(writer, "errors");
    json_writer_object_begin(writer);
    for (size_t i = 0; i < RPC_METRICS_CODES_MAX; i++) {
        const struct rpc_metrics_code *entry = &metrics->codes[i];
        if (!entry->count)
            continue;
        snprintf(name, sizeof(name), "%" PRId64, entry->code);
        write_number(writer, entry->code == INT64_MIN ? "other" : name, entry->count);
    }
    json_writer_object_end(writer);
}

static void write_latency(struct json_writer *writer, const struct rpc_latency *latency)
{
    json_writer_key(writer, "latency");
    json_writer_object_begin(writer);
    write_number(writer, "count", latency->count);
    write_number(writer, "sumNs", latency->sum_ns);
    write_number(writer, "p50Ns", rpc_latency_quantile(latency, 0.5));
    write_number(writer, "p90Ns", rpc_latency_quantile(latency, 0.9));
    write_number(writer, "p99Ns", rpc_latency_quantile(latency, 0.99));
    write_number(writer, "maxNs", rpc_latency_quantile(latency, 1));
    json_writer_key(writer, "buckets");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < RPC_LATENCY_BUCKETS; i++) {
        if (!latency->buckets[i])
            continue;
        json_writer_object_begin(writer);
        write_number(writer, "belowNs", rpc_latency_bound(i));
        write_number(writer, "count", latency->buckets[i]);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}

void rpc_metrics_write_json(const struct rpc_metrics *metrics, struct json_writer *writer)
{
    struct rpc_metrics now;

    rpc_metrics_snapshot(metrics, &now);
    write_number(writer, "calls", now.calls);
    write_number(writer, "inFlight", rpc_metrics_in_flight(&now));
    write_number(writer, "answered", now.ended[RPC_ENDED_ANSWERED]);
    write_number(writer, "timeouts", now.ended[RPC_ENDED_TIMEOUT]);
    write_number(writer, "cancelled", now.ended[RPC_ENDED_CANCELLED]);
    write_number(writer, "lost", now.ended[RPC_ENDED_LOST]);
    write_number(writer, "retries", now.retries);
    write_number(writer, "late", now.late);
    write_number(writer, "bytesIn", now.bytes_in);
    write_number(writer, "bytesOut", now.bytes_out);
    write_codes(writer, &now);
    write_latency(writer, &now.latency);
}

/* ---- OpenMetrics: a family's samples stand together, whatever their labels ---- */

void rpc_metrics_write_family(struct buffer *out, const char *name, const char *type,
                              const char *help)
{
    buffer_printf(out, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, help);
}

static void write_labels(struct buffer *out, const char *labels, const char *more)
{
    if (!*labels && !*more)
        return;
    buffer_printf(out, "{%s%s%s}", labels, *labels && *more ? "," : "", more);
}

void rpc_metrics_write_sample(struct buffer *out, const char *name, const char *type,
                              const char *labels, uint64_t value)
{
    buffer_append_text(out, name);
    if (strcmp(type, "counter") == 0)
        buffer_append_text(out, "_total");
    write_labels(out, labels, "");
    buffer_printf(out, " %" PRIu64 "\n", value);
}

void rpc_metrics_write_label(struct buffer *out, const char *name, const char *value)
{
    buffer_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            buffer_append_text(out, "\\n");
        else if (*value == '"' || *value == '\\')
            buffer_printf(out, "\\%c", *value);
        else
            buffer_append_char(out, *value);
    }
    buffer_append_char(out, '"');
}

static const struct counter {
    const char *name, *help;
    size_t offset;
} counters[] = {
    {"calls", "Calls begun.", offsetof(struct rpc_metrics, calls)},
    {"answered", "Calls that ended with a result.",
     offsetof(struct rpc_metrics, ended[RPC_ENDED_ANSWERED])},
    {"timeouts", "Calls whose deadline passed.",
     offsetof(struct rpc_metrics, ended[RPC_ENDED_TIMEOUT])},
    {"cancelled", "Calls that the caller cancelled.",
     offsetof(struct rpc_metrics, ended[RPC_ENDED_CANCELLED])},
    {"lost", "Calls that ended with their connection, or found none.",
     offsetof(struct rpc_metrics, ended[RPC_ENDED_LOST])},
    {"retries", "Calls sent again, or to another endpoint.", offsetof(struct rpc_metrics, retries)},
    {"late", "Answers that came after their call had ended.", offsetof(struct rpc_metrics, late)},
    {"received_bytes", "Bytes received.", offsetof(struct rpc_metrics, bytes_in)},
    {"sent_bytes", "Bytes sent.", offsetof(struct rpc_metrics, bytes_out)},
};

static void write_counters(struct buffer *out, const char *prefix,
                           const struct rpc_metrics_series *series, size_t count)
{
    char name[128];

    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
        snprintf(name, sizeof(name), "%s_%s", prefix, counters[i].name);
        rpc_metrics_write_family(out, name, "counter", counters[i].help);
        for (size_t k = 0; k < count; k++) {
            const char *metrics = (const char *)series[k].metrics;
            rpc_metrics_write_sample(
                out, name, "counter", series[k].labels,
                read_counter((const uint64_t *)(const void *)(metrics + counters[i].offset)));
        }
    }
}

static void write_text_codes(struct buffer *out, const char *prefix,
                             const struct rpc_metrics_series *series, size_t count)
{
    char name[128], label[48];

    snprintf(name, sizeof(name), "%s_errors", prefix);
    rpc_metrics_write_family(out, name, "counter", "Calls that ended with an error answer.");
    for (size_t k = 0; k < count; k++) {
        for (size_t i = 0; i < RPC_METRICS_CODES_MAX; i++) {
            struct rpc_metrics_code entry = {
                .code = (int64_t)read_counter((const uint64_t *)&series[k].metrics->codes[i].code),
                .count = read_counter(&series[k].metrics->codes[i].count)};
            if (!entry.count)
                continue;
            if (entry.code == INT64_MIN)
                snprintf(label, sizeof(label), "code=\"other\"");
            else
                snprintf(label, sizeof(label), "code=\"%" PRId64 "\"", entry.code);
            buffer_printf(out, "%s_total", name);
            write_labels(out, series[k].labels, label);
            buffer_printf(out, " %" PRIu64 "\n", entry.count);
        }
    }
}

/* Of each doubling its end only: the sum of what lies below it. */
static void write_text_latency(struct buffer *out, const char *name, const char *labels,
                               const struct rpc_latency *latency)
{
    uint64_t below = 0;
    char label[48];

    for (size_t i = 0; i < RPC_LATENCY_BUCKETS; i++) {
        below += read_counter(&latency->buckets[i]);
        if (i % RPC_LATENCY_STEPS != 0)
            continue;
        snprintf(label, sizeof(label), "le=\"%.9g\"", (double)rpc_latency_bound(i) / NS_PER_SECOND);
        buffer_printf(out, "%s_bucket", name);
        write_labels(out, labels, label);
        buffer_printf(out, " %" PRIu64 "\n", below);
    }
    buffer_printf(out, "%s_bucket", name);
    write_labels(out, labels, "le=\"+Inf\"");
    buffer_printf(out, " %" PRIu64 "\n%s_count", below, name);
    write_labels(out, labels, "");
    buffer_printf(out, " %" PRIu64 "\n%s_sum", below, name);
    write_labels(out, labels, "");
    buffer_printf(out, " %.9g\n", (double)read_counter(&latency->sum_ns) / NS_PER_SECOND);
}

void rpc_metrics_write_text(struct buffer *out, const char *prefix,
                            const struct rpc_metrics_series *series, size_t count)
{
    char name[128];

    write_counters(out, prefix, series, count);
    write_text_codes(out, prefix, series, count);
    snprintf(name, sizeof(name), "%s_in_flight", prefix);
    rpc_metrics_write_family(out, name, "gauge", "Calls that have not ended yet.");
    for (size_t k = 0; k < count; k++)
        rpc_metrics_write_sample(out, name, "gauge", series[k].labels,
                                 rpc_metrics_in_flight(series[k].metrics));
    snprintf(name, sizeof(name), "%s_latency_seconds", prefix);
    rpc_metrics_write_family(out, name, "histogram", "From the call to its answer.");
    for (size_t k = 0; k < count; k++)
        write_text_latency(out, name, series[k].labels, &series[k].metrics->latency);
}
