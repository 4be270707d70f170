/*
 * What a container uses, as `runc events --stats` writes it (runc's types/events.go, from which
 * containerd and others read).
 */
#ifndef RUNTIME_CGROUP_STATS_H
#define RUNTIME_CGROUP_STATS_H

#include <base/buffer.h>

#include "cgroup.h"

/* Appends {"cpu": ..., "cpuset": ..., "memory": ..., ...}. Controllers that are not there count as
 * nothing used, and so does a container without a cgroup. */
void cgroup_stats_write(struct cgroup *cgroup, struct buffer *out);

#endif
