/*
 * Building a container, up to the point where its program is about to be executed.
 */
#ifndef RUNTIME_CREATE_H
#define RUNTIME_CREATE_H

#include <runtime/runtime.h>

#include "container.h"
#include "workload.h"

/* wait_for_start: with the pipe that `start` opens; else the program is executed at once, and a
 * failure to do so is an error here. On failure nothing is left behind. On success container holds
 * the process (pid, pidfd); the caller finishes it. relay_fd: where a terminal's master arrives,
 * for a caller that has no console socket (-1 without a terminal); owned by the caller. */
int create_container(struct container *container, const char *root,
                     const struct cloche_runtime_create_options *options, bool wait_for_start,
                     int *ret_relay_fd, struct error *err);

/* After create_container without wait_for_start, when the process has ended: that it could not
 * execute the program may show only now. On failure nothing is left behind, as there. Without this
 * the caller would be woken in between only to wait again. */
int create_check_executed(struct container *container, const char *root, struct error *err);

/* The bundle's configuration, checked, and its root. bundle NULL: the current directory. */
int create_load_bundle(struct container *container, const char *bundle, struct error *err);

/* Sets the limits of a child that has a user namespace when it asks for them (SYNC_ROOT_DONE): it
 * may not raise them itself. */
int create_serve_limits(int sync_fd, pid_t pid, const struct workload *workload, struct error *err);

/* The host's /proc, checked to be one. */
int create_open_proc(struct error *err);

int create_write_pid_file(const char *path, pid_t pid, struct error *err);

#endif
