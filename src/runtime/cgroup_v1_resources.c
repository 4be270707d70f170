#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "cgroup_resources.h"

enum { SWAPPINESS_MAX = 100 };

static int explain_memory_limit(struct cgroup *cgroup, int r, int64_t limit, struct error *err)
{
    uint64_t usage = 0, peak = 0;
    const struct cgroup_hierarchy *memory = cgroup_hierarchy_find(cgroup, "memory");

    if (r != -EBUSY || !memory)
        return r;
    cgroup_read_number(memory->fd, "memory.usage_in_bytes", &usage);
    cgroup_read_number(memory->fd, "memory.max_usage_in_bytes", &peak);
    return error_set(err, r,
                     "linux.resources.memory.limit: unable to set memory limit to %" PRId64
                     " (current usage: %" PRIu64 ", peak usage: %" PRIu64 ")",
                     limit, usage, peak);
}

static int write_limit(struct cgroup *cgroup, int64_t limit, struct error *err)
{
    if (limit == 0)
        return 0;
    int r = resource_write_number(cgroup, "memory", "memory.limit_in_bytes", "memory.limit", limit,
                                  err);
    return explain_memory_limit(cgroup, r, limit, err);
}

static int write_swap(struct cgroup *cgroup, int64_t swap, struct error *err)
{
    static const char file[] = "memory.memsw.limit_in_bytes";

    /* Without swap accounting there is nothing to lift. */
    if (swap == 0 || (swap < 0 && !resource_file_exists(cgroup, "memory", file)))
        return 0;
    return resource_write_number(cgroup, "memory", file, "memory.swap", swap, err);
}

/* At every moment the limit on memory may not exceed that on memory and swap (memory.rst, 2.4). */
static int apply_memory_and_swap(struct cgroup *cgroup, const struct oci_memory *memory,
                                 struct error *err)
{
    int64_t limit = memory->has_limit ? memory->limit : 0;
    int64_t swap = memory->has_swap ? memory->swap : 0;
    struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, "memory");
    uint64_t now = UINT64_MAX;

    if (limit == -1 && swap == 0)
        swap = -1; /* no limit on memory asks for none on both */
    if (limit != 0 && swap != 0 && hierarchy)
        cgroup_read_number(hierarchy->fd, "memory.limit_in_bytes", &now);
    bool swap_first = swap == -1 || (swap > 0 && now < (uint64_t)swap);
    int r = swap_first ? write_swap(cgroup, swap, err) : 0;
    if (r == 0)
        r = write_limit(cgroup, limit, err);
    return r < 0 || swap_first ? r : write_swap(cgroup, swap, err);
}

static int check_usage(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    const struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, "memory");
    uint64_t usage;

    if (!memory->check_before_update || !hierarchy ||
        cgroup_read_number(hierarchy->fd, "memory.usage_in_bytes", &usage) < 0)
        return 0;
    return resource_check_usage(memory, usage, err);
}

/* memory.kernel is not applied: Linux 5.16 took its meaning away, and every runtime takes it as a
 * word of the past. */
static int apply_memory(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    int r = check_usage(cgroup, memory, err);

    if (r == 0)
        r = apply_memory_and_swap(cgroup, memory, err);
    if (r == 0 && memory->has_reservation && memory->reservation != 0)
        r = resource_write_number(cgroup, "memory", "memory.soft_limit_in_bytes",
                                  "memory.reservation", memory->reservation, err);
    if (r == 0 && memory->has_kernel_tcp && memory->kernel_tcp != 0)
        r = resource_write_number(cgroup, "memory", "memory.kmem.tcp.limit_in_bytes",
                                  "memory.kernelTCP", memory->kernel_tcp, err);
    if (r == 0 && memory->has_swappiness && memory->swappiness != UINT64_MAX) {
        if (memory->swappiness > SWAPPINESS_MAX)
            return error_set(err, -EINVAL,
                             "linux.resources.memory.swappiness: %" PRIu64
                             " is more than 100 (valid range is 0-100)",
                             memory->swappiness);
        r = resource_write_number(cgroup, "memory", "memory.swappiness", "memory.swappiness",
                                  (int64_t)memory->swappiness, err);
    }
    if (r == 0 && memory->disable_oom_killer)
        r = resource_write_number(cgroup, "memory", "memory.oom_control", "memory.disableOOMKiller",
                                  1, err);
    if (r == 0 && memory->use_hierarchy) /* always so since Linux 5.11 */
        r = resource_write_number(cgroup, "memory", "memory.use_hierarchy", "memory.useHierarchy",
                                  1, err);
    return r;
}

/* The kernel moves a value outside of its range to the end of the range and says nothing. */
static int apply_shares(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    uint64_t effective;

    if (!cpu->has_shares || !cpu->shares)
        return 0;
    int r =
        resource_write_number(cgroup, "cpu", "cpu.shares", "cpu.shares", (int64_t)cpu->shares, err);
    if (r < 0)
        return r;
    r = cgroup_read_number(cgroup_hierarchy_find(cgroup, "cpu")->fd, "cpu.shares", &effective);
    if (r < 0)
        return error_errno(err, -r, "linux.resources.cpu.shares: read it back");
    if (effective == cpu->shares)
        return 0;
    return error_set(err, -ERANGE,
                     "linux.resources.cpu.shares: the %s allowed cpu-shares is %" PRIu64,
                     cpu->shares > effective ? "maximum" : "minimum", effective);
}

static int apply_cpu(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    const struct resource_number bandwidth[] = {
        {cpu->has_period && cpu->period, "cpu.cfs_period_us", "cpu.period", (int64_t)cpu->period},
        {cpu->has_burst && (cpu->burst || resource_file_exists(cgroup, "cpu", "cpu.cfs_burst_us")),
         "cpu.cfs_burst_us", "cpu.burst", (int64_t)cpu->burst},
    };
    const struct resource_number quota = {cpu->has_quota && cpu->quota, "cpu.cfs_quota_us",
                                          "cpu.quota", cgroup_cpu_quota(cgroup, cpu)};
    const struct resource_number rt_period = {cpu->has_realtime_period && cpu->realtime_period,
                                              "cpu.rt_period_us", "cpu.realtimePeriod",
                                              (int64_t)cpu->realtime_period};
    const struct resource_number rt_runtime = {cpu->has_realtime_runtime && cpu->realtime_runtime,
                                               "cpu.rt_runtime_us", "cpu.realtimeRuntime",
                                               cpu->realtime_runtime};
    int r = apply_shares(cgroup, cpu, err);

    if (r == 0)
        r = resource_write_ordered(cgroup, "cpu", bandwidth, ARRAY_SIZE(bandwidth), &quota, err);
    if (r == 0 && cpu->has_idle)
        r = resource_write_number(cgroup, "cpu", "cpu.idle", "cpu.idle", cpu->idle, err);
    if (r == 0)
        r = resource_write_ordered(cgroup, "cpu", &rt_period, 1, &rt_runtime, err);
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
        _cleanup_free_ char *text = xasprintf("%" PRId64 ":%" PRId64 " %" PRIu64, device->major,
                                              device->minor, device->rate);
        r = resource_write(cgroup, "blkio", list->v1_file, field, text, err);
    }
    return r;
}

static int leaf_weight_error(const char *field, struct error *err)
{
    return error_set(err, -ENOTSUP, "linux.resources.%s: not in this kernel, Linux 5.0 removed it",
                     field);
}

static int apply_weights(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    /* CFQ's files are gone since Linux 5.0, BFQ's have names of their own. */
    bool leaf = resource_file_exists(cgroup, "blkio", "blkio.leaf_weight");
    bool cfq = resource_file_exists(cgroup, "blkio", "blkio.weight");
    int r = 0;

    if (io->has_leaf_weight && io->leaf_weight)
        r = leaf ? resource_write_number(cgroup, "blkio", "blkio.leaf_weight", "blockIO.leafWeight",
                                         io->leaf_weight, err)
                 : leaf_weight_error("blockIO.leafWeight", err);
    if (r == 0 && io->has_weight && io->weight)
        r = resource_write_number(cgroup, "blkio", cfq ? "blkio.weight" : "blkio.bfq.weight",
                                  "blockIO.weight", io->weight, err);
    for (size_t i = 0; r == 0 && i < io->weight_device_count; i++) {
        const struct oci_weight_device *device = io->weight_device[i];
        _cleanup_free_ char *weight = xasprintf("%" PRId64 ":%" PRId64 " %u", device->major,
                                                device->minor, (unsigned)device->weight);
        if (device->has_weight && device->weight)
            r = resource_write(cgroup, "blkio",
                               cfq ? "blkio.weight_device" : "blkio.bfq.weight_device",
                               "blockIO.weightDevice", weight, err);
        if (r == 0 && device->has_leaf_weight && device->leaf_weight)
            r = leaf_weight_error("blockIO.weightDevice", err);
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

static int apply_network(struct cgroup *cgroup, const struct oci_network *network,
                         struct error *err)
{
    int r = 0;

    if (network->has_class_id && network->class_id)
        r = resource_write_number(cgroup, "net_cls", "net_cls.classid", "network.classID",
                                  network->class_id, err);
    for (size_t i = 0; r == 0 && i < network->priorities_count; i++) {
        _cleanup_free_ char *text =
            xasprintf("%s %u", network->priorities[i]->name, network->priorities[i]->priority);
        r = resource_write(cgroup, "net_prio", "net_prio.ifpriomap", "network.priorities", text,
                           err);
    }
    return r;
}

int cgroup_v1_apply(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err)
{
    int r = 0;

    if (resources->unified && resources->unified->count)
        return error_set(err, -ENOTSUP,
                         "invalid configuration: linux.resources.unified: this machine's cgroups "
                         "are version 1");
    if (resources->memory)
        r = apply_memory(cgroup, resources->memory, err);
    if (r == 0 && resources->cpu)
        r = apply_cpu(cgroup, resources->cpu, err);
    if (r == 0)
        r = resource_write_pids(cgroup, resources->pids, err);
    if (r == 0 && resources->block_io)
        r = apply_block_io(cgroup, resources->block_io, err);
    if (r == 0)
        r = resource_write_hugepages(cgroup, resources, "limit_in_bytes", err);
    if (r == 0)
        r = resource_write_rdma(cgroup, resources->rdma, err);
    if (r == 0 && resources->network)
        r = apply_network(cgroup, resources->network, err);
    return r;
}
