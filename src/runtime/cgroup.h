/*
 * Control groups of one container.
 *
 * A backend is a table of operations. Callers never ask which version it is. Where systemd makes
 * the cgroup (unit is set), the backend adopts it and shares the rest (cgroup_systemd.h).
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

struct oci_config;
struct oci_resources;
struct cgroup_ops;
struct device_rule;

enum {
    CGROUP_HIERARCHIES_MAX = 16, /* v1 knows 14 controllers and the named systemd hierarchy */
    CGROUP_PATH_MAX = 1024,
    CGROUP_DEPTH_MAX = 64,     /* components of linux.cgroupsPath */
    CGROUP_FILE_MAX = 1 << 20, /* bytes read from one control file */
};

struct cgroup_hierarchy {
    char name[48]; /* folder under /sys/fs/cgroup: "memory", "cpu,cpuacct", "unified" (the v2 tree
                      of the hybrid layout); "" on v2 */
    bool is_v2;
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
    char *unit;        /* owned; systemd's scope; NULL: the cgroup is made directly */
    char *slice;       /* owned; what the scope is in; NULL once it is there */
    bool user_manager; /* the scope belongs to `systemd --user` */
};

/* How a process gets in: cheap for the one who does it (self-join through "tasks" is twenty times
 * cheaper than a write of somebody else's pid to cgroup.procs, and CLONE_INTO_CGROUP costs
 * nothing).
 */
struct cgroup_join {
    int clone_fd;                    /* the v2 cgroup, for CLONE_INTO_CGROUP; borrowed; -1: none */
    int fds[CGROUP_HIERARCHIES_MAX]; /* owned; the process writes "0" to each, in this order; with
                                        a clone_fd the first one is that cgroup's */
    size_t count;
    int owned_fd; /* more than 0: clone_fd is owned, and this */
};

struct cgroup_ops {
    const char *name;
    int version;

    /* Makes the cgroup in every hierarchy. -EEXIST when it is there and holds processes. */
    int (*create)(struct cgroup *cgroup, struct error *err);

    /* Opens a cgroup that systemd made, with the process in it; makes it in the hierarchies where
     * systemd does not, and puts the process in there. */
    int (*adopt)(struct cgroup *cgroup, pid_t pid, struct error *err);

    /* Limits, without device rules; also of a cgroup with processes in it. Fields that are not set
     * stay as they are. Something that cannot be expressed here is refused by name. */
    int (*apply)(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err);

    /* Device rules, in place of those that are there. live: processes are in it, and what both the
     * old and the new rules allow must never fail for them. */
    int (*set_devices)(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                       bool live, struct error *err);

    /* Gives the cgroup to a user (as the kernel numbers them), who may then make cgroups below. */
    int (*delegate)(struct cgroup *cgroup, uid_t uid, struct error *err);

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

/* cgroup_init, then create(). Where the configuration names no path and the caller is not root of
 * the machine: beside the caller's own cgroup when that is delegated (v2), else none (path ""):
 * operations then do nothing, but limits and freezing are refused. */
int cgroup_choose(struct cgroup *cgroup, const char *path, const char *id, struct error *err);
int cgroup_create_or_none(struct cgroup *cgroup, const char *path, const char *id,
                          struct error *err);
/* None, whatever could be made. */
int cgroup_choose_none(struct cgroup *cgroup, const char *id, struct error *err);
int cgroup_open_none(struct cgroup *cgroup);
bool cgroup_is_none(const struct cgroup *cgroup);

/* The same for a cgroup that exists; hierarchies where it does not are left out. What was made is
 * for the caller to fill in: nothing, so far. */
int cgroup_open(struct cgroup *cgroup, const char *path, struct error *err);
/* The same, but of the hierarchy of one controller alone (and on v2 of the only one): to look at
 * it. */
int cgroup_open_for(struct cgroup *cgroup, const char *path, const char *controller,
                    struct error *err);
void cgroup_finish(struct cgroup *cgroup); /* releases descriptors and memory, removes nothing */

/* Sets each made_depth to what creation will make, for the state of a container whose creation may
 * end at any time. */
void cgroup_foresee(struct cgroup *cgroup);
bool cgroup_was_made(const struct cgroup *cgroup); /* in one hierarchy at least */

/* Before a process is in: device rules (also when resources is NULL), then limits. */
int cgroup_limit(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err);

/* What of the resources is not applied because something else in them rules it out (a weight of
 * what is idle, on v2): a warning, static; NULL: nothing. */
const char *cgroup_left_out(const struct cgroup *cgroup, const struct oci_resources *resources);

/* For a cgroup that processes are in: limits alone, and device rules alone. Of a scope systemd is
 * told, too. */
int cgroup_update(struct cgroup *cgroup, const struct oci_resources *resources, struct error *err);
int cgroup_update_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                          struct error *err);

/* Gives the cgroup to the container's user, where the configuration lets the container have it: a
 * cgroup namespace of its own, and cgroups mounted at /sys/fs/cgroup without "ro". */
int cgroup_delegate(struct cgroup *cgroup, const struct oci_config *config, struct error *err);
/* The same whatever the container's mounts and namespaces are. */
int cgroup_delegate_to(struct cgroup *cgroup, const struct oci_config *config, struct error *err);

/* For a further process of a container. places: of exec --cgroup, "PATH" or on v1 also
 * "CONTROLLER[,CONTROLLER]:PATH", below the container's cgroup; NULL or empty: its top, or where
 * its first process is when the top is gone, or hands controllers down and takes no processes (v2).
 */
int cgroup_prepare_join_further(struct cgroup *cgroup, char *const *places, pid_t init,
                                struct cgroup_join *ret, struct error *err);
/* v2: the place of its first process. */
int cgroup_prepare_join_init(struct cgroup *cgroup, pid_t init, struct cgroup_join *ret,
                             struct error *err);

/* In the process that joins. born_there: it was cloned into clone_fd. Needs no allocation. */
int cgroup_join_self(const struct cgroup_join *join, bool born_there);
void cgroup_join_finish(struct cgroup_join *join);

/* All processes in it and below. ret is owned by the caller. */
int cgroup_processes(struct cgroup *cgroup, pid_t **ret, size_t *ret_count, struct error *err);

/* Sends a signal to every process: frozen meanwhile, so that none escapes by forking. */
int cgroup_signal_all(struct cgroup *cgroup, int signal, struct error *err);

/* Removes the cgroup with all cgroups below it, and the parents that create() made when they are
 * empty. Waits up to a second for dying processes to leave. A missing cgroup is success. */
int cgroup_destroy(struct cgroup *cgroup, struct error *err);

/* Shared by the backends. */
/* The hierarchy with a controller, NULL when there is none. On v2 it is the same for all. */
struct cgroup_hierarchy *cgroup_hierarchy_find(struct cgroup *cgroup, const char *controller);
/* The v2 tree of the hybrid layout, NULL without one. */
struct cgroup_hierarchy *cgroup_v2_tree(struct cgroup *cgroup);
int cgroup_make_directories(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy,
                            int (*made)(int parent_fd, int fd, struct error *err),
                            struct error *err);
/* -ENOENT when this kernel has no such file. */
int cgroup_write(const struct cgroup_hierarchy *hierarchy, const char *file, const char *value,
                 struct error *err);
/* The first line of a small control file. -errno without a message. */
int cgroup_read_line(int directory_fd, const char *file, char *ret, size_t size);
/* A number; "max" is UINT64_MAX. */
int cgroup_read_number(int directory_fd, const char *file, uint64_t *ret);
/* Processes that were killed for want of memory so far (v1: Linux 4.13). */
uint64_t cgroup_oom_kills(struct cgroup *cgroup);
/* Calls visit for the cgroups below fd, deepest first. parent_fd and name are where it is. */
int cgroup_walk_below(int fd, int (*visit)(int parent_fd, const char *name, int fd, void *context),
                      void *context);

#endif
