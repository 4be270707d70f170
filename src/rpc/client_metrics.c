/*
 * What a client tells of itself: numbers, JSON and OpenMetrics text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <schema/json.h>

#include "pool.h"

#define PREFIX "cloche_rpc_client"

static const char *const state_names[] = {[CLOCHE_ENDPOINT_IN] = "in",
                                          [CLOCHE_ENDPOINT_OUT] = "out",
                                          [CLOCHE_ENDPOINT_PROBED] = "probed"};

/* As much as the caller knows of; what it knows beyond ours is zero. */
static void give(void *to, size_t size, const void *from, size_t ours)
{
    memset(to, 0, size);
    memcpy(to, from, size < ours ? size : ours);
}

void cloche_client_counts(struct cloche_client *client, struct cloche_client_counts *ret,
                          size_t size)
{
    struct rpc_metrics now;

    rpc_metrics_snapshot(&client->metrics, &now);
    const struct cloche_client_counts counts = {
        .calls = now.calls,
        .answered = now.ended[RPC_ENDED_ANSWERED],
        .errors = now.ended[RPC_ENDED_FAULT],
        .timeouts = now.ended[RPC_ENDED_TIMEOUT],
        .cancelled = now.ended[RPC_ENDED_CANCELLED],
        .lost = now.ended[RPC_ENDED_LOST],
        .retries = now.retries,
        .late = now.late,
        .in_flight = rpc_metrics_in_flight(&now),
        .bytes_in = now.bytes_in,
        .bytes_out = now.bytes_out,
        .p50_ns = rpc_latency_quantile(&now.latency, 0.5),
        .p90_ns = rpc_latency_quantile(&now.latency, 0.9),
        .p99_ns = rpc_latency_quantile(&now.latency, 0.99),
        .slowest_ns = rpc_latency_quantile(&now.latency, 1),
    };
    give(ret, size, &counts, sizeof(counts));
}

static struct cloche_endpoint_counts count_endpoint(struct cloche_client *client, size_t index)
{
    const struct endpoint *endpoint = &client->endpoints[index];

    client_lock(client);
    struct cloche_endpoint_counts counts = {
        .state = endpoint->state,
        .busy = endpoint->busy,
        .connections = endpoint->connections + endpoint->lanes_open,
        .calls = endpoint->calls,
        .connects = endpoint->connects,
        .breaks = endpoint->breaks,
        .failures = endpoint->failures,
    };
    client_unlock(client);
    return counts;
}

int cloche_client_endpoint(struct cloche_client *client, size_t index,
                           struct cloche_endpoint_counts *ret, size_t size)
{
    if (index >= client->endpoints_count)
        return -ENOENT;
    const struct cloche_endpoint_counts counts = count_endpoint(client, index);
    give(ret, size, &counts, sizeof(counts));
    return 0;
}

/* ---- as text ---- */

static const struct number {
    const char *name, *json, *type, *help;
    size_t offset;
} numbers[] = {
    {"busy", "busy", "gauge", "Calls on their way to the endpoint.",
     offsetof(struct cloche_endpoint_counts, busy)},
    {"connections", "connections", "gauge", "Open connections.",
     offsetof(struct cloche_endpoint_counts, connections)},
    {"sent", "calls", "counter", "Calls sent to the endpoint.",
     offsetof(struct cloche_endpoint_counts, calls)},
    {"connects", "connects", "counter", "Connections made.",
     offsetof(struct cloche_endpoint_counts, connects)},
    {"breaks", "breaks", "counter", "Times that the endpoint was taken out.",
     offsetof(struct cloche_endpoint_counts, breaks)},
    {"failures", "failures", "gauge", "Failures in a row.",
     offsetof(struct cloche_endpoint_counts, failures)},
};

static uint64_t number_of(const struct cloche_endpoint_counts *counts, const struct number *number)
{
    uint64_t value;

    memcpy(&value, (const char *)counts + number->offset, sizeof(value));
    return value;
}

static void write_endpoint(struct cloche_client *client, size_t index, struct json_writer *writer)
{
    const struct cloche_endpoint_counts counts = count_endpoint(client, index);

    json_writer_object_begin(writer);
    json_writer_key(writer, "endpoint");
    json_writer_string(writer, client->endpoints[index].name);
    json_writer_key(writer, "state");
    json_writer_string(writer, state_names[counts.state]);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        json_writer_key(writer, numbers[i].json);
        json_writer_unsigned(writer, number_of(&counts, &numbers[i]));
    }
    client_lock(client);
    if (client->endpoints[index].why[0]) {
        json_writer_key(writer, "lastBreak");
        json_writer_string(writer, client->endpoints[index].why);
    }
    client_unlock(client);
    json_writer_object_end(writer);
}

static void write_json(struct cloche_client *client, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    rpc_metrics_write_json(&client->metrics, &writer);
    json_writer_key(&writer, "endpoints");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < client->endpoints_count; i++)
        write_endpoint(client, i, &writer);
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
}

static void write_text(struct cloche_client *client, struct buffer *out)
{
    const struct rpc_metrics_series all = {.labels = "", .metrics = &client->metrics};
    char name[64];

    rpc_metrics_write_text(out, PREFIX, &all, 1);
    rpc_metrics_write_family(out, PREFIX "_endpoint_in", "gauge",
                             "Whether the endpoint takes calls.");
    for (size_t k = 0; k < client->endpoints_count; k++) {
        _cleanup_buffer_ struct buffer label = BUFFER_INIT;
        rpc_metrics_write_label(&label, "endpoint", client->endpoints[k].name);
        rpc_metrics_write_sample(out, PREFIX "_endpoint_in", "gauge", buffer_text(&label),
                                 count_endpoint(client, k).state == CLOCHE_ENDPOINT_IN);
    }
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        snprintf(name, sizeof(name), PREFIX "_endpoint_%s", numbers[i].name);
        rpc_metrics_write_family(out, name, numbers[i].type, numbers[i].help);
        for (size_t k = 0; k < client->endpoints_count; k++) {
            const struct cloche_endpoint_counts counts = count_endpoint(client, k);
            _cleanup_buffer_ struct buffer label = BUFFER_INIT;
            rpc_metrics_write_label(&label, "endpoint", client->endpoints[k].name);
            rpc_metrics_write_sample(out, name, numbers[i].type, buffer_text(&label),
                                     number_of(&counts, &numbers[i]));
        }
    }
    buffer_append_text(out, "# EOF\n");
}

char *cloche_client_metrics(struct cloche_client *client, enum cloche_metrics_format format)
{
    struct buffer out = BUFFER_INIT;

    if (format == CLOCHE_METRICS_OPEN)
        write_text(client, &out);
    else
        write_json(client, &out);
    return buffer_steal(&out);
}
