#include <errno.h>

#include <base/alloc.h>
#include <engine/registry.h>

#include "handlers.h"

void api_image_list(struct rpc_request *request, const struct api_image_list *params, void *context)
{
    struct api *api = context;

    engine_image_list(api->engine, params, api_done_document, request);
}

void api_image_inspect(struct rpc_request *request, const struct api_image_ref *which,
                       void *context)
{
    struct api *api = context;

    engine_image_inspect(api->engine, which->image, api_done_document, request);
}

void api_image_tag(struct rpc_request *request, const struct api_image_tag *how, void *context)
{
    struct api *api = context;

    engine_image_tag(api->engine, how->image, how->name, api_done_document, request);
}

void api_image_remove(struct rpc_request *request, const struct api_image_remove *how,
                      void *context)
{
    struct api *api = context;

    engine_image_remove(api->engine, how, api_done_document, request);
}

/* --- archives --------------------------------------------------------------------------------- */

struct archive_call {
    struct rpc_request *request;
    struct engine_cancel *cancel;
};

static void on_archive_done(const struct error *err, const void *document, void *data)
{
    struct archive_call *call = data;

    rpc_request_on_cancel(call->request, NULL, NULL);
    api_done_document(err, document, call->request);
    free(call);
}

static void on_archive_progress(const char *item, const char *step, uint64_t done, uint64_t total,
                                void *data)
{
    struct archive_call *call = data;

    api_tell_progress(call->request, item, step, done, total);
}

/* Nobody waits for the answer any more: the worker is ended, and answers into the void. */
static void on_client_gone(struct rpc_request *request, void *data)
{
    struct archive_call *call = data;

    engine_cancel(call->cancel);
}

int api_take_archive(struct rpc_request *request)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int fd = rpc_request_take_fd(request, 0);

    if (fd < 0 || rpc_request_fds_count(request) != 1) {
        error_set(&err, -EINVAL, "one descriptor has to come along: the archive");
        api_fail(request, &err);
        close_fd(fd);
        return -1;
    }
    return fd;
}

static struct archive_call *new_call(struct rpc_request *request)
{
    struct archive_call *call = xnew(struct archive_call);

    call->request = request;
    return call;
}

void api_image_load(struct rpc_request *request, const struct api_image_load *params, void *context)
{
    int fd = api_take_archive(request);
    struct api *api = context;

    if (fd < 0)
        return;
    struct archive_call *call = new_call(request);
    call->cancel = engine_image_load(
        api->engine, fd,
        &(struct engine_transfer_callbacks){on_archive_done, on_archive_progress, call});
    rpc_request_on_cancel(request, on_client_gone, call);
}

void api_image_save(struct rpc_request *request, const struct api_image_save *what, void *context)
{
    int fd = api_take_archive(request);
    struct api *api = context;

    if (fd < 0)
        return;
    struct archive_call *call = new_call(request);
    call->cancel = engine_image_save(
        api->engine, what->names, fd,
        &(struct engine_transfer_callbacks){on_archive_done, on_archive_progress, call});
    rpc_request_on_cancel(request, on_client_gone, call);
}

void api_image_import(struct rpc_request *request, const struct api_image_import *how,
                      void *context)
{
    int fd = api_take_archive(request);
    struct api *api = context;

    if (fd < 0)
        return;
    struct archive_call *call = new_call(request);
    call->cancel = engine_image_import(api->engine, how, fd, on_archive_done, call);
    rpc_request_on_cancel(request, on_client_gone, call);
}
