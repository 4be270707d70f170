#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "cgroup_resources.h"
#include "cgroup_systemd.h"

/* Ranges of v1 and v2: cpu.shares 2..262144 to cpu.weight 1..10000, blkio.weight 10..1000 to
 * io.weight 1..10000. */
enum {
    SHARES_MIN = 2,
    SHARES_MAX = 262144,
    BLKIO_MIN = 10,
    BLKIO_MAX = 1000,
    WEIGHT_MAX = 10000,
    CPU_PERIOD_US = 100000, /* the kernel's, where there is none */
    SECOND_US = 1000000,
    QUOTA_STEP_US = SECOND_US / 100, /* systemd counts in whole per cents */
};

/* The curve through both ends of the ranges and through both defaults (1024 and 100), which
 * runc 1.3.2 and crun 1.23 brought: ceil(10 ^ ((l^2 + 125 l) / 612 - 7/34)), l = log2(shares). */
uint64_t cgroup_weight_from_shares(uint64_t shares)
{
    if (shares == 0)
        return 0;
    if (shares <= SHARES_MIN)
        return 1;
    if (shares >= SHARES_MAX)
        return WEIGHT_MAX;
    double l = log2((double)shares);
    return (uint64_t)ceil(pow(10, (l * l + 125 * l) / 612.0 - 7.0 / 34.0));
}

/* Linear, as every runtime converts them. */
uint64_t cgroup_io_weight_from_blkio(uint16_t weight)
{
    if (weight == 0)
        return 0;
    if (weight < BLKIO_MIN)
        return 1;
    return 1 + (uint64_t)(weight - BLKIO_MIN) * (WEIGHT_MAX - 1) / (BLKIO_MAX - BLKIO_MIN);
}

/* No process at all is not a limit that a container can have (and systemd knows none): runc 1.4
 * takes 0 as 1. */
uint64_t cgroup_pids_limit(int64_t limit)
{
    return limit < 0 ? UINT64_MAX : limit == 0 ? 1 : (uint64_t)limit;
}

int64_t cgroup_quota_per_second(int64_t quota, uint64_t period)
{
    uint64_t per_second;

    if (quota <= 0 || __builtin_mul_overflow((uint64_t)quota, (uint64_t)SECOND_US, &per_second))
        return 0;
    per_second /= period ? period : CPU_PERIOD_US;
    return (int64_t)((per_second + QUOTA_STEP_US - 1) / QUOTA_STEP_US * QUOTA_STEP_US);
}

int64_t cgroup_cpu_quota(const struct cgroup *cgroup, const struct oci_cpu *cpu)
{
    uint64_t period = cpu->has_period && cpu->period ? (uint64_t)cpu->period : CPU_PERIOD_US;
    int64_t quota = cpu->has_quota ? cpu->quota : 0;
    int64_t per_second = cgroup->unit ? cgroup_quota_per_second(quota, period) : 0;
    uint64_t rounded;

    if (per_second <= 0 || __builtin_mul_overflow((uint64_t)per_second, period, &rounded))
        return quota;
    return (int64_t)(rounded / SECOND_US);
}

int cgroup_swap_limit(const struct oci_memory *memory, int64_t *ret, struct error *err)
{
    int64_t limit = memory->has_limit ? memory->limit : 0;
    int64_t swap = memory->has_swap ? memory->swap : 0;

    *ret = -2;
    if (swap == 0) {
        /* As on v1, where no limit on memory asks for none on swap either. */
        if (limit == -1)
            *ret = -1;
        /* Asked for alone, none it is; beside a limit, 0 is what engines write for "not set". */
        else if (memory->has_swap && !memory->has_limit)
            *ret = 0;
        return 0;
    }
    if (swap < 0 || limit == -1) {
        *ret = swap < 0 ? -1 : swap;
        return 0;
    }
    if (limit <= 0)
        return error_set(err, -EINVAL,
                         "linux.resources.memory.swap: unable to set swap limit without memory "
                         "limit");
    if (swap < limit)
        return error_set(err, -EINVAL,
                         "linux.resources.memory.swap: memory+swap limit should be >= memory "
                         "limit");
    *ret = swap - limit;
    return 0;
}

int resource_write(struct cgroup *cgroup, const char *controller, const char *file,
                   const char *field, const char *value, struct error *err)
{
    struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, controller);

    if (!hierarchy || hierarchy->fd < 0)
        return error_set(err, -ENOTSUP,
                         "linux.resources.%s: the cgroup v1 controller '%s' is not mounted here",
                         field, controller);
    int r = cgroup_write(hierarchy, file, value, err);
    if (r < 0)
        error_context(err, "linux.resources.%s", field);
    return r;
}

int resource_write_number(struct cgroup *cgroup, const char *controller, const char *file,
                          const char *field, int64_t value, struct error *err)
{
    char text[24] = "max";

    if (value >= 0 || cgroup->ops->version == 1)
        snprintf(text, sizeof(text), "%" PRId64, value);
    return resource_write(cgroup, controller, file, field, text, err);
}

bool resource_file_exists(struct cgroup *cgroup, const char *controller, const char *file)
{
    struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, controller);

    return hierarchy && hierarchy->fd >= 0 && faccessat(hierarchy->fd, file, F_OK, 0) == 0;
}

static int write_if_set(struct cgroup *cgroup, const char *controller,
                        const struct resource_number *number, struct error *err)
{
    return number->set ? resource_write_number(cgroup, controller, number->file, number->field,
                                               number->value, err)
                       : 0;
}

int resource_write_ordered(struct cgroup *cgroup, const char *controller,
                           const struct resource_number *first, size_t count,
                           const struct resource_number *last, struct error *err)
{
    bool again[4] = {false};

    for (size_t i = 0; i < count; i++) {
        int r = write_if_set(cgroup, controller, &first[i], err);
        if (r == -EINVAL && last->set) {
            error_finish(err);
            again[i] = true;
        } else if (r < 0) {
            return r;
        }
    }
    int r = write_if_set(cgroup, controller, last, err);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (again[i])
            r = write_if_set(cgroup, controller, &first[i], err);
    }
    return r;
}

void resource_throttle_lists(const struct oci_block_io *io, struct throttle_list *ret)
{
    const struct throttle_list lists[THROTTLE_LISTS] = {
        {"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps",
         io->throttle_read_bps_device, io->throttle_read_bps_device_count},
        {"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps",
         io->throttle_write_bps_device, io->throttle_write_bps_device_count},
        {"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops",
         io->throttle_read_iops_device, io->throttle_read_iops_device_count},
        {"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops",
         io->throttle_write_iops_device, io->throttle_write_iops_device_count},
    };

    memcpy(ret, lists, sizeof(lists));
}

int resource_write_hugepages(struct cgroup *cgroup, const struct oci_resources *resources,
                             const char *suffix, struct error *err)
{
    for (size_t i = 0; i < resources->hugepage_limits_count; i++) {
        const struct oci_hugepage_limit *limit = resources->hugepage_limits[i];
        const char *size = limit->page_size ? limit->page_size : limit->pagesize;
        if (text_empty(size) || strchr(size, '/'))
            return error_set(err, -EINVAL, "linux.resources.hugepageLimits[%zu].pageSize: '%s'", i,
                             size ? size : "");
        _cleanup_free_ char *file = xasprintf("hugetlb.%s.%s", size, suffix);
        _cleanup_free_ char *reserved = xasprintf("hugetlb.%s.rsvd.%s", size, suffix);
        _cleanup_free_ char *text = xasprintf("%" PRIu64, limit->limit);
        int r = resource_write(cgroup, "hugetlb", file, "hugepageLimits", text, err);
        /* Reservations are limited by themselves since Linux 5.7. */
        if (r == 0 && resource_file_exists(cgroup, "hugetlb", reserved))
            r = resource_write(cgroup, "hugetlb", reserved, "hugepageLimits", text, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int resource_write_rdma(struct cgroup *cgroup, const struct oci_rdma *rdma, struct error *err)
{
    int r = 0;

    for (size_t i = 0; rdma && r == 0 && i < rdma->count; i++) {
        const struct oci_rdma_limit *limit = rdma->values[i];
        _cleanup_buffer_ struct buffer text = BUFFER_INIT;
        buffer_append_text(&text, rdma->keys[i]);
        if (limit->has_hca_handles)
            buffer_printf(&text, " hca_handle=%u", limit->hca_handles);
        if (limit->has_hca_objects)
            buffer_printf(&text, " hca_object=%u", limit->hca_objects);
        r = resource_write(cgroup, "rdma", "rdma.max", "rdma", buffer_text(&text), err);
    }
    return r;
}

int resource_write_pids(struct cgroup *cgroup, const struct oci_pids *pids, struct error *err)
{
    char text[24] = "max";

    if (!pids || !pids->has_limit)
        return 0;
    uint64_t limit = cgroup_pids_limit(pids->limit);
    if (limit != UINT64_MAX)
        snprintf(text, sizeof(text), "%" PRIu64, limit);
    return resource_write(cgroup, "pids", "pids.max", "pids.limit", text, err);
}

int resource_check_usage(const struct oci_memory *memory, uint64_t usage, struct error *err)
{
    if (memory->has_swap && memory->swap > 0 && (uint64_t)memory->swap <= usage)
        return error_set(err, -EBUSY, "rejecting memory+swap limit %" PRId64 " <= usage %" PRIu64,
                         memory->swap, usage);
    if (memory->has_limit && memory->limit > 0 && (uint64_t)memory->limit <= usage)
        return error_set(err, -EBUSY, "rejecting memory limit %" PRId64 " <= usage %" PRIu64,
                         memory->limit, usage);
    return 0;
}

const char *cgroup_left_out(const struct cgroup *cgroup, const struct oci_resources *resources)
{
    const struct oci_cpu *cpu = resources ? resources->cpu : NULL;
    const struct json_string_map *unified = resources ? resources->unified : NULL;

    if (cgroup->ops->version != 2)
        return NULL;
    if (cpu && cpu->has_idle && cpu->idle == 1 && cpu->has_shares && cpu->shares)
        return "linux.resources.cpu: unable to apply both shares and idle, ignoring shares";
    if (unified && text_equal(json_string_map_get(unified, "cpu.idle"), "1") &&
        json_string_map_get(unified, "cpu.weight"))
        return "linux.resources.unified: unable to apply both cpu.weight and cpu.idle, ignoring "
               "cpu.weight";
    return NULL;
}

int cgroup_limit(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err)
{
    _cleanup_free_ struct device_rule *rules = NULL;
    size_t count;
    int r = device_rules(resources, &rules, &count, err);

    if (r == 0)
        r = cgroup_forgive_devices(cgroup->ops->set_devices(cgroup, rules, count, false, err), err);
    return r < 0 || !resources ? r : cgroup->ops->apply(cgroup, resources, err);
}

int cgroup_update(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err)
{
    int r = cgroup->ops->apply(cgroup, resources, err);

    if (r < 0 || !cgroup->unit)
        return r;
    /* systemd rounds; and what the kernel refuses it does not tell. */
    r = cgroup_systemd_set(cgroup, resources, err);
    return r < 0 ? r : cgroup->ops->apply(cgroup, resources, err);
}

int cgroup_update_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                          struct error *err)
{
    int r = cgroup->unit ? cgroup_systemd_set_devices(cgroup, rules, count, err) : 0;

    return r < 0 ? r : cgroup->ops->set_devices(cgroup, rules, count, true, err);
}
