/*
 * An image worker that the loop watches: for what may take as long as a client likes, such as
 * copies through pipes that somebody else fills or empties. No thread waits meanwhile.
 */
#ifndef ENGINE_TASK_H
#define ENGINE_TASK_H

#include <image/worker.h>

#include "internal.h"

struct task;

/* result is valid during the call; NULL when err is set. */
typedef void (*task_done)(const struct error *err, const struct image_worker_result *result,
                          void *data);

/* Starts the worker; blocks for a spawn. done comes once, never before this returns, and not at all
 * when this fails. */
int task_start(struct engine *engine, const struct image_worker_spec *spec, task_done done,
               void *data, struct task **ret, struct error *err);

/* The worker has the container's root mounted: container->holders counts it until its process has
 * ended, which is later than done. */
void task_hold(struct task *task, struct container *container);

/* Of its worker, for who looks whether it goes on. */
pid_t task_pid(const struct task *task);

/* The worker is killed; done comes during the call with -ECANCELED. */
void task_cancel(struct task *task);

/* All that are under way. */
void task_cancel_all(struct engine *engine);

#endif
