/*
 * Event-loop glue for programs on libuv: child processes by pidfd, reaped and told on the loop's
 * thread. (libuv's own uv_spawn needs a SIGCHLD handler and cannot give a pidfd.) A library of its
 * own, base_uv_dep: base itself needs nothing but libc. Programs on plain epoll: base/watch.h.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <uv.h>

#include <base/error.h>
#include <base/process.h>

/* status as in wait(2). The child has been reaped. */
typedef void (*loop_child_ended)(int status, void *data);

/* Takes process over. ended may be NULL: it is only reaped. timeout_ms > 0: SIGKILL after that
 * time. The watch does not keep the loop alive when ended is NULL. */
int loop_watch_child(uv_loop_t *loop, struct process *process, unsigned timeout_ms,
                     loop_child_ended ended, void *data, struct error *err);

/* Watches no child any more; they live on, and nobody is told. */
void loop_forget_children(uv_loop_t *loop);

#endif
