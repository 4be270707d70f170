/*
 * linux.resources, written into the control files of either version.
 */
#ifndef RUNTIME_CGROUP_RESOURCES_H
#define RUNTIME_CGROUP_RESOURCES_H

#include <stdint.h>

#include <schema/oci_config.h>

#include "cgroup.h"

int cgroup_v1_apply(struct cgroup *cgroup, const struct oci_resources *resources,
                    struct error *err);
int cgroup_v2_apply(struct cgroup *cgroup, const struct oci_resources *resources,
                    struct error *err);

/* Conversions from what the configuration counts (cgroup v1's units) to v2's. 0 is "not set". */
uint64_t cgroup_weight_from_shares(uint64_t shares);   /* cpu.shares to cpu.weight */
uint64_t cgroup_io_weight_from_blkio(uint16_t weight); /* blkio.weight to io.weight */
uint64_t cgroup_pids_limit(int64_t limit);             /* to pids.max; UINT64_MAX: "max" */

/* systemd's CPUQuotaPerSecUSec for a quota in a period (0: the kernel's): up to the next per cent.
 * 0: the quota is none. */
int64_t cgroup_quota_per_second(int64_t quota, uint64_t period);
/* What is written of cpu.quota: in a scope as systemd has rounded it, which it would go back to
 * (runc 1.4). 0: nothing. */
int64_t cgroup_cpu_quota(const struct cgroup *cgroup, const struct oci_cpu *cpu);

/* memory.swap counts memory and swap, memory.swap.max swap alone. *ret: -1 "max", -2: not to be
 * written. */
int cgroup_swap_limit(const struct oci_memory *memory, int64_t *ret, struct error *err);

/* One control file. field: name below linux.resources, for the message. The code is -ENOENT when
 * the kernel has no such file, -ENOTSUP when the controller is not mounted. */
int resource_write(struct cgroup *cgroup, const char *controller, const char *file,
                   const char *field, const char *value, struct error *err);
/* Values below 0 are written as they are on v1, as "max" on v2. */
int resource_write_number(struct cgroup *cgroup, const char *controller, const char *file,
                          const char *field, int64_t value, struct error *err);
bool resource_file_exists(struct cgroup *cgroup, const char *controller, const char *file);

/* Two values of which the kernel takes the first, or not, by what the second is at that time: the
 * first is tried, written again after the second when it was refused with EINVAL. count 0..n. */
struct resource_number {
    bool set;
    const char *file, *field;
    int64_t value;
};

int resource_write_ordered(struct cgroup *cgroup, const char *controller,
                           const struct resource_number *first, size_t count,
                           const struct resource_number *last, struct error *err);

/* The four lists of blockIO limits, and what they are in each version. */
enum { THROTTLE_LISTS = 4 };

struct throttle_list {
    const char *field, *v1_file, *v2_key;
    struct oci_throttle_device *const *devices;
    size_t count;
};

void resource_throttle_lists(const struct oci_block_io *io, struct throttle_list *ret);

/* The same in both versions but for the suffix of the file ("max", "limit_in_bytes"). */
int resource_write_hugepages(struct cgroup *cgroup, const struct oci_resources *resources,
                             const char *suffix, struct error *err);
int resource_write_pids(struct cgroup *cgroup, const struct oci_pids *pids, struct error *err);
int resource_write_rdma(struct cgroup *cgroup, const struct oci_rdma *rdma, struct error *err);

/* memory.checkBeforeUpdate: whether limits would be below what is in use. */
int resource_check_usage(const struct oci_memory *memory, uint64_t usage, struct error *err);

/* Device rules in order; the last one that matches decides. The first is always "deny all". */
struct device_rule {
    bool allow;
    char type;            /* 'a' (all), 'b', 'c' */
    int64_t major, minor; /* -1: any */
    bool read, write, mknod;
};

enum { DEVICE_RULES_MAX = 1024 };

/* The rules of the configuration followed by the devices every container has. Owned by the caller.
 */
int device_rules(const struct oci_resources *resources, struct device_rule **ret, size_t *ret_count,
                 struct error *err);

int cgroup_v1_set_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                          bool live, struct error *err);
int cgroup_v2_set_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                          bool live, struct error *err);

/* Loads the rules as a BPF program (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15) and attaches it. The
 * program lives as long as the cgroup. replace: in the place of the one attached before, at once
 * (Linux 5.6); programs of others stay. */
int cgroup_bpf_attach_devices(int cgroup_fd, const struct device_rule *rules, size_t count,
                              bool replace, struct error *err);

/* The result of setting device rules: a caller who is not root of the machine may not set them (v1
 * CAP_SYS_ADMIN, v2 CAP_BPF), and goes without. */
int cgroup_forgive_devices(int r, struct error *err);

#endif
