/*
 * Limits, of `run`, `create` and `update`.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

static int parse_swap(const char *text, void *value, struct error *err)
{
    uint64_t bytes;

    if (text_equal(text, "-1")) {
        *(int64_t *)value = -1;
        return 0;
    }
    if (text_to_size(text, &bytes) < 0 || bytes > INT64_MAX)
        return error_set(err, -EINVAL, "invalid size: '%s'", text);
    *(int64_t *)value = (int64_t)bytes;
    return 0;
}

static int refuse_windows(const char *text, void *value, struct error *err)
{
    return error_set(err, -EOPNOTSUPP, "it is for Windows only");
}

const struct option resource_option_table[] = {
    {
        .name = "blkio-weight",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, blkio_weight),
        .argument = "uint16",
        .help = "Share of block I/O, 10 to 1000 (0: the usual one)",
        .minimum = 0,
        .maximum = 1000,
    },
    {
        .name = "blkio-weight-device",
        .kind = OPTION_LIST,
        .offset = offsetof(struct resource_options, blkio_weight_device),
        .argument = "list",
        .help = "The same for one device: PATH:WEIGHT",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "cpu-period",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, cpu_period),
        .argument = "int",
        .help = "Microseconds that --cpu-quota counts in",
        .minimum = 0,
        .maximum = INT64_MAX,
    },
    {
        .name = "cpu-quota",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, cpu_quota),
        .argument = "int",
        .help = "Microseconds it may run in each period (-1: no limit)",
        .minimum = -1,
        .maximum = INT64_MAX,
    },
    {
        .name = "cpu-rt-period",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, cpu_rt_period),
        .argument = "int",
        .help = "Microseconds that --cpu-rt-runtime counts in",
        .minimum = 0,
        .maximum = INT64_MAX,
    },
    {
        .name = "cpu-rt-runtime",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, cpu_rt_runtime),
        .argument = "int",
        .help = "Microseconds for real-time programs in each period",
        .minimum = 0,
        .maximum = INT64_MAX,
    },
    {
        .name = "cpu-shares",
        .short_name = 'c',
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, cpu_shares),
        .argument = "int",
        .help = "Share of the CPUs (1024 is the usual one)",
        .minimum = 0,
        .maximum = INT64_MAX,
    },
    {
        .name = "cpus",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, nano_cpus),
        .argument = "decimal",
        .help = "Number of CPUs it may use, with a fraction",
        .parse = spec_parse_cpus,
    },
    {
        .name = "cpuset-cpus",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct resource_options, cpuset_cpus),
        .argument = "string",
        .help = "CPUs it may run on, as in 0-3 or 0,1",
    },
    {
        .name = "cpuset-mems",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct resource_options, cpuset_mems),
        .argument = "string",
        .help = "Memory nodes it may use, as in 0-3 or 0,1",
    },
    {
        .name = "memory",
        .short_name = 'm',
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, memory),
        .argument = "bytes",
        .help = "Memory it may use, with b, k, m or g as unit",
        .parse = spec_parse_size,
    },
    {
        .name = "memory-reservation",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, memory_reservation),
        .argument = "bytes",
        .help = "Memory it is pushed back to when memory is short",
        .parse = spec_parse_size,
    },
    {
        .name = "memory-swap",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, memory_swap),
        .argument = "bytes",
        .help = "Memory and swap together (-1: no limit)",
        .parse = parse_swap,
    },
    {
        .name = "pids-limit",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, pids_limit),
        .argument = "int",
        .help = "Number of processes and threads it may have (-1: unlimited)",
        .minimum = -1,
        .maximum = INT64_MAX,
    },
    {.name = NULL},
};

const struct option resource_create_table[] = {
    {
        .name = "cpu-count",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, unused),
        .argument = "int",
        .help = "Refused: for Windows only",
        .parse = refuse_windows,
    },
    {
        .name = "cpu-percent",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, unused),
        .argument = "int",
        .help = "Refused: for Windows only",
        .parse = refuse_windows,
    },
    {
        .name = "device-read-bps",
        .kind = OPTION_LIST,
        .offset = offsetof(struct resource_options, read_bps),
        .argument = "list",
        .help = "Bytes a second to be read from a device: PATH:RATE",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "device-read-iops",
        .kind = OPTION_LIST,
        .offset = offsetof(struct resource_options, read_iops),
        .argument = "list",
        .help = "Reads a second from a device: PATH:RATE",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "device-write-bps",
        .kind = OPTION_LIST,
        .offset = offsetof(struct resource_options, write_bps),
        .argument = "list",
        .help = "Bytes a second to be written to a device: PATH:RATE",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "device-write-iops",
        .kind = OPTION_LIST,
        .offset = offsetof(struct resource_options, write_iops),
        .argument = "list",
        .help = "Writes a second to a device: PATH:RATE",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "io-maxbandwidth",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, unused),
        .argument = "bytes",
        .help = "Refused: for Windows only",
        .parse = refuse_windows,
    },
    {
        .name = "io-maxiops",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, unused),
        .argument = "uint",
        .help = "Refused: for Windows only",
        .parse = refuse_windows,
    },
    {
        .name = "kernel-memory",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct resource_options, kernel_memory),
        .argument = "bytes",
        .help = "Of no effect: kernels have no such limit any more",
        .parse = spec_parse_size,
    },
    {
        .name = "memory-swappiness",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct resource_options, memory_swappiness),
        .argument = "int",
        .help = "How readily it is swapped out, 0 to 100 (-1: the usual)",
        .minimum = -1,
        .maximum = 100,
    },
    {
        .name = "oom-kill-disable",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct resource_options, oom_kill_disable),
        .help = "Let it wait when its memory is used up (cgroups v1)",
    },
    {.name = NULL},
};

/* ---- devices with a number behind a colon */

static int split_device(const char *text, bool bytes, char **ret_path, uint64_t *ret_value,
                        struct error *err)
{
    const char *colon = strrchr(text, ':');
    uint64_t value = 0;

    if (!colon || colon == text)
        return error_set(err, -EINVAL, "bad format: %s", text);
    if (text[0] != '/')
        return error_set(err, -EINVAL, "bad format for device path: %s", text);
    if ((bytes ? text_to_size(colon + 1, &value) : text_to_u64(colon + 1, 0, INT64_MAX, &value)) <
        0)
        return error_set(err, -EINVAL, "invalid rate for device: %s", text);
    *ret_path = xstrndup(text, (size_t)(colon - text));
    *ret_value = value;
    return 0;
}

static int build_throttles(char *const *words, bool bytes, struct api_throttle_device ***list,
                           size_t *count, struct error *err)
{
    for (; words && *words; words++) {
        _cleanup_free_ char *path = NULL;
        uint64_t rate;
        int r = split_device(*words, bytes, &path, &rate, err);
        if (r < 0)
            return r;
        struct api_throttle_device *device = xnew(struct api_throttle_device);
        device->path = steal_ptr(path);
        device->rate = rate;
        *list = xrealloc(*list, *count + 1, sizeof(**list));
        (*list)[(*count)++] = device;
    }
    return 0;
}

static int build_weights(char *const *words, struct api_resources *resources, struct error *err)
{
    for (; words && *words; words++) {
        _cleanup_free_ char *path = NULL;
        uint64_t weight;
        int r = split_device(*words, false, &path, &weight, err);
        if (r < 0)
            return r;
        if (weight > UINT16_MAX)
            return error_set(err, -EINVAL, "invalid weight for device: %s", *words);
        struct api_weight_device *device = xnew(struct api_weight_device);
        device->path = steal_ptr(path);
        device->weight = (uint16_t)weight;
        resources->blkio_weight_device =
            xrealloc(resources->blkio_weight_device, resources->blkio_weight_device_count + 1,
                     sizeof(*resources->blkio_weight_device));
        resources->blkio_weight_device[resources->blkio_weight_device_count++] = device;
    }
    return 0;
}

static int build_devices(const struct resource_options *options, struct api_resources *resources,
                         struct error *err)
{
    int r = build_weights(options->blkio_weight_device, resources, err);

    if (r >= 0)
        r = build_throttles(options->read_bps, true, &resources->blkio_device_read_bps,
                            &resources->blkio_device_read_bps_count, err);
    if (r >= 0)
        r = build_throttles(options->write_bps, true, &resources->blkio_device_write_bps,
                            &resources->blkio_device_write_bps_count, err);
    if (r >= 0)
        r = build_throttles(options->read_iops, false, &resources->blkio_device_read_iops,
                            &resources->blkio_device_read_iops_count, err);
    if (r >= 0)
        r = build_throttles(options->write_iops, false, &resources->blkio_device_write_iops,
                            &resources->blkio_device_write_iops_count, err);
    return r;
}

/* ---- plain numbers */

static void build_memory(const struct resource_options *options, struct api_resources *resources)
{
    resources->memory = options->memory;
    resources->has_memory = options->memory != 0;
    resources->kernel_memory = options->kernel_memory;
    resources->has_kernel_memory = options->kernel_memory != 0;
    resources->memory_reservation = options->memory_reservation;
    resources->has_memory_reservation = options->memory_reservation != 0;
    resources->memory_swap = options->memory_swap;
    resources->has_memory_swap = options->memory_swap != 0;
    resources->memory_swappiness = options->memory_swappiness.value;
    resources->has_memory_swappiness = options->memory_swappiness.set;
    resources->oom_kill_disable = resources->has_oom_kill_disable = options->oom_kill_disable;
    resources->pids_limit = options->pids_limit.value;
    resources->has_pids_limit = options->pids_limit.set;
    resources->blkio_weight = (uint16_t)options->blkio_weight.value;
    resources->has_blkio_weight = options->blkio_weight.set;
}

static void build_cpu(const struct resource_options *options, struct api_resources *resources)
{
    resources->nano_cpus = options->nano_cpus;
    resources->has_nano_cpus = options->nano_cpus != 0;
    resources->cpu_shares = (uint64_t)options->cpu_shares.value;
    resources->has_cpu_shares = options->cpu_shares.set;
    resources->cpu_period = (uint64_t)options->cpu_period.value;
    resources->has_cpu_period = options->cpu_period.set;
    resources->cpu_quota = options->cpu_quota.value;
    resources->has_cpu_quota = options->cpu_quota.set;
    resources->cpu_realtime_period = (uint64_t)options->cpu_rt_period.value;
    resources->has_cpu_realtime_period = options->cpu_rt_period.set;
    resources->cpu_realtime_runtime = options->cpu_rt_runtime.value;
    resources->has_cpu_realtime_runtime = options->cpu_rt_runtime.set;
    resources->cpuset_cpus = xstrdup(options->cpuset_cpus);
    resources->cpuset_mems = xstrdup(options->cpuset_mems);
}

int resources_build(const struct resource_options *options, struct api_resources **ret,
                    struct error *err)
{
    _cleanup_api_resources_ struct api_resources *resources = xnew(struct api_resources);

    int r = build_devices(options, resources, err);
    if (r < 0)
        return r;
    build_memory(options, resources);
    build_cpu(options, resources);
    *ret = steal_ptr(resources);
    return 0;
}
