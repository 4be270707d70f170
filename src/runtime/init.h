/*
 * The child of create and run: turns itself into the container's first process.
 */
#ifndef RUNTIME_INIT_H
#define RUNTIME_INIT_H

#include "container.h"
#include "workload.h"

/* Does not return. Failures travel over container->sync_fd. */
_Noreturn void init_main(struct container *container, struct workload *workload);

/* Shared with exec: default dispositions and an empty signal mask. */
void init_reset_signals(void);

/* Shared with exec: the resource limits. The parent sets them where the process has a user
 * namespace of its own. */
int init_set_limits(int sync_fd, const struct workload *workload, bool by_parent,
                    struct error *err);

/* Shared with exec: what a failure after SYNC_RELEASE does, when nobody listens any more: the text
 * goes to standard error, the exit status is a shell's. */
_Noreturn void init_fail(int sync_fd, const struct error *err);

#endif
