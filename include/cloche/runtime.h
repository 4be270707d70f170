/*
 * libcloche-runtime: containers from OCI bundles, in the calling process.
 *
 *     struct cloche_runtime *runtime;
 *     if (cloche_runtime_open(NULL, &runtime) < 0)
 *         return;
 *     if (cloche_runtime_create(runtime, &(struct cloche_runtime_create_options){
 *                 .id = "shop", .bundle = "/srv/shop", .detach = true}) < 0 ||
 *         cloche_runtime_start(runtime, "shop") < 0)
 *         fprintf(stderr, "%s\n", cloche_runtime_error(runtime));
 *     cloche_runtime_close(runtime);
 *
 * Functions return 0 (or something useful and non-negative) or -errno. After a failure the handle
 * has a text for the user and may have a hint, which says what to try next. Texts that podman,
 * containerd and docker look for are runc's. Every function may block: on the kernel, on hooks, on
 * the container's process. A handle is for one thread at a time; several handles are independent,
 * and what they share is on disk: every function sees the containers that others made.
 *
 * Processes. A container's first process, and a process that exec starts, begins as a copy of the
 * caller. In a program with threads, or one that has descriptors and namespaces of its own, the
 * work is therefore done in a fork of it, which ends with the call; the container's process is then
 * an orphan, and a caller that wants its exit status makes itself the child subreaper
 * (prctl(PR_SET_CHILD_SUBREAPER, 1), prctl(2)) and waits for the number that
 * cloche_runtime_state() gives. With `direct` there is no fork: the process is the caller's child,
 * and what the header says of `direct` holds.
 *
 * The caller's own file. Until a container's process executes its program, /proc/PID/exe in there
 * leads to the file of the calling program (CVE-2019-5736). A program that embeds the library calls
 * cloche_runtime_seal() first thing in main().
 *
 * Structures are zero-initialised by the caller, so that members added by later versions have their
 * defaults. Strings given are borrowed for the call.
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

enum cloche_runtime_status {
    CLOCHE_RUNTIME_CREATING,
    CLOCHE_RUNTIME_CREATED,
    CLOCHE_RUNTIME_RUNNING,
    CLOCHE_RUNTIME_PAUSED,
    CLOCHE_RUNTIME_STOPPED,
};

const char *cloche_runtime_status_name(enum cloche_runtime_status status);

struct cloche_runtime_create_options {
    const char *id;
    const char *bundle;         /* NULL: the current directory */
    const char *config;         /* within the bundle, or absolute; NULL: config.json */
    const char *console_socket; /* NULL: none */
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
};

struct cloche_runtime_exec_options {
    const char *id;
    const char *process_file;  /* NULL: args and the container's own process */
    char *const *args;         /* NULL-terminated; NULL with process_file */
    const char *cwd;           /* NULL: the container's */
    char *const *environment;  /* NULL-terminated, added; NULL: none */
    char *const *capabilities; /* NULL-terminated, added; NULL: none */
    const char *user;          /* "uid[:gid]", NULL: the container's */
    char *const *cgroups; /* NULL-terminated; below the container's: "PATH", or with cgroup v1 also
                             "CONTROLLER[,CONTROLLER]:PATH"; NULL: the container's own */
    const uint32_t *additional_gids;
    size_t additional_gids_count;
    const char *apparmor_profile; /* NULL: the container's; also the next one */
    const char *selinux_label;
    bool terminal;
    bool no_new_privileges;
    bool ignore_paused; /* the process starts when the container is resumed */
    bool detach;
    const char *console_socket;
    const char *pid_file;
    const char *pidfd_socket; /* gets a pidfd of the process; NULL: none */
    const char *wait_fifo;    /* executed when somebody opens it for reading; NULL: at once */
    unsigned preserve_fds;
    const int *stdio; /* as in cloche_runtime_create_options */
};

/* A device node in a container. */
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
    const char *id;

    /* A linux.resources object of the OCI configuration, as JSON; NULL: none. Its `devices` replace
     * the device rules of the configuration; the devices that every container has stay allowed. */
    const char *resources;

    /* Rules behind the others, as devices.allow of cgroup v1 takes them ("c 189:* rwm");
     * NULL-terminated; NULL: none. */
    char *const *allow, *const *deny;

    /* Nodes made in the container, each with a rule that allows it. */
    const struct cloche_runtime_device *add_devices;
    size_t add_devices_count;

    /* Paths of nodes, of the configuration or added before, that are removed with the rules that
     * allow exactly them. What has them open keeps them. NULL-terminated; NULL: none. */
    char *const *remove_devices;
};

struct cloche_runtime_info {
    char *oci_version, *id, *bundle, *rootfs, *created, *owner; /* owned */
    char **annotations; /* owned, NULL-terminated; key, value, key, value */
    pid_t pid;          /* 0 when stopped */
    enum cloche_runtime_status status;
};

/* The handle. */
struct cloche_runtime;

struct cloche_runtime_settings {
    const char *root; /* NULL: CLOCHE_RUNTIME_ROOT */

    /* create, run and exec make the container's process from the calling process itself, and not
     * from a fork of it. For programs with a single thread: namespaces are entered and left, the
     * process becomes not dumpable for a while, and run changes the signal mask. `stdio` is not
     * taken then. */
    bool direct;

    /* For what is not a failure and should still be known; NULL: dropped. One line, without a
     * newline; valid for the call. */
    void (*warn)(void *context, const char *text);
    void *context;
};

/* settings may be NULL: all defaults. Fails only with -EINVAL, for a root that is not absolute.
 * The folder is made when the first container is. */
int cloche_runtime_open(const struct cloche_runtime_settings *settings,
                        struct cloche_runtime **ret);
void cloche_runtime_close(struct cloche_runtime *runtime); /* containers stay; NULL allowed */

/* Of the last call that failed; never NULL; valid until the next call with this handle. */
const char *cloche_runtime_error(const struct cloche_runtime *runtime);
const char *cloche_runtime_hint(const struct cloche_runtime *runtime); /* may be NULL */

/* The container's program waits for start. */
int cloche_runtime_create(struct cloche_runtime *runtime,
                          const struct cloche_runtime_create_options *options);
int cloche_runtime_start(struct cloche_runtime *runtime, const char *id);

/* create and start in one. Without `detach` it waits for the end, copies a terminal, and deletes
 * the container unless `keep` is set. *ret_exit_code is as a shell has it: 128 and the number for a
 * signal; 0 when detached. */
int cloche_runtime_run(struct cloche_runtime *runtime,
                       const struct cloche_runtime_create_options *options, int *ret_exit_code);

/* A further process in a container. Exit code as for run. */
int cloche_runtime_exec(struct cloche_runtime *runtime,
                        const struct cloche_runtime_exec_options *options, int *ret_exit_code);

/* all: every process of the container and not only its first one. */
int cloche_runtime_kill(struct cloche_runtime *runtime, const char *id, int signal, bool all);
int cloche_runtime_pause(struct cloche_runtime *runtime, const char *id);
int cloche_runtime_resume(struct cloche_runtime *runtime, const char *id);

/* Changes limits and devices. When it fails, what was in effect before is put back where that can
 * be. */
int cloche_runtime_update(struct cloche_runtime *runtime,
                          const struct cloche_runtime_update_options *options);

/* force: kills first; a container that does not exist is success then. */
int cloche_runtime_delete(struct cloche_runtime *runtime, const char *id, bool force);

int cloche_runtime_state(struct cloche_runtime *runtime, const char *id,
                         struct cloche_runtime_info *ret);
void cloche_runtime_info_finish(struct cloche_runtime_info *info);

/* The identifiers of all containers, sorted; NULL-terminated; freed with
 * cloche_runtime_list_free(). *ret is NULL when there is none. */
int cloche_runtime_list(struct cloche_runtime *runtime, char ***ret);
void cloche_runtime_list_free(char **list);

/* Numbers in the caller's pid namespace; *ret is freed with free(). */
int cloche_runtime_processes(struct cloche_runtime *runtime, const char *id, pid_t **ret,
                             size_t *ret_count);

/* What this library supports, as the OCI features document; freed with free(). */
char *cloche_runtime_features(void);

/* Executes the calling program once more, from a mount of its own file that nobody can write
 * through, and returns 0 there. argv is main()'s. Fails with -errno where neither such a mount nor
 * a sealed copy in memory can be made. The copy has no folder: a run path with $ORIGIN is lost. */
int cloche_runtime_seal(char **argv);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
