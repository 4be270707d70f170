/*
 * What a container uses, as `runc events --stats` writes it (runc's types/events.go, from which
 * containerd and others read).
 */
#ifndef RUNTIME_CGROUP_STATS_H
#define RUNTIME_CGROUP_STATS_H

#include <schema/oci_config.h>

#include <base/buffer.h>

#include "cgroup.h"

/* Appends {"cpu": ..., "cpuset": ..., "memory": ..., ...}. Controllers that are not there count as
 * nothing used, and so does a container without a cgroup. rdt: of its configuration; NULL: none. */
void cgroup_stats_write(struct cgroup *cgroup, const struct oci_intel_rdt *rdt, const char *id,
                        struct buffer *out);

#endif
