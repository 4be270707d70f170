/*
 * Files of containers: in, out, what changed, the whole root.
 */
#include <base/alloc.h>

#include "handlers.h"

/* A copy ends with the engine's answer, or soon after its client has gone. */
struct copy_call {
    struct rpc_request *request;
    struct engine_copy *copy;
};

static void on_client_gone(struct rpc_request *request, void *data)
{
    struct copy_call *call = data;

    engine_copy_cancel(call->copy);
}

static struct copy_call *new_call(struct rpc_request *request)
{
    struct copy_call *call = xnew(struct copy_call);

    call->request = request;
    return call;
}

static void wait_for(struct copy_call *call, struct engine_copy *copy)
{
    call->copy = copy;
    rpc_request_on_cancel(call->request, on_client_gone, call);
}

/* Takes the call's request out of it, answered when there is an error: NULL then. */
static struct rpc_request *end_call(struct copy_call *call, const struct error *err)
{
    struct rpc_request *request = call->request;

    rpc_request_on_cancel(request, NULL, NULL);
    free(call);
    if (!err)
        return request;
    api_fail(request, err);
    return NULL;
}

static struct api_path_stat stat_of(const struct image_worker_path_stat *stat)
{
    return (struct api_path_stat){
        .name = stat->name,
        .size = stat->size,
        .mode = stat->mode,
        .mtime = stat->mtime,
        .link_target = stat->link_target,
    };
}

static void on_stat(const struct error *err, const struct image_worker_result *result, void *data)
{
    struct rpc_request *request = end_call(data, err);

    if (!request)
        return;
    struct api_path_stat stat = stat_of(result->stat);
    rpc_reply(request, &stat, NULL, 0);
}

static void on_got(const struct error *err, const struct image_worker_result *result, void *data)
{
    struct rpc_request *request = end_call(data, err);

    if (!request)
        return;
    struct api_path_stat stat = stat_of(result->stat);
    struct api_archive_got got = {.stat = &stat, .bytes = result->bytes};
    rpc_reply(request, &got, NULL, 0);
}

static void on_done(const struct error *err, const struct image_worker_result *result, void *data)
{
    struct rpc_request *request = end_call(data, err);

    if (!request)
        return;
    struct api_archive_done done = {.bytes = result->bytes};
    rpc_reply(request, &done, NULL, 0);
}

void api_container_archive_stat(struct rpc_request *request, const struct api_archive_path *what,
                                void *context)
{
    struct container *container = api_container(request, what->container, context);

    if (!container)
        return;
    struct copy_call *call = new_call(request);
    wait_for(call, engine_archive_stat(container, what->path, on_stat, call));
}

/* The container meant and the descriptor that came along; NULL after having answered. */
static struct container *take_both(struct rpc_request *request, const char *reference, int *ret_fd,
                                   void *context)
{
    struct container *container = api_container(request, reference, context);

    if (!container)
        return NULL;
    *ret_fd = api_take_archive(request);
    return *ret_fd < 0 ? NULL : container;
}

void api_container_archive_get(struct rpc_request *request, const struct api_archive_get *how,
                               void *context)
{
    int fd = -1;
    struct container *container = take_both(request, how->container, &fd, context);

    if (!container)
        return;
    struct copy_call *call = new_call(request);
    wait_for(call, engine_archive_get(container, how, fd, on_got, call));
}

void api_container_archive_put(struct rpc_request *request, const struct api_archive_put *how,
                               void *context)
{
    int fd = -1;
    struct container *container = take_both(request, how->container, &fd, context);

    if (!container)
        return;
    struct copy_call *call = new_call(request);
    wait_for(call, engine_archive_put(container, how, fd, on_done, call));
}

void api_container_export(struct rpc_request *request, const struct api_container_ref *which,
                          void *context)
{
    int fd = -1;
    struct container *container = take_both(request, which->container, &fd, context);

    if (!container)
        return;
    struct copy_call *call = new_call(request);
    wait_for(call, engine_container_export(container, fd, on_done, call));
}

void api_container_changes(struct rpc_request *request, const struct api_container_ref *which,
                           void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_changes(container, api_done_document, request);
}
