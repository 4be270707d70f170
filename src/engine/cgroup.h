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

/* What a process of the engine's own may have at most. */
struct cgroup_small {
    uint64_t memory; /* bytes */
    uint32_t tasks;
    uint32_t processors; /* so much of their time; 0: as all others have */
};

enum { CGROUP_SMALL_FILES = 3 };

/* Its cgroup, where there are any; tasks and processors where there are controllers for them. */
int cgroup_make_small(const char *parent, const char *name, const struct cgroup_small *limits,
                      struct error *err);
/* The files by which a process that is about to be executed joins it (base/process.h). Returns how
 * many there are; the descriptors are the caller's. */
int cgroup_open_small(const char *parent, const char *name, int ret_fds[CGROUP_SMALL_FILES]);
/* False: it is not empty. */
bool cgroup_drop_small(const char *parent, const char *name);
/* Removes those that are empty, and whose name begins so. */
void cgroup_sweep_small(const char *parent, const char *prefix);

#endif
