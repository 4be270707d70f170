#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/text.h>

#include "cgroup_resources.h"

/* Ranges of v1 and v2: cpu.shares 2..262144 to cpu.weight 1..10000, blkio.weight 10..1000 to
 * io.weight 1..10000; linear, as every runtime converts them. */
enum {
    SHARES_MIN = 2,
    SHARES_MAX = 262144,
    BLKIO_MIN = 10,
    BLKIO_MAX = 1000,
    WEIGHT_MAX = 10000,
};

static int write_text(struct cgroup *cgroup, const char *file, const char *field, const char *value,
                      struct error *err)
{
    int r = cgroup_write(&cgroup->hierarchies[0], file, value, err);

    if (r < 0)
        error_context(err, "linux.resources.%s", field);
    return r;
}

static int write_number(struct cgroup *cgroup, const char *file, const char *field, int64_t value,
                        struct error *err)
{
    char text[24] = "max";

    if (value >= 0)
        snprintf(text, sizeof(text), "%" PRId64, value);
    return write_text(cgroup, file, field, text, err);
}

static int apply_devices(struct cgroup *cgroup, const struct oci_resources *resources,
                         struct error *err)
{
    _cleanup_free_ struct device_rule *rules = NULL;
    size_t count;
    int r = device_rules(resources, &rules, &count, err);

    return r < 0 ? r : cgroup_bpf_attach_devices(cgroup->hierarchies[0].fd, rules, count, err);
}

/* The configuration counts memory and swap together, v2 counts swap alone. */
static int apply_swap(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    if (!memory->has_swap || memory->swap == 0)
        return 0;
    int64_t swap = memory->swap;
    if (swap > 0) {
        if (!memory->has_limit || memory->limit <= 0)
            return error_set(err, -EINVAL,
                             "linux.resources.memory.swap: needs memory.limit on cgroup v2");
        if (swap < memory->limit)
            return error_set(err, -EINVAL,
                             "linux.resources.memory.swap: is memory and swap together, and less "
                             "than memory.limit");
        swap -= memory->limit;
    }
    /* A kernel without swap accounting has no file; no swap to be used is then what it does. */
    if (faccessat(cgroup->hierarchies[0].fd, "memory.swap.max", F_OK, 0) < 0 && swap <= 0)
        return 0;
    return write_number(cgroup, "memory.swap.max", "memory.swap", swap, err);
}

static int apply_memory(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    int r = 0;

    if (memory->has_kernel && memory->kernel > 0)
        return error_set(err, -ENOTSUP, "linux.resources.memory.kernel is not on cgroup v2");
    if (memory->has_kernel_tcp && memory->kernel_tcp > 0)
        return error_set(err, -ENOTSUP, "linux.resources.memory.kernelTCP is not on cgroup v2");
    if (memory->has_swappiness)
        return error_set(err, -ENOTSUP, "linux.resources.memory.swappiness is not on cgroup v2");
    if (memory->disable_oom_killer)
        return error_set(err, -ENOTSUP,
                         "linux.resources.memory.disableOOMKiller is not on cgroup v2");
    if (memory->has_limit && memory->limit != 0)
        r = write_number(cgroup, "memory.max", "memory.limit", memory->limit, err);
    if (r == 0)
        r = apply_swap(cgroup, memory, err);
    if (r == 0 && memory->has_reservation && memory->reservation != 0)
        r = write_number(cgroup, "memory.low", "memory.reservation", memory->reservation, err);
    return r;
}

static int apply_cpu_time(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    int r = 0;

    if (cpu->has_realtime_runtime && cpu->realtime_runtime)
        return error_set(err, -ENOTSUP, "linux.resources.cpu.realtimeRuntime is not on cgroup v2");
    if (cpu->has_realtime_period && cpu->realtime_period)
        return error_set(err, -ENOTSUP, "linux.resources.cpu.realtimePeriod is not on cgroup v2");
    if (cpu->has_idle)
        r = write_number(cgroup, "cpu.idle", "cpu.idle", cpu->idle, err);
    if (r == 0 && cpu->has_shares && cpu->shares) {
        uint64_t shares = cpu->shares < SHARES_MIN   ? SHARES_MIN
                          : cpu->shares > SHARES_MAX ? SHARES_MAX
                                                     : cpu->shares;
        r = write_number(
            cgroup, "cpu.weight", "cpu.shares",
            (int64_t)(1 + (shares - SHARES_MIN) * (WEIGHT_MAX - 1) / (SHARES_MAX - SHARES_MIN)),
            err);
    }
    bool quota = cpu->has_quota && cpu->quota, period = cpu->has_period && cpu->period;
    if (r == 0 && (quota || period)) {
        char text[64], amount[24] = "max";
        if (quota && cpu->quota > 0)
            snprintf(amount, sizeof(amount), "%" PRId64, cpu->quota);
        if (period)
            snprintf(text, sizeof(text), "%s %" PRIu64, amount, cpu->period);
        else
            snprintf(text, sizeof(text), "%s", amount);
        r = write_text(cgroup, "cpu.max", "cpu.quota", text, err);
    }
    if (r == 0 && cpu->has_burst)
        r = write_number(cgroup, "cpu.max.burst", "cpu.burst", (int64_t)cpu->burst, err);
    return r;
}

static int apply_cpu(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    int r = apply_cpu_time(cgroup, cpu, err);

    if (r == 0 && !text_empty(cpu->cpus))
        r = write_text(cgroup, "cpuset.cpus", "cpu.cpus", cpu->cpus, err);
    if (r == 0 && !text_empty(cpu->mems))
        r = write_text(cgroup, "cpuset.mems", "cpu.mems", cpu->mems, err);
    return r;
}

static int apply_throttles(struct cgroup *cgroup, struct oci_throttle_device *const *devices,
                           size_t count, const char *key, const char *field, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        _cleanup_free_ char *text =
            xasprintf("%" PRId64 ":%" PRId64 " %s=%" PRIu64, devices[i]->major, devices[i]->minor,
                      key, devices[i]->rate);
        r = write_text(cgroup, "io.max", field, text, err);
    }
    return r;
}

static int apply_weight(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    if ((io->has_leaf_weight && io->leaf_weight))
        return error_set(err, -ENOTSUP, "linux.resources.blockIO.leafWeight is not on cgroup v2");
    bool bfq = faccessat(cgroup->hierarchies[0].fd, "io.bfq.weight", F_OK, 0) == 0;
    int r = 0;
    if (io->has_weight && io->weight) {
        int64_t weight = io->weight;
        if (!bfq)
            weight = 1 + (weight - BLKIO_MIN) * (WEIGHT_MAX - 1) / (BLKIO_MAX - BLKIO_MIN);
        r = write_number(cgroup, bfq ? "io.bfq.weight" : "io.weight", "blockIO.weight", weight,
                         err);
    }
    for (size_t i = 0; r == 0 && i < io->weight_device_count; i++) {
        const struct oci_weight_device *device = io->weight_device[i];
        if (device->has_leaf_weight && device->leaf_weight)
            return error_set(err, -ENOTSUP,
                             "linux.resources.blockIO.weightDevice[%zu].leafWeight is not on "
                             "cgroup v2",
                             i);
        _cleanup_free_ char *text = xasprintf("%" PRId64 ":%" PRId64 " %u", device->major,
                                              device->minor, (unsigned)device->weight);
        r = write_text(cgroup, "io.bfq.weight", "blockIO.weightDevice", text, err);
    }
    return r;
}

static int apply_block_io(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    int r = apply_weight(cgroup, io, err);

    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_read_bps_device,
                            io->throttle_read_bps_device_count, "rbps",
                            "blockIO.throttleReadBpsDevice", err);
    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_write_bps_device,
                            io->throttle_write_bps_device_count, "wbps",
                            "blockIO.throttleWriteBpsDevice", err);
    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_read_iops_device,
                            io->throttle_read_iops_device_count, "riops",
                            "blockIO.throttleReadIOPSDevice", err);
    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_write_iops_device,
                            io->throttle_write_iops_device_count, "wiops",
                            "blockIO.throttleWriteIOPSDevice", err);
    return r;
}

static int apply_hugepages(struct cgroup *cgroup, const struct oci_resources *resources,
                           struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < resources->hugepage_limits_count; i++) {
        const struct oci_hugepage_limit *limit = resources->hugepage_limits[i];
        _cleanup_free_ char *file = xasprintf("hugetlb.%s.max", limit->page_size);
        _cleanup_free_ char *text = xasprintf("%" PRIu64, limit->limit);
        if (strchr(file, '/'))
            return error_set(err, -EINVAL, "linux.resources.hugepageLimits[%zu].pageSize: '%s'", i,
                             limit->page_size);
        r = write_text(cgroup, file, "hugepageLimits", text, err);
    }
    return r;
}

static int apply_unified(struct cgroup *cgroup, const struct oci_resources *resources,
                         struct error *err)
{
    int r = 0;

    for (size_t i = 0; resources->unified && r == 0 && i < resources->unified->count; i++) {
        const char *file = resources->unified->keys[i];
        if (strchr(file, '/') || text_starts_with(file, "cgroup.procs") ||
            text_starts_with(file, "cgroup.threads"))
            return error_set(err, -EINVAL, "linux.resources.unified: '%s' is no limit", file);
        r = write_text(cgroup, file, "unified", resources->unified->values[i], err);
    }
    return r;
}

int cgroup_v2_apply(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err)
{
    int r = cgroup_forgive_devices(apply_devices(cgroup, resources, err), err);

    if (r < 0 || !resources)
        return r;
    if (resources->rdma)
        return error_set(err, -ENOTSUP, "linux.resources.rdma is not supported yet");
    if (resources->network && ((resources->network->has_class_id && resources->network->class_id) ||
                               resources->network->priorities_count))
        return error_set(err, -ENOTSUP, "linux.resources.network is not on cgroup v2");
    if (resources->memory)
        r = apply_memory(cgroup, resources->memory, err);
    if (r == 0 && resources->cpu)
        r = apply_cpu(cgroup, resources->cpu, err);
    if (r == 0 && resources->pids && resources->pids->has_limit && resources->pids->limit > 0)
        r = write_number(cgroup, "pids.max", "pids.limit", resources->pids->limit, err);
    if (r == 0 && resources->block_io)
        r = apply_block_io(cgroup, resources->block_io, err);
    if (r == 0)
        r = apply_hugepages(cgroup, resources, err);
    if (r == 0)
        r = apply_unified(cgroup, resources, err);
    return r;
}
