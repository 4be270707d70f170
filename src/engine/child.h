/*
 * Child processes of the daemon on its loop: noticed by pidfd, reaped, told.
 */
#ifndef ENGINE_CHILD_H
#define ENGINE_CHILD_H

#include <uv.h>

#include <base/error.h>
#include <base/process.h>

struct child;

/* status as in wait(2). The child is gone already; the struct child goes after the call. */
typedef void (*child_ended)(int status, void *data);

/* Takes process over. ended may be NULL: it is only reaped. timeout_ms > 0: SIGKILL after that
 * time. The watch does not keep the loop alive when ended is NULL. */
int child_watch(uv_loop_t *loop, struct process *process, unsigned timeout_ms, child_ended ended,
                void *data, struct error *err);

/* Watches no child any more; they live on, and nobody is told. */
void child_forget_all(uv_loop_t *loop);

#endif
