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

static int hierarchy_for(struct cgroup *cgroup, const char *controller, const char *field,
                         struct cgroup_hierarchy **ret, struct error *err)
{
    *ret = cgroup_hierarchy_find(cgroup, controller);
    if (!*ret)
        return error_set(err, -ENOTSUP,
                         "linux.resources.%s: the cgroup v1 controller '%s' is not mounted here",
                         field, controller);
    return 0;
}

static int write_text(struct cgroup *cgroup, const char *controller, const char *file,
                      const char *field, const char *value, struct error *err)
{
    struct cgroup_hierarchy *hierarchy;
    int r = hierarchy_for(cgroup, controller, field, &hierarchy, err);

    if (r == 0) {
        r = cgroup_write(hierarchy, file, value, err);
        if (r < 0)
            error_context(err, "linux.resources.%s", field);
    }
    return r;
}

static int write_number(struct cgroup *cgroup, const char *controller, const char *file,
                        const char *field, int64_t value, struct error *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, value);
    return write_text(cgroup, controller, file, field, text, err);
}

static int apply_devices(struct cgroup *cgroup, const struct oci_resources *resources,
                         struct error *err)
{
    _cleanup_free_ struct device_rule *rules = NULL;
    struct cgroup_hierarchy *hierarchy;
    size_t count;
    int r = device_rules(resources, &rules, &count, err);

    if (r == 0)
        r = hierarchy_for(cgroup, "devices", "devices", &hierarchy, err);
    if (r < 0)
        return r;
    _cleanup_close_ int allow_fd = openat(hierarchy->fd, "devices.allow", O_WRONLY | O_CLOEXEC);
    _cleanup_close_ int deny_fd = openat(hierarchy->fd, "devices.deny", O_WRONLY | O_CLOEXEC);
    if (allow_fd < 0 || deny_fd < 0)
        return error_errno(err, errno, "open devices.allow and devices.deny");
    for (size_t i = 0; i < count; i++) {
        const struct device_rule *rule = &rules[i];
        char major[24] = "*", minor[24] = "*", text[80];
        if (rule->major >= 0)
            snprintf(major, sizeof(major), "%" PRId64, rule->major);
        if (rule->minor >= 0)
            snprintf(minor, sizeof(minor), "%" PRId64, rule->minor);
        if (rule->type == 'a')
            strcpy(text, "a");
        else
            snprintf(text, sizeof(text), "%c %s:%s %s%s%s", rule->type, major, minor,
                     rule->read ? "r" : "", rule->write ? "w" : "", rule->mknod ? "m" : "");
        if (write(rule->allow ? allow_fd : deny_fd, text, strlen(text)) < 0)
            return error_errno(err, errno, "linux.resources.devices: %s '%s'",
                               rule->allow ? "allow" : "deny", text);
    }
    return 0;
}

static int apply_memory(struct cgroup *cgroup, const struct oci_memory *memory, struct error *err)
{
    int r = 0;

    if (memory->has_kernel && memory->kernel > 0)
        return error_set(err, -ENOTSUP,
                         "linux.resources.memory.kernel is not supported: Linux 6.1 removed it");
    /* The limit first: it may not exceed memory+swap (memory.rst, 5). */
    if (memory->has_limit && memory->limit != 0)
        r = write_number(cgroup, "memory", "memory.limit_in_bytes", "memory.limit", memory->limit,
                         err);
    if (r == 0 && memory->has_swap && memory->swap != 0)
        r = write_number(cgroup, "memory", "memory.memsw.limit_in_bytes", "memory.swap",
                         memory->swap, err);
    if (r == 0 && memory->has_reservation && memory->reservation != 0)
        r = write_number(cgroup, "memory", "memory.soft_limit_in_bytes", "memory.reservation",
                         memory->reservation, err);
    if (r == 0 && memory->has_kernel_tcp && memory->kernel_tcp != 0)
        r = write_number(cgroup, "memory", "memory.kmem.tcp.limit_in_bytes", "memory.kernelTCP",
                         memory->kernel_tcp, err);
    if (r == 0 && memory->has_swappiness) {
        if (memory->swappiness > 100)
            return error_set(err, -EINVAL, "linux.resources.memory.swappiness: more than 100");
        r = write_number(cgroup, "memory", "memory.swappiness", "memory.swappiness",
                         (int64_t)memory->swappiness, err);
    }
    if (r == 0 && memory->disable_oom_killer)
        r = write_number(cgroup, "memory", "memory.oom_control", "memory.disableOOMKiller", 1, err);
    if (r == 0 && memory->use_hierarchy) /* always so since Linux 5.11 */
        r = write_number(cgroup, "memory", "memory.use_hierarchy", "memory.useHierarchy", 1, err);
    return r;
}

static int apply_cpu(struct cgroup *cgroup, const struct oci_cpu *cpu, struct error *err)
{
    const struct {
        bool set;
        const char *file, *field;
        int64_t value;
    } numbers[] = {
        {cpu->has_shares && cpu->shares, "cpu.shares", "cpu.shares", (int64_t)cpu->shares},
        {cpu->has_period && cpu->period, "cpu.cfs_period_us", "cpu.period", (int64_t)cpu->period},
        {cpu->has_quota && cpu->quota, "cpu.cfs_quota_us", "cpu.quota", cpu->quota},
        {cpu->has_burst, "cpu.cfs_burst_us", "cpu.burst", (int64_t)cpu->burst},
        {cpu->has_realtime_period && cpu->realtime_period, "cpu.rt_period_us", "cpu.realtimePeriod",
         (int64_t)cpu->realtime_period},
        {cpu->has_realtime_runtime && cpu->realtime_runtime, "cpu.rt_runtime_us",
         "cpu.realtimeRuntime", cpu->realtime_runtime},
        {cpu->has_idle, "cpu.idle", "cpu.idle", cpu->idle},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(numbers); i++) {
        if (numbers[i].set)
            r = write_number(cgroup, "cpu", numbers[i].file, numbers[i].field, numbers[i].value,
                             err);
    }
    if (r == 0 && !text_empty(cpu->cpus))
        r = write_text(cgroup, "cpuset", "cpuset.cpus", "cpu.cpus", cpu->cpus, err);
    if (r == 0 && !text_empty(cpu->mems))
        r = write_text(cgroup, "cpuset", "cpuset.mems", "cpu.mems", cpu->mems, err);
    return r;
}

static int apply_throttles(struct cgroup *cgroup, struct oci_throttle_device *const *devices,
                           size_t count, const char *file, const char *field, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        _cleanup_free_ char *text = xasprintf("%" PRId64 ":%" PRId64 " %" PRIu64, devices[i]->major,
                                              devices[i]->minor, devices[i]->rate);
        r = write_text(cgroup, "blkio", file, field, text, err);
    }
    return r;
}

static int apply_weights(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    int r = 0;

    if (io->has_leaf_weight && io->leaf_weight)
        return error_set(
            err, -ENOTSUP,
            "linux.resources.blockIO.leafWeight is not supported: Linux 5.0 removed it");
    if (io->has_weight && io->weight) {
        struct cgroup_hierarchy *blkio = cgroup_hierarchy_find(cgroup, "blkio");
        /* CFQ's file is gone since Linux 5.0, BFQ's has a name of its own. */
        bool bfq = blkio && faccessat(blkio->fd, "blkio.weight", F_OK, 0) < 0;
        r = write_number(cgroup, "blkio", bfq ? "blkio.bfq.weight" : "blkio.weight",
                         "blockIO.weight", io->weight, err);
    }
    for (size_t i = 0; r == 0 && i < io->weight_device_count; i++) {
        const struct oci_weight_device *device = io->weight_device[i];
        if (device->has_leaf_weight && device->leaf_weight)
            return error_set(
                err, -ENOTSUP,
                "linux.resources.blockIO.weightDevice[%zu].leafWeight is not supported", i);
        _cleanup_free_ char *text = xasprintf("%" PRId64 ":%" PRId64 " %u", device->major,
                                              device->minor, (unsigned)device->weight);
        r = write_text(cgroup, "blkio", "blkio.bfq.weight_device", "blockIO.weightDevice", text,
                       err);
    }
    return r;
}

static int apply_block_io(struct cgroup *cgroup, const struct oci_block_io *io, struct error *err)
{
    int r = apply_weights(cgroup, io, err);

    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_read_bps_device,
                            io->throttle_read_bps_device_count, "blkio.throttle.read_bps_device",
                            "blockIO.throttleReadBpsDevice", err);
    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_write_bps_device,
                            io->throttle_write_bps_device_count, "blkio.throttle.write_bps_device",
                            "blockIO.throttleWriteBpsDevice", err);
    if (r == 0)
        r = apply_throttles(cgroup, io->throttle_read_iops_device,
                            io->throttle_read_iops_device_count, "blkio.throttle.read_iops_device",
                            "blockIO.throttleReadIOPSDevice", err);
    if (r == 0)
        r = apply_throttles(
            cgroup, io->throttle_write_iops_device, io->throttle_write_iops_device_count,
            "blkio.throttle.write_iops_device", "blockIO.throttleWriteIOPSDevice", err);
    return r;
}

static int apply_hugepages(struct cgroup *cgroup, const struct oci_resources *resources,
                           struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < resources->hugepage_limits_count; i++) {
        const struct oci_hugepage_limit *limit = resources->hugepage_limits[i];
        _cleanup_free_ char *file = xasprintf("hugetlb.%s.limit_in_bytes", limit->page_size);
        _cleanup_free_ char *text = xasprintf("%" PRIu64, limit->limit);
        if (strchr(file, '/'))
            return error_set(err, -EINVAL, "linux.resources.hugepageLimits[%zu].pageSize: '%s'", i,
                             limit->page_size);
        r = write_text(cgroup, "hugetlb", file, "hugepageLimits", text, err);
    }
    return r;
}

static int apply_network(struct cgroup *cgroup, const struct oci_network *network,
                         struct error *err)
{
    int r = 0;

    if (network->has_class_id && network->class_id)
        r = write_number(cgroup, "net_cls", "net_cls.classid", "network.classID", network->class_id,
                         err);
    for (size_t i = 0; r == 0 && i < network->priorities_count; i++) {
        _cleanup_free_ char *text =
            xasprintf("%s %u", network->priorities[i]->name, network->priorities[i]->priority);
        r = write_text(cgroup, "net_prio", "net_prio.ifpriomap", "network.priorities", text, err);
    }
    return r;
}

int cgroup_v1_apply(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err)
{
    int r = cgroup_forgive_devices(apply_devices(cgroup, resources, err), err);

    if (r < 0 || !resources)
        return r;
    if (resources->unified && resources->unified->count)
        return error_set(err, -ENOTSUP,
                         "linux.resources.unified: this machine's cgroups are version 1");
    if (resources->rdma)
        return error_set(err, -ENOTSUP, "linux.resources.rdma is not supported yet");
    if (resources->memory)
        r = apply_memory(cgroup, resources->memory, err);
    if (r == 0 && resources->cpu)
        r = apply_cpu(cgroup, resources->cpu, err);
    if (r == 0 && resources->pids && resources->pids->has_limit && resources->pids->limit > 0)
        r = write_number(cgroup, "pids", "pids.max", "pids.limit", resources->pids->limit, err);
    if (r == 0 && resources->block_io)
        r = apply_block_io(cgroup, resources->block_io, err);
    if (r == 0)
        r = apply_hugepages(cgroup, resources, err);
    if (r == 0 && resources->network)
        r = apply_network(cgroup, resources->network, err);
    return r;
}
