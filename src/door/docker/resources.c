#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "create.h"

static int take_number(const char *name, int64_t from, uint64_t *to, bool *to_has,
                       struct error *err)
{
    if (from < 0)
        return error_set(err, -EINVAL, "invalid %s: %jd is less than 0", name, (intmax_t)from);
    *to = (uint64_t)from;
    *to_has = from != 0;
    return 0;
}

static void take_signed(int64_t from, int64_t *to, bool *to_has)
{
    *to = from;
    *to_has = from != 0;
}

static int take_throttles(const char *name, struct docker_throttle_device *const *from,
                          size_t count, struct api_throttle_device ***to, size_t *to_count,
                          struct error *err)
{
    bool has;
    int r = 0;

    if (!count)
        return 0;
    *to = xnew_array(struct api_throttle_device *, count);
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct api_throttle_device *device = (*to)[i] = xnew(struct api_throttle_device);
        *to_count = i + 1;
        device->path = xstrdup(from[i]->path ? from[i]->path : "");
        r = take_number(name, from[i]->rate, &device->rate, &has, err);
    }
    return r;
}

static int take_block_io(struct docker_host_config *from, struct api_resources *to,
                         struct error *err)
{
    if (from->blkio_weight < 0 || from->blkio_weight > UINT16_MAX)
        return error_set(err, -EINVAL, "range of blkio weight is from 10 to 1000");
    to->blkio_weight = (uint16_t)from->blkio_weight;
    to->has_blkio_weight = from->blkio_weight != 0;
    if (from->blkio_weight_device_count)
        to->blkio_weight_device =
            xnew_array(struct api_weight_device *, from->blkio_weight_device_count);
    for (size_t i = 0; i < from->blkio_weight_device_count; i++) {
        struct docker_weight_device *device = from->blkio_weight_device[i];
        if (device->weight < 0 || device->weight > UINT16_MAX)
            return error_set(err, -EINVAL, "range of blkio weight is from 10 to 1000");
        to->blkio_weight_device[i] = xnew(struct api_weight_device);
        to->blkio_weight_device_count = i + 1;
        to->blkio_weight_device[i]->path = xstrdup(device->path ? device->path : "");
        to->blkio_weight_device[i]->weight = (uint16_t)device->weight;
    }
    int r = take_throttles("BlkioDeviceReadBps", from->blkio_device_read_bps,
                           from->blkio_device_read_bps_count, &to->blkio_device_read_bps,
                           &to->blkio_device_read_bps_count, err);
    if (r == 0)
        r = take_throttles("BlkioDeviceWriteBps", from->blkio_device_write_bps,
                           from->blkio_device_write_bps_count, &to->blkio_device_write_bps,
                           &to->blkio_device_write_bps_count, err);
    if (r == 0)
        r = take_throttles("BlkioDeviceReadIOps", from->blkio_device_read_iops,
                           from->blkio_device_read_iops_count, &to->blkio_device_read_iops,
                           &to->blkio_device_read_iops_count, err);
    if (r == 0)
        r = take_throttles("BlkioDeviceWriteIOps", from->blkio_device_write_iops,
                           from->blkio_device_write_iops_count, &to->blkio_device_write_iops,
                           &to->blkio_device_write_iops_count, err);
    return r;
}

static int take_all(struct docker_host_config *from, struct api_resources *to, struct error *err)
{
    const struct {
        const char *name;
        int64_t value;
        uint64_t *to;
        bool *has;
    } numbers[] = {
        {"CpuShares", from->cpu_shares, &to->cpu_shares, &to->has_cpu_shares},
        {"NanoCpus", from->nano_cpus, &to->nano_cpus, &to->has_nano_cpus},
        {"CpuPeriod", from->cpu_period, &to->cpu_period, &to->has_cpu_period},
        {"CpuRealtimePeriod", from->cpu_realtime_period, &to->cpu_realtime_period,
         &to->has_cpu_realtime_period},
        {"Memory", from->memory, &to->memory, &to->has_memory},
        {"MemoryReservation", from->memory_reservation, &to->memory_reservation,
         &to->has_memory_reservation},
        {"KernelMemory", from->kernel_memory, &to->kernel_memory, &to->has_kernel_memory},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(numbers); i++)
        r = take_number(numbers[i].name, numbers[i].value, numbers[i].to, numbers[i].has, err);
    take_signed(from->cpu_quota, &to->cpu_quota, &to->has_cpu_quota);
    take_signed(from->cpu_realtime_runtime, &to->cpu_realtime_runtime,
                &to->has_cpu_realtime_runtime);
    take_signed(from->memory_swap, &to->memory_swap, &to->has_memory_swap);
    take_signed(from->pids_limit, &to->pids_limit, &to->has_pids_limit);
    to->memory_swappiness = from->memory_swappiness;
    to->has_memory_swappiness = from->has_memory_swappiness && from->memory_swappiness != -1;
    to->oom_kill_disable = to->has_oom_kill_disable = from->oom_kill_disable;
    to->cpuset_cpus = text_empty(from->cpuset_cpus) ? NULL : steal_ptr(from->cpuset_cpus);
    to->cpuset_mems = text_empty(from->cpuset_mems) ? NULL : steal_ptr(from->cpuset_mems);
    return r == 0 ? take_block_io(from, to, err) : r;
}

int docker_take_resources(struct docker_host_config *from, struct api_resources **ret,
                          struct error *err)
{
    static const struct api_resources none;
    struct api_resources *resources = xnew(struct api_resources);

    int r = take_all(from, resources, err);
    if (r < 0 || memcmp(resources, &none, sizeof(none)) == 0) {
        api_resources_free(resources);
        return r;
    }
    *ret = resources;
    return 0;
}
