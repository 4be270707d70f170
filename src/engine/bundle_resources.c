/*
 * Limits, from docker's words to those of the runtime specification.
 */
#include <base/text.h>

#include "bundle_internal.h"

#define CPU_PERIOD UINT64_C(100000) /* microseconds */
#define NANO UINT64_C(1000000000)

static void put_unsigned(struct json_writer *writer, const char *key, uint64_t value)
{
    json_writer_key(writer, key);
    json_writer_unsigned(writer, value);
}

/* As much swap as memory where nothing is said, docker's default. */
static int64_t swap_of(const struct api_resources *resources)
{
    if (resources->memory_swap)
        return resources->memory_swap;
    return (int64_t)resources->memory * 2;
}

static void put_memory(struct json_writer *writer, const struct api_resources *resources)
{
    begin_object(writer, "memory");
    if (resources->memory) {
        put_unsigned(writer, "limit", resources->memory);
        put_integer(writer, "swap", swap_of(resources));
    }
    if (resources->memory_reservation)
        put_unsigned(writer, "reservation", resources->memory_reservation);
    if (resources->has_memory_swappiness && resources->memory_swappiness >= 0)
        put_integer(writer, "swappiness", resources->memory_swappiness);
    if (resources->oom_kill_disable)
        put_boolean(writer, "disableOOMKiller", true);
    json_writer_object_end(writer);
}

static void put_cpu_times(struct json_writer *writer, const struct api_resources *resources)
{
    if (resources->nano_cpus) {
        put_unsigned(writer, "period", CPU_PERIOD);
        put_unsigned(writer, "quota", resources->nano_cpus / 1000 * CPU_PERIOD / (NANO / 1000));
        return;
    }
    if (resources->cpu_period)
        put_unsigned(writer, "period", resources->cpu_period);
    if (resources->cpu_quota)
        put_integer(writer, "quota", resources->cpu_quota);
}

static void put_cpu(struct json_writer *writer, const struct api_resources *resources)
{
    begin_object(writer, "cpu");
    if (resources->cpu_shares)
        put_unsigned(writer, "shares", resources->cpu_shares);
    put_cpu_times(writer, resources);
    if (resources->cpu_realtime_period)
        put_unsigned(writer, "realtimePeriod", resources->cpu_realtime_period);
    if (resources->cpu_realtime_runtime)
        put_integer(writer, "realtimeRuntime", resources->cpu_realtime_runtime);
    if (!text_empty(resources->cpuset_cpus))
        put_string(writer, "cpus", resources->cpuset_cpus);
    if (!text_empty(resources->cpuset_mems))
        put_string(writer, "mems", resources->cpuset_mems);
    json_writer_object_end(writer);
}

static const char *const limit_names[] = {
    [BUNDLE_WEIGHT] = "weightDevice",
    [BUNDLE_READ_BPS] = "throttleReadBpsDevice",
    [BUNDLE_WRITE_BPS] = "throttleWriteBpsDevice",
    [BUNDLE_READ_IOPS] = "throttleReadIOPSDevice",
    [BUNDLE_WRITE_IOPS] = "throttleWriteIOPSDevice",
};

static void put_limits_of(struct json_writer *writer, enum bundle_limit_kind kind,
                          const struct bundle_limit *limits, size_t count)
{
    bool begun = false;

    for (size_t i = 0; i < count; i++) {
        if (limits[i].kind != kind)
            continue;
        if (!begun)
            begin_array(writer, limit_names[kind]);
        begun = true;
        json_writer_object_begin(writer);
        put_integer(writer, "major", limits[i].major);
        put_integer(writer, "minor", limits[i].minor);
        put_unsigned(writer, kind == BUNDLE_WEIGHT ? "weight" : "rate", limits[i].value);
        json_writer_object_end(writer);
    }
    if (begun)
        json_writer_array_end(writer);
}

static void put_block_io(struct json_writer *writer, const struct api_resources *resources,
                         const struct bundle_limit *limits, size_t count)
{
    begin_object(writer, "blockIO");
    if (resources->blkio_weight)
        put_integer(writer, "weight", resources->blkio_weight);
    for (size_t i = 0; i < ARRAY_SIZE(limit_names); i++)
        put_limits_of(writer, (enum bundle_limit_kind)i, limits, count);
    json_writer_object_end(writer);
}

void bundle_put_limits(struct json_writer *writer, const struct api_resources *resources,
                       const struct bundle_limit *limits, size_t limits_count)
{
    put_memory(writer, resources);
    put_cpu(writer, resources);
    if (resources->blkio_weight || limits_count)
        put_block_io(writer, resources, limits, limits_count);
    if (resources->pids_limit) {
        begin_object(writer, "pids");
        put_integer(writer, "limit", resources->pids_limit > 0 ? resources->pids_limit : -1);
        json_writer_object_end(writer);
    }
}

void bundle_write_limits(const struct api_resources *resources, const struct bundle_limit *limits,
                         size_t limits_count, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    bundle_put_limits(&writer, resources, limits, limits_count);
    json_writer_object_end(&writer);
}

bool bundle_has_limits(const struct api_resources *resources, const struct bundle_limit *limits,
                       size_t limits_count)
{
    static const struct api_resources none = {0};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT, empty = BUFFER_INIT;

    bundle_write_limits(resources, limits, limits_count, &text);
    bundle_write_limits(&none, NULL, 0, &empty);
    return !text_equal(buffer_text(&text), buffer_text(&empty));
}
