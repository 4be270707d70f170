/*
 * The OCI runtime: containers from bundles (OCI runtime specification 1.3).
 *
 * Every function may block (on the kernel, on hooks, on the container's process) and is to be
 * called from a single-threaded process: namespaces are entered and left by the calling thread.
 * `root` is the folder with the state of all containers (/run/cloche-runtime). Errors carry the
 * text for the user; texts that podman, containerd and docker look for are runc's.
 */
#ifndef RUNTIME_RUNTIME_H
#define RUNTIME_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cloche/runtime.h>

#include <base/buffer.h>
#include <base/error.h>
#include <schema/json.h>

#define RUNTIME_SPEC_VERSION "1.3.0" /* of the OCI runtime specification, in what we write */

enum {
    RUNTIME_ID_MAX = 1024,
    RUNTIME_FORMAT_VERSION = 1, /* of the record */
};

/* warnings: owned list of texts for the log; filled also on failure. Those that begin with
 * RUNTIME_DEBUG are for who asked for everything (--debug). */
#define RUNTIME_DEBUG "debug: "

int runtime_create(const char *root, const struct cloche_runtime_create_options *options,
                   char ***warnings, struct error *err);

/* create and start in one. Not detached: waits for the end, copies a terminal, passes signals on,
 * deletes the container; *ret_exit_code as a shell has it. */
int runtime_run(const char *root, const struct cloche_runtime_create_options *options,
                char ***warnings, int *ret_exit_code, struct error *err);

/* notify_socket: as in cloche_runtime_create_options; waits until the container is ready then. */
int runtime_start(const char *root, const char *id, const char *notify_socket, char ***warnings,
                  struct error *err);

/* all: every process of the container and not only its first one. */
int runtime_kill(const char *root, const char *id, int signal, bool all, struct error *err);

/* force: kills first; a container that does not exist is success then. */
int runtime_delete(const char *root, const char *id, bool force, char ***warnings,
                   struct error *err);
int runtime_pause(const char *root, const char *id, struct error *err);
int runtime_resume(const char *root, const char *id, struct error *err);

int runtime_update(const char *root, const struct cloche_runtime_update_options *options,
                   char ***warnings, struct error *err);

/* mounts: as cloche_runtime_add_mounts() has it. */
int runtime_add_mounts(const char *root, const char *id, const char *mounts, char ***warnings,
                       struct error *err);
int runtime_remove_mounts(const char *root, const char *id, const char *mounts, char ***warnings,
                          struct error *err);

struct runtime_watch {
    /* 0: what the container uses now, once. Else every so many milliseconds, and each kill for want
     * of memory when it happens, until the container's first process ends. */
    uint64_t interval_ms;
    int stop_fd; /* ends it when readable; -1: none */
    /* text: one JSON object, without a newline; valid for the call. Other than 0 is the result. */
    int (*sink)(void *context, const char *text);
    void *context;
};

int runtime_events(const char *root, const char *id, const struct runtime_watch *watch,
                   struct error *err);

/* Process numbers in the caller's pid namespace; owned by the caller. */
int runtime_processes(const char *root, const char *id, pid_t **ret, size_t *ret_count,
                      struct error *err);

/* Freed with cloche_runtime_info_free(). */
int runtime_info(const char *root, const char *id, struct cloche_runtime_info **ret,
                 struct error *err);

/* A pidfd of the first process, owned by the caller. */
int runtime_pidfd(const char *root, const char *id, struct error *err);

/* The identifiers under root, sorted. A missing root is an empty list. */
int runtime_list(const char *root, char ***ret, struct error *err);

/* {"ociVersion": ..., "id": ...} as runc's `state` prints it. */
void runtime_info_write(const struct cloche_runtime_info *info, enum json_layout layout,
                        struct buffer *out);

int runtime_exec(const char *root, const struct cloche_runtime_exec_options *options,
                 char ***warnings, int *ret_exit_code, struct error *err);

/* Saves the processes of a running container, which is deleted afterwards unless it is to go on. */
int runtime_checkpoint(const char *root, const struct cloche_runtime_criu_options *options,
                       char ***warnings, struct error *err);

/* Makes a container from a bundle and what a checkpoint has saved. Not detached: as runtime_run. */
int runtime_restore(const char *root, const struct cloche_runtime_criu_options *options,
                    char ***warnings, int *ret_exit_code, struct error *err);

/* Whether the caller may do less than the root of the machine: another user, or root of a user
 * namespace. Cgroups, device rules and limits that such a caller cannot have are done without where
 * nothing in the configuration depends on them. */
bool runtime_caller_is_limited(void);

/* What runtime_caller_is_limited says from now on in this thread; with AUTO it looks again, once.
 */
void runtime_assume_rootless(enum cloche_runtime_rootless value);

/* A config.json that runs /bin/sh in rootfs, like runc's `spec`. */
void runtime_spec_write(bool rootless, struct buffer *out);

/* What this build supports (OCI features document). */
void runtime_features_write(struct buffer *out);

/* Finds the program that speaks to systemd and keeps its place in CLOCHE_LIBEXEC, unless that is
 * set. */
void runtime_systemd_find_helper(void);

#endif
