/*
 * linux.resources, written into the control files of either version.
 */
#ifndef RUNTIME_CGROUP_RESOURCES_H
#define RUNTIME_CGROUP_RESOURCES_H

#include <stdint.h>

#include "cgroup.h"

int cgroup_v1_apply(struct cgroup *cgroup, const struct oci_resources *resources,
                    struct error *err);
int cgroup_v2_apply(struct cgroup *cgroup, const struct oci_resources *resources,
                    struct error *err);

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

/* Loads the rules as a BPF program (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15) and attaches it. The
 * program lives as long as the cgroup. */
int cgroup_bpf_attach_devices(int cgroup_fd, const struct device_rule *rules, size_t count,
                              struct error *err);

/* The result of setting device rules: a caller who is not root of the machine may not set them (v1
 * CAP_SYS_ADMIN, v2 CAP_BPF), and goes without. */
int cgroup_forgive_devices(int r, struct error *err);

#endif
