/*
 * When a container's cgroup is made, and when its process joins it.
 *
 * The process can be born in a v2 cgroup, which is made before it. Cgroups of v1 are many and slow
 * to make: the parent makes them while the child mounts, sends the descriptors to join by, and the
 * child joins before anything that is not ours runs, is copied, or depends on device rules.
 * systemd's scopes are made as late: they take a process that is there, and nothing is left to
 * join.
 */
#ifndef RUNTIME_CONTAINER_CGROUP_H
#define RUNTIME_CONTAINER_CGROUP_H

#include "container.h"

/* In the parent, before the clone: finds the hierarchies and decides container->cgroup_late. Makes
 * nothing. */
int container_cgroup_init(struct container *container, struct error *err);

/* In the parent, before the clone, when the cgroup is late: the v2 tree beside v1 (hybrid layout)
 * is slow to join, and the process is born in it. */
int container_make_birthplace(struct container *container, struct error *err);

/* In the parent: makes the cgroup with its limits and opens what is needed to join. The state file
 * that names the cgroup is written first. */
int container_make_cgroup(struct container *container, struct error *err);

/* In the parent, after the clone: lets the child join. */
int container_hand_over_cgroup(struct container *container, struct error *err);

/* In the child: waits until the cgroup is there, joins it, and makes or joins the cgroup namespace.
 * Does so once. */
int container_join_cgroup(struct container *container, struct error *err);

/* Whether the container's processes are in a cgroup below its own (annotations), and maybe have
 * that for the root of their cgroup namespace. annotations may be NULL. */
bool container_is_below_cgroup(const struct json_string_map *annotations);

#endif
