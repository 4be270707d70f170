/*
 * Stopping a container and starting it again, as one operation for those that wait behind it: when
 * the container has ended, the operation goes on as a start.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"
#include "stop.h"

struct restart_operation {
    struct operation base;
    struct monitor_stop how;
};

/* What is left to do when it runs again: to say so. */
struct restarted {
    struct container *container; /* a reference */
    engine_done done;
    void *data;
};

static void on_started(const struct engine_result *result, void *data)
{
    struct restarted *restarted = data;

    if (!result->err)
        event_container(restarted->container, "restart", NULL);
    if (restarted->done)
        restarted->done(result, restarted->data);
    container_unref(restarted->container);
    free(restarted);
}

static void start_again(struct operation *operation)
{
    struct restarted *restarted = xnew(struct restarted);

    *restarted =
        (struct restarted){container_ref(operation->container), operation->done, operation->data};
    operation_replace(operation, start_operation_create(), on_started, restarted);
}

static void restart_begin(struct operation *operation)
{
    struct restart_operation *restart = (struct restart_operation *)operation;

    if (!container_is_active(operation->container))
        start_again(operation);
    else
        stop_send(operation->container, &restart->how);
}

static void restart_container_ended(struct operation *operation)
{
    event_container(operation->container, "stop", NULL);
    start_again(operation);
}

static void restart_release(struct operation *operation)
{
    free((struct restart_operation *)operation);
}

const struct operation_kind restart_operation_kind = {
    .name = "restart",
    .begin = restart_begin,
    .container_ended = restart_container_ended,
    .release = restart_release,
};

void engine_container_restart(struct container *container, const struct api_container_restart *how,
                              engine_done done, void *data)
{
    const struct api_container_stop stop = {
        .signal = how->signal, .timeout = how->timeout, .has_timeout = how->has_timeout};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct restart_operation *restart = xnew(struct restart_operation);

    restart->base.kind = &restart_operation_kind;
    if (stop_parse(container, &stop, &restart->how, &err) < 0) {
        free(restart);
        engine_fail(done, data, &err);
        return;
    }
    stop_ahead(container, &restart->how);
    operation_submit(container, &restart->base, done, data);
}
