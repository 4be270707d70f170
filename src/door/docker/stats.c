/*
 * GET /containers/ID/stats: one document, or one a second. Each has the numbers of a second ago
 * beside its own, for clients to see rates.
 */
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/management.h>

#include "../fields.h"
#include "handlers.h"

#define NEVER "0001-01-01T00:00:00Z"
#define NS_PER_SECOND 1000000000ULL

struct stats {
    char *container; /* owned */
    bool stream, one_shot;
    bool has_before;
    int64_t time; /* of before */
    uint64_t system, total, kernel, user;
    uint32_t cpus;
};

static void stats_free(void *data)
{
    struct stats *stats = data;

    free(stats->container);
    free(stats);
}

/* ---- the document */

static void write_cpu(struct json_writer *writer, const char *key, const struct stats *numbers,
                      const struct api_cpu_statistics *cpu)
{
    field_object_begin(writer, key);
    field_object_begin(writer, "cpu_usage");
    field_unsigned(writer, "total_usage", numbers->total);
    if (cpu && cpu->percpu_usage_count) {
        json_writer_key(writer, "percpu_usage");
        json_writer_array_begin(writer);
        for (size_t i = 0; i < cpu->percpu_usage_count; i++)
            json_writer_unsigned(writer, cpu->percpu_usage[i]);
        json_writer_array_end(writer);
    }
    field_unsigned(writer, "usage_in_kernelmode", numbers->kernel);
    field_unsigned(writer, "usage_in_usermode", numbers->user);
    json_writer_object_end(writer);
    if (numbers->system)
        field_unsigned(writer, "system_cpu_usage", numbers->system);
    if (numbers->cpus)
        field_unsigned(writer, "online_cpus", numbers->cpus);
    field_object_begin(writer, "throttling_data");
    field_unsigned(writer, "periods", cpu ? cpu->periods : 0);
    field_unsigned(writer, "throttled_periods", cpu ? cpu->throttled_periods : 0);
    field_unsigned(writer, "throttled_time", cpu ? cpu->throttled_time : 0);
    json_writer_object_end(writer);
    json_writer_object_end(writer);
}

static void write_memory(struct json_writer *writer, const struct api_memory_statistics *memory)
{
    bool has_inactive = false;

    field_object_begin(writer, "memory_stats");
    if (memory) {
        field_unsigned(writer, "usage", memory->usage);
        if (memory->has_max_usage)
            field_unsigned(writer, "max_usage", memory->max_usage);
        field_object_begin(writer, "stats");
        for (size_t i = 0; i < memory->stats_count; i++) {
            has_inactive |= text_equal(memory->stats[i]->name, "total_inactive_file") ||
                            text_equal(memory->stats[i]->name, "inactive_file");
            field_unsigned(writer, memory->stats[i]->name, memory->stats[i]->value);
        }
        if (!has_inactive && memory->has_inactive_file)
            field_unsigned(writer, "inactive_file", memory->inactive_file);
        json_writer_object_end(writer);
        if (memory->has_fail_count)
            field_unsigned(writer, "failcnt", memory->fail_count);
        field_unsigned(writer, "limit", memory->limit);
    }
    json_writer_object_end(writer);
}

static void write_entries(struct json_writer *writer, const char *key,
                          struct api_blkio_entry *const *entries, size_t count)
{
    json_writer_key(writer, key);
    if (!count) {
        json_writer_null(writer);
        return;
    }
    json_writer_array_begin(writer);
    for (size_t i = 0; i < count; i++) {
        json_writer_object_begin(writer);
        field_unsigned(writer, "major", entries[i]->major);
        field_unsigned(writer, "minor", entries[i]->minor);
        field_text(writer, "op", entries[i]->operation);
        field_unsigned(writer, "value", entries[i]->value);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void write_block_io(struct json_writer *writer, const struct api_blkio_statistics *blkio)
{
    static const char *const unknown[] = {"io_queue_recursive",     "io_service_time_recursive",
                                          "io_wait_time_recursive", "io_merged_recursive",
                                          "io_time_recursive",      "sectors_recursive"};
    static const struct api_blkio_statistics none;

    blkio = blkio ? blkio : &none;
    field_object_begin(writer, "blkio_stats");
    write_entries(writer, "io_service_bytes_recursive", blkio->service_bytes,
                  blkio->service_bytes_count);
    write_entries(writer, "io_serviced_recursive", blkio->serviced, blkio->serviced_count);
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
        field_null(writer, unknown[i]);
    json_writer_object_end(writer);
}

static void write_networks(struct json_writer *writer, const struct api_container_statistics *from)
{
    if (!from->networks)
        return;
    field_object_begin(writer, "networks");
    for (size_t i = 0; i < from->networks_count; i++) {
        const struct api_network_statistics *network = from->networks[i];
        field_object_begin(writer, network->name);
        field_unsigned(writer, "rx_bytes", network->rx_bytes);
        field_unsigned(writer, "rx_packets", network->rx_packets);
        field_unsigned(writer, "rx_errors", network->rx_errors);
        field_unsigned(writer, "rx_dropped", network->rx_dropped);
        field_unsigned(writer, "tx_bytes", network->tx_bytes);
        field_unsigned(writer, "tx_packets", network->tx_packets);
        field_unsigned(writer, "tx_errors", network->tx_errors);
        field_unsigned(writer, "tx_dropped", network->tx_dropped);
        json_writer_object_end(writer);
    }
    json_writer_object_end(writer);
}

static void write_pids(struct json_writer *writer, const struct api_pids_statistics *pids)
{
    field_object_begin(writer, "pids_stats");
    if (pids) {
        field_unsigned(writer, "current", pids->current);
        if (pids->has_limit)
            field_unsigned(writer, "limit", pids->limit);
    }
    json_writer_object_end(writer);
}

static void write_stats(const struct stats *before, const struct stats *now,
                        const struct api_container_statistics *from, struct buffer *out)
{
    _cleanup_free_ char *read = clock_format(now->time);
    _cleanup_free_ char *pre = before->has_before ? clock_format(before->time) : xstrdup(NEVER);
    _cleanup_free_ char *name = xasprintf("/%s", from->name);
    struct json_writer document, *writer = &document;

    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    field_text(writer, "read", from->cpu ? read : NEVER);
    field_text(writer, "preread", pre);
    write_pids(writer, from->pids);
    write_block_io(writer, from->blkio);
    field_integer(writer, "num_procs", 0);
    field_object_begin(writer, "storage_stats");
    json_writer_object_end(writer);
    write_cpu(writer, "cpu_stats", now, from->cpu);
    write_cpu(writer, "precpu_stats", before, NULL);
    write_memory(writer, from->memory);
    field_text(writer, "name", name);
    field_text(writer, "id", from->id);
    write_networks(writer, from);
    json_writer_object_end(writer);
}

/* ---- one after the other */

static void ask(struct exchange *exchange);
static void wait_a_second(struct exchange *exchange);

static void on_second(struct rpc_timer *timer)
{
    struct exchange *exchange =
        (struct exchange *)((char *)timer - offsetof(struct exchange, timer));

    if (connection_is_behind(exchange->connection))
        wait_a_second(exchange); /* who does not read is told no more */
    else
        ask(exchange);
}

static void wait_a_second(struct exchange *exchange)
{
    struct rpc_loop *loop = connection_loop(exchange->connection);

    exchange->timer.callback = on_second;
    rpc_loop_set_timer(loop, &exchange->timer, rpc_loop_now(loop) + NS_PER_SECOND);
}

static void take_numbers(struct stats *stats, const struct api_statistics *from)
{
    const struct api_cpu_statistics *cpu = from->containers[0]->cpu;

    stats->has_before = true;
    stats->time = from->time;
    stats->system = from->system_usage;
    stats->cpus = from->online_cpus;
    stats->total = cpu ? cpu->total_usage : 0;
    stats->kernel = cpu ? cpu->kernel_usage : 0;
    stats->user = cpu ? cpu->user_usage : 0;
}

static void on_stats(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_statistics *from = outcome->result;
    struct stats *stats = exchange->state, before = *stats;
    struct buffer out = BUFFER_INIT;

    if (outcome->code < 0 && exchange->begun) {
        if (outcome->fault == RPC_NOT_FOUND) /* it was removed */
            answer_end(exchange);
        else
            answer_break(exchange);
        return;
    }
    if (outcome->code < 0 || from->containers_count != 1) {
        call_answer_error(exchange, outcome);
        return;
    }
    bool runs = from->containers[0]->cpu != NULL;
    take_numbers(stats, from);
    if (!stats->stream && !stats->one_shot && !before.has_before && runs) {
        wait_a_second(exchange); /* the first has no rates */
        return;
    }
    write_stats(&before, stats, from->containers[0], &out);
    if (!stats->stream) {
        answer_json(exchange, 200, &out);
        return;
    }
    buffer_append_char(&out, '\n');
    answer_begin(exchange, 200, "application/json");
    answer_data(exchange, out.data, out.length);
    buffer_finish(&out);
    wait_a_second(exchange);
}

static void ask(struct exchange *exchange)
{
    struct stats *stats = exchange->state;
    const struct api_container_stats which = {.containers = (char *[]){stats->container, NULL},
                                              .containers_count = 1,
                                              .all = true,
                                              .has_all = true};

    call(exchange, "container.stats", &which, on_stats, &(struct call_options){.errors = true});
}

void docker_container_stats(struct exchange *exchange)
{
    struct stats *stats = xnew(struct stats);
    const char *stream = target_text(&exchange->target, "stream");

    exchange_set_state(exchange, stats, stats_free);
    stats->container = xstrdup(exchange->words[0]);
    stats->stream = !stream || target_flag(&exchange->target, "stream");
    stats->one_shot = target_flag(&exchange->target, "one-shot");
    ask(exchange);
}
