#include "task.h"

#include <errno.h>
#include <poll.h>

#include <base/alloc.h>
#include <base/loop.h>

struct task {
    struct engine *engine;
    struct task *next;
    struct image_worker *worker;
    uv_poll_t poll;
    struct container *held; /* a reference; NULL: none */
    task_done done;
    void *data;
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void task_hold(struct task *task, struct container *container)
{
    task->held = container_ref(container);
    container->holders++;
}

static void release(int status, void *data)
{
    struct container *container = data;
    struct operation *next = container->held_back;

    if (--container->holders == 0 && next) {
        container->held_back = NULL;
        next->kind->begin(next);
    }
    container_unref(container);
}

/* The worker's last steps (its mounts go with it) are waited for only by who cannot have it
 * otherwise. */
static void let_go(struct task *task)
{
    struct container *held = steal_ptr(task->held);
    struct process process;

    if (!image_worker_release(task->worker, &process)) {
        if (held)
            release(0, held);
    } else if (loop_watch_child(task->engine->loop, &process, 0, held ? release : NULL, held,
                                NULL) < 0 &&
               held) {
        release(0, held);
    }
}

static void finish(struct task *task, const struct error *err,
                   const struct image_worker_result *result)
{
    struct task **at = &task->engine->tasks;

    while (*at != task)
        at = &(*at)->next;
    *at = task->next;
    uv_poll_stop(&task->poll);
    let_go(task);
    task->done(err, result, task->data);
    uv_close((uv_handle_t *)&task->poll, on_closed);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct task *task = poll->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    for (;;) {
        _cleanup_image_worker_message_ struct image_worker_message *message = NULL;
        int r = image_worker_receive(task->worker, &message, &err);
        if (r == IMAGE_WORKER_AGAIN)
            return;
        if (r == IMAGE_WORKER_PROGRESS)
            continue;
        finish(task, r < 0 ? &err : NULL, r < 0 ? NULL : message->result);
        return;
    }
}

int task_start(struct engine *engine, const struct image_worker_spec *spec, task_done done,
               void *data, struct task **ret, struct error *err)
{
    struct task *task = xnew(struct task);
    int r = image_worker_start(spec, &task->worker, err);

    if (r < 0) {
        free(task);
        return r;
    }
    task->engine = engine;
    task->done = done;
    task->data = data;
    task->next = engine->tasks;
    engine->tasks = task;
    task->poll.data = task;
    uv_poll_init(engine->loop, &task->poll, image_worker_fd(task->worker));
    uv_poll_start(&task->poll, UV_READABLE, on_readable);
    *ret = task;
    return 0;
}

pid_t task_pid(const struct task *task)
{
    return image_worker_pid(task->worker);
}

void task_cancel(struct task *task)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -ECANCELED, "cancelled");
    finish(task, &err, NULL);
}

void task_cancel_all(struct engine *engine)
{
    while (engine->tasks)
        task_cancel(engine->tasks);
}
