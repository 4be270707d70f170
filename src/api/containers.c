#include <base/alloc.h>
#include <base/text.h>

#include "handlers.h"

/* --- create, start, stop, remove -------------------------------------------------------------- */

static void on_created(const struct engine_result *result, void *data)
{
    struct api_container_created created = {
        .id = (char *)result->id,
        .warnings = (char **)result->warnings,
        .warnings_count = strv_length(result->warnings),
    };

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &created, NULL, 0);
}

void api_container_create(struct rpc_request *request, const struct api_container_spec *params,
                          void *context)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api *api = context;

    if (api_check_name(request, params->name, api, &err) < 0) {
        api_fail(request, &err);
        return;
    }
    engine_container_create(api->engine, params, on_created, request);
}

static void on_updated(const struct engine_result *result, void *data)
{
    struct api_container_updated updated = {
        .warnings = (char **)result->warnings,
        .warnings_count = strv_length(result->warnings),
    };

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &updated, NULL, 0);
}

void api_container_update(struct rpc_request *request, const struct api_container_update *how,
                          void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_update(container, how, on_updated, request);
}

void api_container_start(struct rpc_request *request, const struct api_container_ref *which,
                         void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_start(container, api_done_changed, request);
}

void api_container_stop(struct rpc_request *request, const struct api_container_stop *how,
                        void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_stop(container, how, api_done_changed, request);
}

void api_container_kill(struct rpc_request *request, const struct api_container_kill *how,
                        void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_kill(container, how->signal, api_done_empty, request);
}

void api_container_remove(struct rpc_request *request, const struct api_container_remove *how,
                          void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_remove(container, how->force, how->volumes, api_done_empty, request);
}

/* --- streams ---------------------------------------------------------------------------------- */

static void on_stream(const struct engine_result *result, void *data)
{
    struct api_attached attached = {.tty = result->tty,
                                    .attributes = (char *)(uintptr_t)result->attributes};

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &attached, &result->fd, 1);
}

void api_container_attach(struct rpc_request *request, const struct api_container_attach *how,
                          void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_attach(container, how, on_stream, request);
}

void api_container_logs(struct rpc_request *request, const struct api_container_logs *how,
                        void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_logs(container, how, on_stream, request);
}

void api_container_resize(struct rpc_request *request, const struct api_container_resize *size,
                          void *context)
{
    struct container *container = api_container(request, size->container, context);

    if (container)
        engine_container_resize(container, size, api_done_empty, request);
}

void api_done_exec(const struct engine_result *result, void *data)
{
    struct api_exec_started started = {
        .exec_id = (char *)result->id,
        .pid = result->pid,
        .has_pid = true,
        .tty = result->tty,
        .has_tty = true,
        .detach_keys = result->tty ? (char *)(uintptr_t)result->detach_keys : NULL};

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &started, &result->fd, result->fd >= 0 ? 1 : 0);
}

void api_container_exec(struct rpc_request *request, const struct api_container_exec *how,
                        void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_exec(container, how, api_done_exec, request);
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* A wait ends with the engine's answer or with the client. */
struct wait_call {
    struct rpc_request *request;
    struct engine_waiter *waiter;
};

static void on_waited(const struct engine_result *result, void *data)
{
    struct wait_call *call = data;
    struct api_container_waited waited = {.exit_code = result->exit_code,
                                          .error = (char *)result->why};

    if (result->err)
        api_fail(call->request, result->err);
    else
        rpc_reply(call->request, &waited, NULL, 0);
    free(call);
}

static void on_waiter_gone(struct rpc_request *request, void *data)
{
    struct wait_call *call = data;

    engine_wait_cancel(call->waiter);
    free(call);
    rpc_reply(request, NULL, NULL, 0);
}

static void wait_begun(struct wait_call *call, struct engine_waiter *waiter)
{
    if (!waiter)
        return;
    call->waiter = waiter;
    rpc_request_on_cancel(call->request, on_waiter_gone, call);
}

void api_container_wait(struct rpc_request *request, const struct api_container_wait *how,
                        void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (!container)
        return;
    struct wait_call *call = xnew(struct wait_call);
    call->request = request;
    wait_begun(call, engine_container_wait(container, how->condition, on_waited, call));
}

void api_container_exec_wait(struct rpc_request *request, const struct api_exec_ref *which,
                             void *context)
{
    struct wait_call *call = xnew(struct wait_call);
    struct api *api = context;

    call->request = request;
    wait_begun(call, engine_exec_wait(api->engine, which->exec_id, on_waited, call));
}

/* --- list, inspect, commit -------------------------------------------------------------------- */

void api_container_inspect(struct rpc_request *request, const struct api_container_ref *which,
                           void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (!container)
        return;
    struct api_container_details *details = engine_container_inspect(container);
    rpc_reply(request, details, NULL, 0);
    api_container_details_free(details);
}

static void on_committed(const struct engine_result *result, void *data)
{
    struct api_image_id image = {.id = (char *)result->id};

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &image, NULL, 0);
}

void api_container_commit(struct rpc_request *request, const struct api_container_commit *how,
                          void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_commit(container, how, on_committed, request);
}
