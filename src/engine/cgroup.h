/*
 * The engine's own hands on a container's cgroups, for what the runtime is not asked to do: to find
 * what the kernel says about it, to hold it still for a commit, and to kill and remove what a lost
 * monitor left. The cgroup is /PARENT/ID in every hierarchy that is mounted under /sys/fs/cgroup.
 * A parent of NULL is none: nothing is there, and nothing is to be done.
 * Everything here blocks for cgroupfs: disk thread, but for cgroup_memory_path and cgroup_is_v2.
 */
#ifndef ENGINE_CGROUP_H
#define ENGINE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

/* Whether the machine has the unified hierarchy only. */
bool cgroup_is_v2(void);

/* The folder that knows of the container's OOM kills. Owned by the caller. */
char *cgroup_memory_path(const char *parent, const char *id);

/* The file that says whether its processes stand still. Owned by the caller. */
char *cgroup_freezer_file(const char *parent, const char *id);

/* Of v1 the hierarchy named, of v2 the only one. Owned by the caller. */
char *cgroup_path(const char *hierarchy, const char *parent, const char *id);

/* The process IDs in it and in the cgroups below, at most `most` of them. Owned by the caller. */
int cgroup_processes(const char *parent, const char *id, size_t most, int64_t **ret,
                     size_t *ret_count, struct error *err);

/* Stops or resumes all processes; returns when the kernel says so. -EBUSY after ten
 * seconds, -ENOENT when the cgroup is gone: all have ended. */
int cgroup_freeze(const char *parent, const char *id, bool freeze, struct error *err);

/* Kills every process of it, thaws it so that they die, waits for that, and removes the cgroups.
 * What does not exist is no error. -EBUSY: processes are still there after some seconds. */
/* -EBUSY: processes of it that an earlier run left live still; they get SIGKILL once more. Does not
 * wait. */
int cgroup_check_empty(const char *parent, const char *id, struct error *err);

int cgroup_kill_and_remove(const char *parent, const char *id, struct error *err);

/* Makes the parent cgroup in every hierarchy, so that not every container's runtime makes and
 * removes it. What does not succeed is left to the runtime, which says why. */
void cgroup_keep_parent(const char *parent);

/* Removes it where nothing is in it. */
void cgroup_drop_parent(const char *parent);

/* Removes the empty parent cgroups of the instance. */
int cgroup_remove_parent(const char *parent, struct error *err);

/* A cgroup of one process of the engine's own with a limit of memory (bytes), where there is a
 * controller for it; its process put into it (one write); and away with it, when it is empty:
 * false where it is not. */
int cgroup_make_small(const char *parent, const char *name, uint64_t memory, struct error *err);
void cgroup_join_small(const char *parent, const char *name, int64_t pid);
bool cgroup_drop_small(const char *parent, const char *name);

#endif
