#include <errno.h>

#include <base/alloc.h>

#include "internal.h"

void operation_submit(struct container *container, struct operation *operation, engine_done done,
                      void *data)
{
    struct operation **end = &container->operations;

    operation->next = NULL;
    operation->container = container_ref(container);
    operation->done = done;
    operation->data = data;
    while (*end)
        end = &(*end)->next;
    *end = operation;
    if (container->operations == operation)
        operation->kind->begin(operation);
    else if (container->operations->kind->awaited)
        container->operations->kind->awaited(container->operations, operation);
}

void operation_replace(struct operation *operation, struct operation *by, engine_done done,
                       void *data)
{
    struct container *container = operation->container;

    by->next = operation->next;
    by->container = container;
    by->done = done;
    by->data = data;
    container->operations = by;
    operation->kind->release(operation);
    by->kind->begin(by);
}

/* What waited when the daemon ended. */
static void fail_ending(struct operation *operation)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EAGAIN, "the daemon ends");
    operation_finish(operation, &err, false);
}

void operation_finish_result(struct operation *operation, const struct engine_result *result)
{
    struct container *container = operation->container;
    struct operation *next = operation->next;

    /* What done() submits is begun at once when nothing else waits, else it queues behind next. */
    container->operations = next;
    if (operation->done)
        operation->done(result, operation->data);
    operation->kind->release(operation);
    if (next && container->engine->ending)
        fail_ending(next);
    else if (next)
        next->kind->begin(next);
    container_unref(container);
}

void operation_finish(struct operation *operation, const struct error *err, bool changed)
{
    struct engine_result result = ENGINE_RESULT_INIT;

    result.err = err;
    result.changed = changed;
    operation_finish_result(operation, &result);
}

bool operation_pending(const struct container *container, const struct operation_kind *kind)
{
    for (const struct operation *at = container->operations; at; at = at->next) {
        if (at->kind == kind)
            return true;
    }
    return false;
}

void engine_settle(struct error *err, int r)
{
    if (r >= 0)
        error_finish(err);
    else if (err->code == 0)
        error_errno(err, -r, "failed");
}

void engine_fail(engine_done done, void *data, const struct error *err)
{
    struct engine_result result = ENGINE_RESULT_INIT;

    result.err = err;
    if (done)
        done(&result, data);
}
