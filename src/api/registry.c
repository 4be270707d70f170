#include <errno.h>

#include <base/alloc.h>
#include <engine/registry.h>

#include "handlers.h"

struct transfer_call {
    struct rpc_request *request;
    struct transfer *transfer; /* NULL: over, or not begun */
    bool done;
};

static void on_done(const struct error *err, const void *document, void *data)
{
    struct transfer_call *call = data;

    rpc_request_on_cancel(call->request, NULL, NULL);
    api_done_document(err, document, call->request);
    if (call->transfer)
        free(call);
    else
        call->done = true; /* it was over before it was begun: watch() has the call */
}

void api_tell_progress(struct rpc_request *request, const char *item, const char *step,
                       uint64_t done, uint64_t total)
{
    if (!rpc_request_wants_progress(request))
        return;
    _cleanup_free_ char *text = item ? xasprintf("%s: %s", item, step) : xstrdup(step);
    rpc_request_progress(request, done, total, "bytes", text);
}

static void on_progress(const char *item, const char *step, uint64_t done, uint64_t total,
                        void *data)
{
    struct transfer_call *call = data;

    api_tell_progress(call->request, item, step, done, total);
}

/* Nobody waits for the answer any more: the worker is ended, and answers into the void. */
static void on_unwanted(struct rpc_request *request, void *data)
{
    struct transfer_call *call = data;

    engine_transfer_cancel(call->transfer);
}

static struct transfer_call *new_call(struct rpc_request *request,
                                      struct engine_transfer_callbacks *callbacks)
{
    struct transfer_call *call = xnew(struct transfer_call);

    call->request = request;
    *callbacks = (struct engine_transfer_callbacks){on_done, on_progress, call};
    return call;
}

static void watch(struct transfer_call *call, struct transfer *transfer)
{
    if (call->done) {
        free(call);
        return;
    }
    call->transfer = transfer;
    rpc_request_on_cancel(call->request, on_unwanted, call);
}

void api_image_pull(struct rpc_request *request, const struct api_image_pull *params, void *context)
{
    struct api *api = context;
    struct engine_transfer_callbacks callbacks;
    struct transfer_call *call = new_call(request, &callbacks);

    watch(call, engine_image_pull(api->engine, params, &callbacks));
}

void api_image_push(struct rpc_request *request, const struct api_image_push *params, void *context)
{
    struct api *api = context;
    struct engine_transfer_callbacks callbacks;
    struct transfer_call *call = new_call(request, &callbacks);

    watch(call, engine_image_push(api->engine, params, &callbacks));
}

void api_image_search(struct rpc_request *request, const struct api_image_search *params,
                      void *context)
{
    struct api *api = context;
    struct engine_transfer_callbacks callbacks;
    struct transfer_call *call = new_call(request, &callbacks);

    watch(call, engine_image_search(api->engine, params, &callbacks));
}

void api_image_distribution(struct rpc_request *request,
                            const struct api_image_distribution *params, void *context)
{
    struct api *api = context;
    struct engine_transfer_callbacks callbacks;
    struct transfer_call *call = new_call(request, &callbacks);

    watch(call, engine_image_distribution(api->engine, params, &callbacks));
}

void api_registry_login(struct rpc_request *request, const struct api_registry_login *params,
                        void *context)
{
    struct api *api = context;
    struct engine_transfer_callbacks callbacks;
    struct transfer_call *call = new_call(request, &callbacks);

    watch(call, engine_registry_login(api->engine, params, &callbacks));
}
