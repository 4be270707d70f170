/*
 * Methods of operations.json: what is done with containers and images that are there.
 */
#include <errno.h>

#include <base/alloc.h>

#include "handlers.h"

void api_container_rename(struct rpc_request *request, const struct api_container_rename *how,
                          void *context)
{
    struct container *container = api_container(request, how->container, context);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!container) /* it has been answered: what was asked for is gone with that */
        return;
    const char *name = how->name + (how->name[0] == '/');
    if (api_check_name(request, name, context, &err) < 0)
        api_fail(request, &err);
    else
        engine_container_rename(container, name, api_done_empty, request);
}

void api_container_pause(struct rpc_request *request, const struct api_container_pause *which,
                         void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_pause(container, true, api_done_empty, request);
}

void api_container_unpause(struct rpc_request *request, const struct api_container_pause *which,
                           void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_pause(container, false, api_done_empty, request);
}

void api_container_restart(struct rpc_request *request, const struct api_container_restart *how,
                           void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_restart(container, how, api_done_empty, request);
}

void api_container_top(struct rpc_request *request, const struct api_container_top *how,
                       void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_container_top(container, how, api_done_document, request);
}

void api_container_size(struct rpc_request *request, const struct api_container_size *which,
                        void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_size(container, api_done_document, request);
}

/* --- of several containers -------------------------------------------------------------------- */

/* Who asks: what that one does not see is not there. */
struct seen_call {
    struct rpc_request *request;
    struct api *api;
};

static bool may_see(const struct container *container, void *data)
{
    const struct seen_call *call = data;

    return api_sees(call->api, rpc_request_connection(call->request), container_id(container),
                    container_name(container));
}

static void on_seen_done(const struct error *err, const void *document, void *data)
{
    struct seen_call *call = data;

    api_done_document(err, document, call->request);
    free(call);
}

static void on_listed(const struct error *err, const struct buffer *json, void *data)
{
    struct seen_call *call = data;

    if (err)
        api_fail(call->request, err);
    else
        rpc_reply_json(call->request, json->data, json->length, NULL, 0);
    free(call);
}

static struct seen_call *new_call(struct rpc_request *request, struct api *api)
{
    struct seen_call *call = xnew(struct seen_call);

    *call = (struct seen_call){request, api};
    return call;
}

void api_container_list(struct rpc_request *request, const struct api_container_list *which,
                        void *context)
{
    struct api *api = context;
    bool limited = !api_sees_all(api, rpc_request_connection(request));

    for (size_t i = 0; limited && i < which->ids_count; i++) {
        if (!api_container(request, which->ids[i], api))
            return;
    }
    engine_container_list(api->engine, which, limited ? may_see : NULL, on_listed,
                          new_call(request, api));
}

void api_container_stats(struct rpc_request *request, const struct api_container_stats *which,
                         void *context)
{
    struct api *api = context;
    bool limited = !api_sees_all(api, rpc_request_connection(request));

    for (size_t i = 0; limited && i < which->containers_count; i++) {
        if (!api_container(request, which->containers[i], api))
            return;
    }
    engine_statistics(api->engine, which, limited ? may_see : NULL, on_seen_done,
                      new_call(request, api));
}

void api_container_prune(struct rpc_request *request, const struct api_container_prune *what,
                         void *context)
{
    struct api *api = context;
    bool limited = !api_sees_all(api, rpc_request_connection(request));

    engine_container_prune(api->engine, what, limited ? may_see : NULL, on_seen_done,
                           new_call(request, api));
}

/* --- exec in two steps ------------------------------------------------------------------------ */

static void on_prepared(const struct engine_result *result, void *data)
{
    struct api_exec_ref prepared = {.exec_id = (char *)(uintptr_t)result->id};

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &prepared, NULL, 0);
}

void api_container_exec_create(struct rpc_request *request, const struct api_exec_create *what,
                               void *context)
{
    struct container *container = api_container(request, what->container, context);

    if (container)
        engine_exec_create(container, what, on_prepared, request);
}

/* Answers when there is no such session, or it is of a container that is not seen. */
static bool has_exec(struct rpc_request *request, const char *id, struct api *api)
{
    struct container *container = engine_exec_container(api->engine, id);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (container && api_sees(api, rpc_request_connection(request), container_id(container),
                              container_name(container)))
        return true;
    error_set(&err, -ENOENT, "No such exec instance: %.80s", id);
    api_fail(request, &err);
    return false;
}

void api_container_exec_start(struct rpc_request *request, const struct api_exec_start *how,
                              void *context)
{
    struct api *api = context;

    if (has_exec(request, how->exec_id, api))
        engine_exec_start(api->engine, how, api_done_exec, request);
}

void api_container_exec_inspect(struct rpc_request *request, const struct api_exec_ref *which,
                                void *context)
{
    struct api *api = context;

    if (!has_exec(request, which->exec_id, api))
        return;
    struct api_exec_details *details = engine_exec_inspect(api->engine, which->exec_id);
    rpc_reply(request, details, NULL, 0);
    api_exec_details_free(details);
}

/* --- images ----------------------------------------------------------------------------------- */

void api_image_history(struct rpc_request *request, const struct api_image_history *which,
                       void *context)
{
    struct api *api = context;

    engine_image_history(api->engine, which->image, api_done_document, request);
}

void api_image_prune(struct rpc_request *request, const struct api_image_prune *what, void *context)
{
    struct api *api = context;

    engine_image_prune(api->engine, what, api_done_document, request);
}
