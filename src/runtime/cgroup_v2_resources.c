#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "cgroup_resources.h"

enum { CONTROLLERS_MAX = 4096, PERIOD_DEFAULT_US = 100000 /* sched-bwc.rst */ };

static int not_here(const char *field, struct error *err)
{
    return error_set(err, -ENOTSUP, "linux.resources.%s is not on cgroup v2", field);
}

static int apply_swap(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    static const char file[] = "memory.swap.max";
    int64_t swap;
    int r = cgroup_swap_limit(memory, &swap, err);

    if (r < 0 || swap == -2)
        return r;
    /* A kernel without swap accounting has no file; no swap to be used is then what it does. */
    if (swap <= 0 && !resource_file_exists(cgroup, "memory", file))
        return 0;
    return resource_write_number(cgroup, "memory", file, "memory.swap", swap, err);
}

/* memory.kernel and kernelTCP are not applied: v2 counts kernel memory with the rest. */
static int apply_memory(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    uint64_t usage;
    int r = 0;

    if (memory->has_swappiness && memory->swappiness != UINT64_MAX)
        return not_here("memory.swappiness", err);
    if (memory->disable_oom_killer)
        return not_here("memory.disableOOMKiller", err);
    if (memory->check_before_update &&
        cgroup_read_number(cgroup->hierarchies[0].fd, "memory.current", &usage) == 0)
        r = resource_check_usage(memory, usage, err);
    if (r == 0)
        r = apply_swap(cgroup, memory, err);
    if (r == 0 && memory->has_limit && memory->limit != 0)
        r = resource_write_number(cgroup, "memory", "memory.max", "memory.limit", memory->limit,
                                  err);
    if (r == 0 && memory->has_reservation && memory->reservation != 0)
        r = resource_write_number(cgroup, "memory", "memory.low", "memory.reservation",
                                  memory->reservation, err);
    return r;
}

static int write_bandwidth(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    char amount[24] = "max", text[64];
    bool quota = cpu->has_quota && cpu->quota, period = cpu->has_period && cpu->period;

    if (!quota && !period)
        return 0;
    if (quota && cpu->quota > 0)
        snprintf(amount, sizeof(amount), "%" PRId64, cgroup_cpu_quota(cgroup, cpu));
    snprintf(text, sizeof(text), "%s %" PRIu64, amount, period ? cpu->period : PERIOD_DEFAULT_US);
    return resource_write(cgroup, "cpu", "cpu.max", quota ? "cpu.quota" : "cpu.period", text, err);
}

/* A burst may not exceed the quota: what is too early is tried again behind it. */
static int apply_bandwidth(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    static const char file[] = "cpu.max.burst";
    bool again = false;
    int r = 0;

    if (cpu->has_burst && (cpu->burst || resource_file_exists(cgroup, "cpu", file)))
        r = resource_write_number(cgroup, "cpu", file, "cpu.burst", (int64_t)cpu->burst, err);
    if (r == -EINVAL && cpu->has_quota && cpu->quota) {
        error_finish(err);
        again = true;
        r = 0;
    }
    if (r == 0)
        r = write_bandwidth(cgroup, cpu, err);
    if (r == 0 && again)
        r = resource_write_number(cgroup, "cpu", file, "cpu.burst", (int64_t)cpu->burst, err);
    return r;
}

/* The kernel refuses a weight for a cgroup that is idle. systemd, to which that is a weight, too,
 * takes another one for the end of it. */
static int end_idleness(struct cgroup *cgroup, struct error *err)
{
    char text[8];

    if (!cgroup->unit ||
        cgroup_read_line(cgroup->hierarchies[0].fd, "cpu.idle", text, sizeof(text)) < 0 ||
        !text_equal(text, "1"))
        return 0;
    return resource_write(cgroup, "cpu", "cpu.idle", "cpu.idle", "0", err);
}

static int apply_weight(struct cgroup *cgroup, uint64_t shares, struct error *err)
{
    int r = end_idleness(cgroup, err);

    return r < 0 ? r
                 : resource_write_number(cgroup, "cpu", "cpu.weight", "cpu.shares",
                                         (int64_t)cgroup_weight_from_shares(shares), err);
}

static int apply_cpu(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    bool idle = cpu->has_idle && cpu->idle == 1;
    int r = 0;

    if (cpu->has_realtime_runtime && cpu->realtime_runtime)
        return not_here("cpu.realtimeRuntime", err);
    if (cpu->has_realtime_period && cpu->realtime_period)
        return not_here("cpu.realtimePeriod", err);
    if (cpu->has_idle)
        r = resource_write_number(cgroup, "cpu", "cpu.idle", "cpu.idle", cpu->idle, err);
    if (r == 0 && cpu->has_shares && cpu->shares && !idle)
        r = apply_weight(cgroup, cpu->shares, err);
    if (r == 0)
        r = apply_bandwidth(cgroup, cpu, err);
    if (r == 0 && !text_empty(cpu->cpus))
        r = resource_write(cgroup, "cpuset", "cpuset.cpus", "cpu.cpus", cpu->cpus, err);
    if (r == 0 && !text_empty(cpu->mems))
        r = resource_write(cgroup, "cpuset", "cpuset.mems", "cpu.mems", cpu->mems, err);
    return r;
}

static int apply_throttles(struct cgroup *cgroup, const struct throttle_list *list,
                           struct error *err)
{
    _cleanup_free_ char *field = xasprintf("blockIO.%s", list->field);
    int r = 0;

    for (size_t i = 0; r == 0 && i < list->count; i++) {
        const struct oci_throttle_device *device = list->devices[i];
        char rate[24] = "max"; /* 0 lifts the limit, as on v1 */
        if (device->rate)
            snprintf(rate, sizeof(rate), "%" PRIu64, device->rate);
        _cleanup_free_ char *text = xasprintf("%" PRId64 ":%" PRId64 " %s=%s", device->major,
                                              device->minor, list->v2_key, rate);
        r = resource_write(cgroup, "io", "io.max", field, text, err);
    }
    return r;
}

/* BFQ's weights have the range of v1's, those of io.cost another one. */
static int apply_weights(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    bool bfq = resource_file_exists(cgroup, "io", "io.bfq.weight");
    const char *file = bfq ? "io.bfq.weight" : "io.weight";
    int r = 0;

    if (io->has_leaf_weight && io->leaf_weight)
        return not_here("blockIO.leafWeight", err);
    if (io->has_weight && io->weight)
        r = resource_write_number(
            cgroup, "io", file, "blockIO.weight",
            (int64_t)(bfq ? io->weight : cgroup_io_weight_from_blkio(io->weight)), err);
    for (size_t i = 0; r == 0 && i < io->weight_device_count; i++) {
        const struct oci_weight_device *device = io->weight_device[i];
        if (device->has_leaf_weight && device->leaf_weight)
            return not_here("blockIO.weightDevice.leafWeight", err);
        if (!device->has_weight || !device->weight)
            continue;
        _cleanup_free_ char *text =
            xasprintf("%" PRId64 ":%" PRId64 " %" PRIu64, device->major, device->minor,
                      bfq ? (uint64_t)device->weight : cgroup_io_weight_from_blkio(device->weight));
        r = resource_write(cgroup, "io", file, "blockIO.weightDevice", text, err);
    }
    return r;
}

static int apply_block_io(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    struct throttle_list lists[THROTTLE_LISTS];
    int r = apply_weights(cgroup, io, err);

    resource_throttle_lists(io, lists);
    for (size_t i = 0; r == 0 && i < THROTTLE_LISTS; i++)
        r = apply_throttles(cgroup, &lists[i], err);
    return r;
}

static int check_unified_key(struct cgroup *cgroup, const char *key, struct error *err)
{
    char text[CONTROLLERS_MAX];
    _cleanup_strv_ char **controllers = NULL;
    const char *dot = strchr(key, '.');

    if (!dot || dot == key || !dot[1] || strchr(key, '/'))
        return error_set(err, -EINVAL, "the specified key has not the form CONTROLLER.VALUE `%s`",
                         key);
    _cleanup_free_ char *controller = xstrndup(key, (size_t)(dot - key));
    /* These are not limits: they move, stop or end processes, or hand the cgroup on. */
    if (text_equal(controller, "cgroup") && !text_starts_with(key, "cgroup.max."))
        return error_set(err, -EINVAL, "'%s' is no limit", key);
    if (text_equal(controller, "cgroup") ||
        cgroup_read_line(cgroup->hierarchies[0].fd, "cgroup.controllers", text, sizeof(text)) < 0)
        return 0;
    controllers = strv_split(text, ' ');
    return strv_contains(controllers, controller)
               ? 0
               : error_set(err, -ENOENT, "the requested cgroup controller `%s` is not available",
                           controller);
}

/* A file with a line for each device takes one line at a time. */
static int apply_unified(struct cgroup *cgroup, const struct json_string_map *unified,
                         struct error *err)
{
    bool idle = unified && text_equal(json_string_map_get(unified, "cpu.idle"), "1");
    int r = 0;

    for (size_t i = 0; unified && r == 0 && i < unified->count; i++) {
        _cleanup_strv_ char **lines = strv_split(unified->values[i], '\n');
        bool weight = text_equal(unified->keys[i], "cpu.weight");
        if (weight && idle)
            continue;
        r = check_unified_key(cgroup, unified->keys[i], err);
        if (r == 0 && weight)
            r = end_idleness(cgroup, err);
        for (size_t k = 0; r == 0 && lines && lines[k]; k++) {
            if (lines[k][0] || k == 0)
                r = cgroup_write(&cgroup->hierarchies[0], unified->keys[i], lines[k], err);
        }
    }
    if (r < 0)
        error_context(err, "linux.resources.unified");
    return r;
}

int cgroup_v2_apply(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err)
{
    const struct oci_network *network = resources->network;
    int r = 0;

    if (network && ((network->has_class_id && network->class_id) || network->priorities_count))
        return not_here("network", err);
    if (resources->memory)
        r = apply_memory(cgroup, resources->memory, err);
    if (r == 0 && resources->cpu)
        r = apply_cpu(cgroup, resources->cpu, err);
    if (r == 0)
        r = resource_write_pids(cgroup, resources->pids, err);
    if (r == 0 && resources->block_io)
        r = apply_block_io(cgroup, resources->block_io, err);
    if (r == 0)
        r = resource_write_hugepages(cgroup, resources, "max", err);
    if (r == 0)
        r = resource_write_rdma(cgroup, resources->rdma, err);
    if (r == 0)
        r = apply_unified(cgroup, resources->unified, err);
    return r;
}

int cgroup_v2_set_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                          bool live, struct error *err)
{
    return cgroup_bpf_attach_devices(cgroup->hierarchies[0].fd, rules, count, live, err);
}
