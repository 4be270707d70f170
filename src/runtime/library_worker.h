/*
 * The fork of an embedding program in which containers' processes are made (include/cloche/
 * runtime.h, "Processes").
 */
#ifndef RUNTIME_LIBRARY_WORKER_H
#define RUNTIME_LIBRARY_WORKER_H

#include <stdbool.h>

#include <base/error.h>

/* What is done in the fork. exit_code and warnings as runtime_run() and runtime_exec() give them.
 */
typedef int (*library_work)(const char *root, const void *options, char ***warnings,
                            int *ret_exit_code, struct error *err);

/* Runs it in a fork of the caller and waits for that; stdio: three descriptors or NULL. Signals of
 * the terminal and handlers of the caller do not reach into it. */
int library_worker_run(library_work work, const char *root, const void *options, const int *stdio,
                       char ***warnings, int *ret_exit_code, struct error *err);

/* In the fork: what it will report goes through a descriptor at or above end, so that it lies among
 * none that a container's program keeps. Nothing elsewhere. */
int library_worker_keep_off(int end, struct error *err);
bool library_worker_is_report(int fd);

#endif
