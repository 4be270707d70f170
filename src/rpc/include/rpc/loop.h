/*
 * The event loop of the module, behind one descriptor: it can be run by itself, or be polled by any
 * other loop.
 *
 *     rpc_loop_create(&loop, err);
 *     ...                                    servers and clients are made on it
 *     while (running)
 *         rpc_loop_run_once(loop, -1);
 *
 * or: whenever rpc_loop_fd(loop) is readable, call rpc_loop_dispatch(loop).
 *
 * epoll for descriptors, a heap for time. All functions are for the thread that runs the loop,
 * except rpc_loop_wake(). Callbacks may do anything but destroy the loop: remove watches and timers
 * (their own, too), add others.
 */
#ifndef RPC_LOOP_H
#define RPC_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

struct rpc_loop;

/* A descriptor that is watched; in the struct of its user, who owns it and the descriptor. */
struct rpc_watch {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT, EPOLLRDHUP; level-triggered; 0: not watched */
    void (*callback)(struct rpc_watch *watch, uint32_t events);
};

/* A moment; in the struct of its user. */
struct rpc_timer {
    uint64_t due; /* rpc_loop_now() */
    size_t place; /* in the heap, from 1 on; 0: not set */
    void (*callback)(struct rpc_timer *timer);
};

/* What is to be done before the loop waits again; in the struct of its user. */
struct rpc_task {
    struct rpc_task *next;
    bool queued;
    void (*callback)(struct rpc_task *task);
};

int rpc_loop_create(struct rpc_loop **ret, struct error *err);
/* Nothing may be watched, set or queued any more. NULL is nothing. */
void rpc_loop_destroy(struct rpc_loop *loop);

/* Readable when rpc_loop_dispatch() has something to do. Owned by the loop. */
int rpc_loop_fd(struct rpc_loop *loop);
/* Does what there is to do, and does not block. */
void rpc_loop_dispatch(struct rpc_loop *loop);
/* Waits for something to do and does it. -1: as long as it takes. */
void rpc_loop_run_once(struct rpc_loop *loop, int timeout_ms);
/* From any thread, or a signal handler: rpc_loop_run_once() returns. */
void rpc_loop_wake(struct rpc_loop *loop);

/* Nanoseconds of CLOCK_MONOTONIC, as they were when the loop last woke up or was asked. */
uint64_t rpc_loop_now(const struct rpc_loop *loop);
/* Asks the clock. */
uint64_t rpc_loop_update_now(struct rpc_loop *loop);

/* Sets watch->events to what is wanted; 0 takes it off, and has to come before the descriptor is
 * closed. -errno when the descriptor cannot be watched. */
int rpc_loop_watch(struct rpc_loop *loop, struct rpc_watch *watch, uint32_t events);

/* Sets the timer, or sets it anew. It is called once. */
void rpc_loop_set_timer(struct rpc_loop *loop, struct rpc_timer *timer, uint64_t due);
void rpc_loop_clear_timer(struct rpc_loop *loop, struct rpc_timer *timer);

/* Within a callback of the loop the task waits for the others of this round; from outside it is
 * done at once. Queueing it again is nothing. */
void rpc_loop_queue(struct rpc_loop *loop, struct rpc_task *task);
/* The same, but never at once: from outside of a callback it is done when the loop is run next, and
 * its descriptor becomes readable. */
void rpc_loop_queue_later(struct rpc_loop *loop, struct rpc_task *task);
void rpc_loop_unqueue(struct rpc_loop *loop, struct rpc_task *task);

#endif
