/*
 * container.top: looked up on a worker thread, since /proc can be long and ps(1) slow.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"
#include "processes.h"

struct top_call {
    uv_work_t work;
    struct container *container; /* a reference */
    struct members whose;
    char **arguments; /* owned */
    struct api_processes *processes;
    engine_image_done done;
    void *data;
    struct error err;
};

static void top_work(uv_work_t *work)
{
    struct top_call *call = work->data;
    int r = call->arguments
                ? processes_list_by_ps(&call->whose, call->arguments, &call->processes, &call->err)
                : processes_list(&call->whose, &call->processes, &call->err);
    engine_settle(&call->err, r);
}

static void top_done(uv_work_t *work, int status)
{
    struct top_call *call = work->data;

    if (!call->err.code)
        event_container(call->container, "top", NULL);
    call->done(call->err.code ? &call->err : NULL, call->processes, call->data);
    api_processes_free(call->processes);
    strv_free(call->arguments);
    error_finish(&call->err);
    container_unref(call->container);
    free(call);
}

void engine_container_top(struct container *container, const struct api_container_top *how,
                          engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    bool plain = how->arguments_count == 0 ||
                 (how->arguments_count == 1 && text_equal(how->arguments[0], "-ef"));

    if (container->state != CONTAINER_RUNNING) {
        error_set(&err, -EBUSY, "container %s is not running", container->id);
        done(&err, NULL, data);
        return;
    }
    struct top_call *call = xnew(struct top_call);
    call->work.data = call;
    call->container = container_ref(container);
    call->whose = (struct members){.parent = container_cgroup_parent(container),
                                   .id = container->id,
                                   .first = (pid_t)container->record->pid};
    call->arguments = plain ? NULL : strv_copy(how->arguments);
    call->done = done;
    call->data = data;
    uv_queue_work(container->engine->loop, &call->work, top_work, top_done);
}
