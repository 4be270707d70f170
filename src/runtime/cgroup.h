/*
 * Control groups of one container.
 *
 * A backend is a table of operations. Callers never ask which version it is. The cgroupfs backends
 * write the files themselves; a systemd backend would ask systemd for a scope and share the rest.
 *
 * Ownership: only directories that create() made are removed by destroy().
 */
#ifndef RUNTIME_CGROUP_H
#define RUNTIME_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

#define CGROUP_MOUNT "/sys/fs/cgroup"

struct oci_resources;
struct cgroup_ops;

enum {
    CGROUP_HIERARCHIES_MAX = 20, /* v1 knows 13 controllers and the named systemd hierarchy */
    CGROUP_PATH_MAX = 1024,
    CGROUP_FILE_MAX = 1 << 20, /* bytes read from one control file */
};

struct cgroup_hierarchy {
    char name[48];  /* folder under /sys/fs/cgroup: "memory", "cpu,cpuacct"; "" on v2 */
    int root_fd;    /* owned; the hierarchy's mount */
    int fd;         /* owned; the container's cgroup in it; -1 before create or open */
    int made_depth; /* components of the path from this one (1 = first) on were made here; 0: none
                     */
};

struct cgroup_alias { /* v1: "cpu" -> "cpu,cpuacct" */
    char name[16];
    char target[48];
};

struct cgroup {
    const struct cgroup_ops *ops;
    char *path; /* owned; relative to the hierarchies' mounts, no leading slash */
    struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX];
    size_t count;
    struct cgroup_alias aliases[CGROUP_HIERARCHIES_MAX];
    size_t alias_count;
    int made_depth; /* lowest made_depth of all hierarchies, for the state file */
};

/* How a process gets in: cheap for the one who does it (machine.md: self-join through "tasks" is
 * twenty times cheaper than a write of somebody else's pid to cgroup.procs). */
struct cgroup_join {
    int clone_fd;                    /* v2: for CLONE_INTO_CGROUP; borrowed; -1 on v1 */
    int fds[CGROUP_HIERARCHIES_MAX]; /* owned; the process writes "0" to each, in this order */
    size_t count;
};

struct cgroup_ops {
    const char *name;
    int version;

    /* Makes the cgroup in every hierarchy. -EEXIST when it is there and holds processes. */
    int (*create)(struct cgroup *cgroup, struct error *err);

    /* Limits. Called before the first process is in. resources may be NULL: device rules are set
     * even then. Something that cannot be expressed here is refused by name. */
    int (*apply)(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err);

    /* Opens what cgroup_join_self needs, with the caller's credentials: the kernel checks those of
     * the opener, so that a process in a new user namespace can still join. */
    int (*prepare_join)(struct cgroup *cgroup, struct cgroup_join *ret, struct error *err);

    /* Stops or continues all processes and waits until that is so. */
    int (*freeze)(struct cgroup *cgroup, bool frozen, struct error *err);
    int (*is_frozen)(struct cgroup *cgroup); /* 1, 0 or -errno */

    /* Kills every process with SIGKILL, also below, also frozen ones. Does not wait. */
    int (*kill)(struct cgroup *cgroup, struct error *err);

    /* The hierarchy whose cgroup.procs lists the processes. */
    struct cgroup_hierarchy *(*processes)(struct cgroup *cgroup);
};

extern const struct cgroup_ops cgroup_v1_ops, cgroup_v2_ops;

/* Whether the machine has v2 alone (not v1 beside it). */
bool cgroup_is_v2(void);

/* Looks at /sys/fs/cgroup, chooses the backend. path: linux.cgroupsPath, NULL: "/" + id. */
int cgroup_init(struct cgroup *cgroup, const char *path, const char *id, struct error *err);

/* cgroup_init and create(). Where the configuration names no path and the caller is not root of the
 * machine: beside the caller's own cgroup when that is delegated (v2), else none (path ""):
 * operations then do nothing, but limits and freezing are refused. */
int cgroup_make_or_none(struct cgroup *cgroup, const char *path, const char *id, struct error *err);
int cgroup_open_none(struct cgroup *cgroup);
bool cgroup_is_none(const struct cgroup *cgroup);

/* The same for a cgroup that exists; hierarchies where it does not are left out. made_depth: from
 * the state file. */
int cgroup_open(struct cgroup *cgroup, const char *path, int made_depth, struct error *err);
void cgroup_finish(struct cgroup *cgroup); /* releases descriptors and memory, removes nothing */

/* In the process that joins. Needs no allocation. */
int cgroup_join_self(const struct cgroup_join *join);
void cgroup_join_finish(struct cgroup_join *join);

/* All processes in it and below. ret is owned by the caller. */
int cgroup_processes(struct cgroup *cgroup, pid_t **ret, size_t *ret_count, struct error *err);

/* Sends a signal to every process: frozen meanwhile, so that none escapes by forking. */
int cgroup_signal_all(struct cgroup *cgroup, int signal, struct error *err);

/* Removes the cgroup with all cgroups below it, and the parents that create() made when they are
 * empty. Waits up to a second for dying processes to leave. A missing cgroup is success. */
int cgroup_destroy(struct cgroup *cgroup, struct error *err);

/* Shared by the backends. */
struct cgroup_hierarchy *cgroup_hierarchy_find(struct cgroup *cgroup, const char *controller);
int cgroup_make_directories(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy,
                            int (*made)(int parent_fd, int fd, struct error *err),
                            struct error *err);
int cgroup_write(const struct cgroup_hierarchy *hierarchy, const char *file, const char *value,
                 struct error *err);

#endif
