/*
 * libcloche-runtime: containers from OCI bundles, in the calling process.
 *
 *     struct cloche_runtime *runtime;
 *     const struct cloche_runtime_create_options options = {
 *         .size = sizeof(options), .id = "shop", .bundle = "/srv/shop"};
 *
 *     if (cloche_runtime_open(NULL, &runtime) < 0)
 *         return;
 *     if (cloche_runtime_create(runtime, &options) < 0 ||
 *         cloche_runtime_start(runtime, "shop", NULL) < 0)
 *         fprintf(stderr, "%s\n", cloche_runtime_error(runtime));
 *     cloche_runtime_close(runtime);
 *
 * Results. Functions return 0 (or something useful and non-negative) or -errno. After a failure the
 * handle has a text for the user and may have a hint, which says what to try next. Texts that
 * podman, containerd and docker look for are runc's. Of the numbers these can be relied on: -ENOENT
 * for a container that does not exist, -EEXIST for one that does, -EBUSY for one that is not
 * stopped when it is deleted, -ESRCH for one whose process has ended when that gets a signal,
 * -EINVAL for what is wrong in options, configuration or state, -ENOTSUP for what this library,
 * machine or container cannot do. *ret is written on success only. A want of memory ends the
 * calling process (abort(3)).
 *
 * Blocking. Every function that takes a handle may block, unless it says otherwise: on the kernel,
 * on hooks, on the container's process. None can be cancelled, but for cloche_runtime_events().
 *
 * Threads. A handle is for one thread at a time; several handles are independent and may be used at
 * once, also for the same container. What they share is on disk: every function sees the containers
 * that other handles, other programs and the command line made.
 *
 * Processes. A container's first process, and a process that exec starts, begins as a copy of the
 * caller. In a program with threads, or one that has descriptors and namespaces of its own, the
 * work is therefore done in a fork of it, which ends with the call and costs what a fork of the
 * caller costs. The container's process is then an orphan: cloche_runtime_pidfd() tells when it
 * has ended, and a caller that wants its exit status makes itself the child subreaper
 * (prctl(PR_SET_CHILD_SUBREAPER, 1), prctl(2)) and waits for the number that
 * cloche_runtime_state() gives. With `direct` there is no fork: the process is the caller's child,
 * and what the header says of `direct` holds. Without it no call leaves anything changed of the
 * caller's handlers, masks, working directory, environment, descriptors and namespaces, and a
 * caller may ignore SIGCHLD or take the end of any child: the library's own are the fork, whose end
 * it does not need, and the fork's. The fork allocates memory: an allocator that takes malloc's
 * place has to be usable in a fork of a program with threads (those of the libcs are; those of gcc
 * 12's sanitizers are not).
 *
 * The caller's own file. Until a container's process executes its program, /proc/PID/exe in there
 * leads to the file of the calling program (CVE-2019-5736). A program that embeds the library calls
 * cloche_runtime_seal() first thing in main().
 *
 * Structures. Those with a `size` may get members in later versions, at their end. The caller sets
 * `size` to sizeof of the structure and all that it does not use to zero, which is the default of
 * every member: a program works with older and newer libraries then. -EINVAL without a size; -E2BIG
 * when a member that this library does not know is not zero. Structures that a function returns are
 * the library's to allocate and may grow at their end, too. Strings and lists given are borrowed
 * for the call. A list of strings ends with NULL; a list that is NULL is empty.
 */
#ifndef CLOCHE_RUNTIME_H
#define CLOCHE_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define CLOCHE_RUNTIME_ROOT "/run/cloche-runtime" /* default folder of all containers' states */

/* ---- the handle ------------------------------------------------------------------------------ */

struct cloche_runtime;

/* Whether the caller may do less than the root of the machine. Cgroups, device rules and limits
 * that such a caller cannot have are done without where nothing in the configuration depends on
 * them. */
enum cloche_runtime_rootless {
    CLOCHE_RUNTIME_ROOTLESS_AUTO, /* looks: another user, or root of a user namespace */
    CLOCHE_RUNTIME_ROOTLESS_NO,
    CLOCHE_RUNTIME_ROOTLESS_YES,
};

enum cloche_runtime_level {
    CLOCHE_RUNTIME_WARNING, /* no failure, and should still be known */
    CLOCHE_RUNTIME_DEBUG,   /* steps */
};

struct cloche_runtime_settings {
    size_t size;

    /* The folder with the state of all containers, absolute. NULL: CLOCHE_RUNTIME_ROOT, and for
     * who may not write there $XDG_RUNTIME_DIR/cloche-runtime. It is made with the first container
     * (the second at once). */
    const char *root;

    /* Everything is done in the calling process itself, and nothing in a fork of it. For programs
     * with a single thread: namespaces are entered and left, the process becomes not dumpable, and
     * run, restore and exec without `detach` leave all signals blocked. `stdio` is not taken then.
     */
    bool direct;

    enum cloche_runtime_rootless rootless;

    /* NULL: dropped. One line, without a newline; valid for the call. It is called by the thread
     * that works with the handle, before the function returns, and must not use the handle. */
    void (*log)(void *context, enum cloche_runtime_level level, const char *text);
    void *context;
};

/* Does not block. settings may be NULL: all defaults. -EINVAL for a root that is not absolute, or
 * a size or rootless that is none. */
int cloche_runtime_open(const struct cloche_runtime_settings *settings,
                        struct cloche_runtime **ret);
void cloche_runtime_close(struct cloche_runtime *runtime); /* containers stay; NULL allowed */

/* Of the last call that failed; never NULL; valid until the next call with this handle. They do
 * not block. */
const char *cloche_runtime_error(const struct cloche_runtime *runtime);
const char *cloche_runtime_hint(const struct cloche_runtime *runtime); /* may be NULL */

/* ---- making containers ----------------------------------------------------------------------- */

struct cloche_runtime_create_options {
    size_t size;
    const char *id;             /* letters, digits and "_+-.", not first a full stop */
    const char *bundle;         /* NULL: the current directory */
    const char *config;         /* within the bundle, or absolute; NULL: config.json */
    const char *console_socket; /* gets the terminal's master (SCM_RIGHTS); NULL: none */
    const char *pid_file;       /* NULL: none */
    unsigned preserve_fds;      /* descriptors from 3 on that the program keeps, after listen_fds */
    unsigned listen_fds;        /* and those that it is told of in LISTEN_FDS (sd_listen_fds(3)) */
    const char *listen_names;   /* LISTEN_FDNAMES for it; NULL: none */
    const char *notify_socket;  /* sd_notify(3): told when the container is ready; NULL: none */
    const char *pidfd_socket;   /* gets a pidfd of the container's first process; NULL: none */
    const int *stdio;           /* three descriptors for its 0, 1 and 2; NULL: the caller's */
    bool no_new_keyring;
    bool systemd_cgroup; /* linux.cgroupsPath is "SLICE:PREFIX:NAME", a scope that systemd makes */
    bool no_pivot;       /* the root is changed by chroot(2): for roots that cannot be pivoted */
    bool detach;         /* run only */
    bool keep;           /* run only: not deleted when it has ended */
    bool no_cgroup;      /* it stays in the caller's: limits are refused, pausing fails */
};

/* The container's program waits for start. When it fails, nothing is left of the container. */
int cloche_runtime_create(struct cloche_runtime *runtime,
                          const struct cloche_runtime_create_options *options);

struct cloche_runtime_start_options {
    size_t size;
    const char *notify_socket; /* as for create: waits until the container is ready; NULL: none */
};

/* options may be NULL. */
int cloche_runtime_start(struct cloche_runtime *runtime, const char *id,
                         const struct cloche_runtime_start_options *options);

/* create and start in one. Without `detach` it waits for the end, copies a terminal, passes signals
 * on, and deletes the container unless `keep` is set. *ret_exit_code is as a shell has it: 128 and
 * the number for a signal; 0 when detached. */
int cloche_runtime_run(struct cloche_runtime *runtime,
                       const struct cloche_runtime_create_options *options, int *ret_exit_code);

/* ---- further processes ----------------------------------------------------------------------- */

struct cloche_runtime_exec_options {
    size_t size;
    const char *id;
    const char *process_file; /* OCI's process object; NULL: args and the container's own process */
    char *const *args;        /* NULL with process_file */
    const char *cwd;          /* NULL: the container's */
    char *const *environment; /* "NAME=VALUE", added to the container's */
    char *const *capabilities; /* "CAP_...", added to the container's */
    const char *user;          /* "uid[:gid]", NULL: the container's */
    char *const *cgroups;      /* below the container's: "PATH", or with cgroup v1 also
                                  "CONTROLLER[,CONTROLLER]:PATH"; NULL: the container's own */
    const uint32_t *additional_gids;
    size_t additional_gids_count;
    const char *apparmor_profile; /* NULL: the container's; also the next one */
    const char *selinux_label;
    bool terminal;
    bool no_new_privileges;
    bool ignore_paused; /* the process starts when the container is resumed */
    bool detach;
    const char *console_socket; /* as in cloche_runtime_create_options, these and the following */
    const char *pid_file;
    const char *pidfd_socket;
    const char *wait_fifo; /* executed when somebody opens it for reading; NULL: at once */
    unsigned preserve_fds;
    const int *stdio;
};

/* Without `detach` it waits for the end; exit code as for run. */
int cloche_runtime_exec(struct cloche_runtime *runtime,
                        const struct cloche_runtime_exec_options *options, int *ret_exit_code);

/* ---- containers that exist ------------------------------------------------------------------- */

#define CLOCHE_RUNTIME_KILL_ALL (1U << 0) /* every process of the container, not only its first */
#define CLOCHE_RUNTIME_DELETE_FORCE (1U << 0) /* kills first; none of that name is success */

/* flags: CLOCHE_RUNTIME_KILL_ or 0. signal 0 only asks whether there is a process. */
int cloche_runtime_kill(struct cloche_runtime *runtime, const char *id, int signal, unsigned flags);

/* Until every process of the container is frozen; resume: until none is. */
int cloche_runtime_pause(struct cloche_runtime *runtime, const char *id);
int cloche_runtime_resume(struct cloche_runtime *runtime, const char *id);

/* flags: CLOCHE_RUNTIME_DELETE_ or 0. With force it waits up to 10 s for the end of the processes
 * (-ETIMEDOUT). */
int cloche_runtime_delete(struct cloche_runtime *runtime, const char *id, unsigned flags);

/* A device node in a container. This structure does not grow. */
struct cloche_runtime_device {
    const char *path; /* in the container, absolute; missing folders are made */
    char type;        /* 'c' or 'b' */
    uint32_t major, minor;
    uint32_t mode;      /* permissions; 0: 0666 */
    uint32_t uid, gid;  /* in the container */
    const char *access; /* of "r", "w" and "m"; NULL: all */
};

/* What changes about a container that is created, running or paused. What is not given stays. */
struct cloche_runtime_update_options {
    size_t size;
    const char *id;

    /* A linux.resources object of the OCI configuration, as JSON, in its units (bytes,
     * microseconds ...); NULL: none. Its `devices` replace the device rules of the configuration;
     * the devices that every container has stay allowed. */
    const char *resources;

    /* Rules behind the others, as devices.allow of cgroup v1 takes them ("c 189:* rwm"). */
    char *const *allow, *const *deny;

    /* Nodes made in the container, each with a rule that allows it. */
    const struct cloche_runtime_device *add_devices;
    size_t add_devices_count;

    /* Paths of nodes, of the configuration or added before, that are removed with the rules that
     * allow exactly them. What has them open keeps them. */
    char *const *remove_devices;

    /* Lines of a resctrl group's schemata ("L3:0=f;1=f0"), for a container whose configuration has
     * linux.intelRdt; NULL: as they are. */
    const char *l3_cache_schema, *mem_bw_schema;
};

/* Changes limits and devices. When it fails, what was in effect before is put back where that can
 * be. */
int cloche_runtime_update(struct cloche_runtime *runtime,
                          const struct cloche_runtime_update_options *options);

/* Mounts that come to a container that is created, running or paused, and go again; they end with
 * it, and a restart knows nothing of them. mounts: JSON, a list as `mounts` of the OCI
 * configuration is one, or an object that has it as `mounts`. Relative sources are below the
 * bundle. -ENOTSUP for what needs the container's making (cgroup mounts, remounts of a file
 * system), and for a container without a mount namespace of its own. When it fails nothing has
 * come. */
int cloche_runtime_add_mounts(struct cloche_runtime *runtime, const char *id, const char *mounts);

/* Of the entries only `destination` counts; the last one goes first. -EINVAL where nothing is
 * mounted, -ELOOP where a symbolic link is on the way: it could lead to what protects the host. A
 * failure leaves the entries before it in their place. */
int cloche_runtime_remove_mounts(struct cloche_runtime *runtime, const char *id,
                                 const char *mounts);

/* ---- what there is --------------------------------------------------------------------------- */

enum cloche_runtime_status {
    CLOCHE_RUNTIME_CREATING,
    CLOCHE_RUNTIME_CREATED,
    CLOCHE_RUNTIME_RUNNING,
    CLOCHE_RUNTIME_PAUSED,
    CLOCHE_RUNTIME_STOPPED,
};

/* "running" and so on, as OCI has them; NULL for a number that is no status. Does not block. */
const char *cloche_runtime_status_name(enum cloche_runtime_status status);

struct cloche_runtime_info {
    const char *oci_version, *id, *bundle, *rootfs; /* the two folders are absolute */
    const char *created;                            /* RFC 3339, UTC */
    const char *owner;                              /* the name of the user who made it */
    const char *const *annotations; /* key, value, key, value, NULL; NULL: there are none */
    pid_t pid;                      /* in the caller's pid namespace; 0 when stopped */
    enum cloche_runtime_status status;
    const char *systemd_unit; /* its scope; NULL: its cgroup was made directly */
};

/* *ret is freed with cloche_runtime_info_free(), which takes NULL. */
int cloche_runtime_state(struct cloche_runtime *runtime, const char *id,
                         struct cloche_runtime_info **ret);
void cloche_runtime_info_free(struct cloche_runtime_info *info);

/* As JSON, as the command line's `state` (indented) and `list` print it: OCI's state with rootfs,
 * created, owner and, as crun has it, systemd-scope. Freed with free(). Does not block. */
char *cloche_runtime_info_json(const struct cloche_runtime_info *info, bool indented);

/* A descriptor of the container's first process (pidfd_open(2)), the caller's to close, with
 * close-on-exec: readable when the process has ended. -ESRCH when it has ended already. */
int cloche_runtime_pidfd(struct cloche_runtime *runtime, const char *id);

/* The identifiers of all containers, sorted. *ret is freed with cloche_runtime_list_free(), and is
 * NULL when there is none. */
int cloche_runtime_list(struct cloche_runtime *runtime, char ***ret);
void cloche_runtime_list_free(char **list);

/* Numbers in the caller's pid namespace; *ret is freed with free(). */
int cloche_runtime_processes(struct cloche_runtime *runtime, const char *id, pid_t **ret,
                             size_t *ret_count);

/* What the container uses now: {"type":"stats","id":...,"data":{...}}, one line, with the members
 * and units of runc's events. *ret is freed with free(). -ENOTSUP for a container without cgroup.
 */
int cloche_runtime_statistics(struct cloche_runtime *runtime, const char *id, char **ret);

struct cloche_runtime_events_options {
    size_t size;
    uint64_t interval_ms; /* between statistics; 0: 5000 */

    /* One JSON object in one line, without a newline, valid for the call: statistics as above at
     * the interval, and {"type":"oom","id":...} for each kill for want of memory when it happens.
     * What it returns that is not 0 ends the watch and is its result. Must not use the handle. */
    int (*event)(void *context, const char *json);
    void *context;

    const int *stop_fd; /* ends the watch, with 0, when it is readable; NULL: none */
};

/* Until the container's first process has ended, which is 0. */
int cloche_runtime_events(struct cloche_runtime *runtime, const char *id,
                          const struct cloche_runtime_events_options *options);

/* ---- checkpoint and restore, by criu(8) ------------------------------------------------------ */

struct cloche_runtime_criu_options {
    size_t size;
    const char *id;
    const char *criu;           /* the program; NULL: "criu" in PATH */
    const char *image_path;     /* NULL: "checkpoint" in the current directory */
    const char *work_path;      /* for criu's log; NULL: the same */
    const char *manage_cgroups; /* soft, full, strict or ignore; NULL: criu's default */
    bool tcp_established, ext_unix_sk, shell_job, file_locks, auto_dedup, lazy_pages;

    /* checkpoint only */
    const char *parent_path;  /* of an earlier one, relative to image_path; NULL: none */
    const char *page_address; /* of a page server; NULL: none */
    unsigned page_port;
    const int *status_fd; /* gets a NUL when the lazy pages can be fetched, and is closed in the
                             process that works; NULL: none */
    bool leave_running, pre_dump, tcp_skip_in_flight, link_remap;

    /* restore only */
    const char *bundle;         /* NULL: the current directory */
    const char *console_socket; /* as in cloche_runtime_create_options, with the following */
    const char *pid_file;
    const char *lsm_profile;       /* "apparmor:NAME" or "selinux:NAME"; NULL: the saved one */
    const char *lsm_mount_context; /* SELinux; NULL: the saved one */
    const int *stdio;
    bool detach, systemd_cgroup;
};

/* Saves the processes of a running container, which is deleted afterwards unless it is to go on. */
int cloche_runtime_checkpoint(struct cloche_runtime *runtime,
                              const struct cloche_runtime_criu_options *options);

/* Makes a container from a bundle and what a checkpoint has saved. Not detached: as run. */
int cloche_runtime_restore(struct cloche_runtime *runtime,
                           const struct cloche_runtime_criu_options *options, int *ret_exit_code);

/* ---- without a container: these take no handle and may be called by several threads at once -- */

#define CLOCHE_RUNTIME_SPEC_ROOTLESS (1U << 0) /* for the calling user, in a user namespace */
#define CLOCHE_RUNTIME_SEAL_KEEP_FOLDER (1U << 0)

/* A config.json that runs a shell in the folder "rootfs"; freed with free(). flags:
 * CLOCHE_RUNTIME_SPEC_ or 0; NULL for others. */
char *cloche_runtime_spec(unsigned flags);

/* What this library supports, as the OCI features document; freed with free(). */
char *cloche_runtime_features(void);

const char *cloche_runtime_version(void);      /* of the library that is loaded, "0.1.0" */
const char *cloche_runtime_spec_version(void); /* of OCI's runtime specification, "1.3.0" */

/* Makes the calling program run from a mount of its own file that nobody can write through, in
 * place, or by executing it once more; returns 0 then. argv is main()'s. Call it before there are
 * threads. Fails with -errno where neither such a mount nor a sealed copy in memory can be made.
 * The sealed program has no folder: a run path with $ORIGIN is lost. flags: 0, or
 * CLOCHE_RUNTIME_SEAL_KEEP_FOLDER for a program that uses `systemd_cgroup` and is not installed:
 * keeps in the environment (CLOCHE_LIBEXEC) where the program that speaks to systemd was found
 * beside it. */
int cloche_runtime_seal(char **argv, unsigned flags);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
