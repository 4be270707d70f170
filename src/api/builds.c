/* Methods of builds.json. */
#include <errno.h>

#include <base/alloc.h>

#include "handlers.h"

struct build_call {
    struct rpc_request *request;
    struct engine_cancel *cancel;
};

static void on_built(const struct error *err, const void *document, void *data)
{
    struct build_call *call = data;

    rpc_request_on_cancel(call->request, NULL, NULL);
    api_done_document(err, document, call->request);
    free(call);
}

/* Nobody waits for the answer any more: what runs is ended, and answers into the void. */
static void on_client_gone(struct rpc_request *request, void *data)
{
    struct build_call *call = data;

    engine_cancel(call->cancel);
}

void api_build_run(struct rpc_request *request, const struct api_build_run *how, void *context)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api *api = context;
    int fd = rpc_request_take_fd(request, 0);

    if (fd < 0 || rpc_request_fds_count(request) != 1) {
        close_fd(fd);
        error_set(&err, -EINVAL,
                  "one descriptor has to come along: a socket for the context and "
                  "the progress");
        api_fail(request, &err);
        return;
    }
    struct build_call *call = xnew(struct build_call);
    call->request = request;
    struct engine_cancel *cancel = engine_build(api->engine, how, fd, on_built, call);
    if (!cancel)
        return;
    call->cancel = cancel;
    rpc_request_on_cancel(request, on_client_gone, call);
}

void api_build_prune(struct rpc_request *request, const struct api_build_prune *how, void *context)
{
    struct api *api = context;

    engine_build_prune(api->engine, how, api_done_document, request);
}
