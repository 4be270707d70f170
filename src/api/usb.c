/*
 * usb.*: devices, sticks and who may have them.
 */
#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <engine/usb.h>

#include "handlers.h"

/* A stick says which containers have its files. */
static bool may_ask(struct rpc_request *request, const struct api *api)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (api_sees_all(api, rpc_request_connection(request)))
        return true;
    error_set(&err, -EACCES, "USB devices are only for those who may see all containers");
    api_fail(request, &err);
    return false;
}

void api_usb_list(struct rpc_request *request, const struct api_usb_list *which, void *context)
{
    struct api *api = context;

    if (!may_ask(request, api))
        return;
    struct api_usb_sticks *sticks = engine_usb_list(api->engine, which->all);
    rpc_reply(request, sticks, NULL, 0);
    api_usb_sticks_free(sticks);
}

void api_usb_inspect(struct rpc_request *request, const struct api_usb_ref *which, void *context)
{
    _cleanup_api_usb_stick_ struct api_usb_stick *stick = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api *api = context;

    if (!may_ask(request, api))
        return;
    if (engine_usb_inspect(api->engine, which->stick, &stick, &err) < 0)
        api_fail(request, &err);
    else
        rpc_reply(request, stick, NULL, 0);
}

void api_usb_attach(struct rpc_request *request, const struct api_usb_attach *what, void *context)
{
    struct api *api = context;

    if (may_ask(request, api))
        engine_usb_attach(api->engine, what, api_done_document, request);
}

void api_usb_detach(struct rpc_request *request, const struct api_usb_ref *which, void *context)
{
    struct api *api = context;

    if (may_ask(request, api))
        engine_usb_detach(api->engine, which->stick, api_done_document, request);
}

void api_usb_eject(struct rpc_request *request, const struct api_usb_ref *which, void *context)
{
    struct api *api = context;

    if (may_ask(request, api))
        engine_usb_eject(api->engine, which->stick, api_done_document, request);
}

void api_usb_stats(struct rpc_request *request, const struct api_usb_ref *which, void *context)
{
    struct api *api = context;

    if (may_ask(request, api))
        engine_usb_statistics(api->engine, which->stick, api_done_document, request);
}

struct stick_request {
    struct rpc_request *request;
    struct stick_call *call;
};

static void on_progress(uint64_t done, uint64_t total, void *data)
{
    struct stick_request *asked = data;

    rpc_request_progress(asked->request, done, total, "steps", NULL);
}

static void on_done(const struct error *err, const void *document, void *data)
{
    struct stick_request *asked = data;

    rpc_request_on_cancel(asked->request, NULL, NULL);
    api_done_document(err, document, asked->request);
    free(asked);
}

/* Nobody waits for the answer any more: it is ended, and answers into the void. */
static void on_unwanted(struct rpc_request *request, void *data)
{
    struct stick_request *asked = data;

    engine_usb_cancel(asked->call);
}

static struct stick_request *asked_new(struct rpc_request *request)
{
    struct stick_request *asked = xnew(struct stick_request);

    asked->request = request;
    return asked;
}

/* call NULL: asked is gone. */
static void follow(struct rpc_request *request, struct stick_request *asked,
                   struct stick_call *call)
{
    if (!call)
        return;
    asked->call = call;
    rpc_request_on_cancel(request, on_unwanted, asked);
}

void api_usb_format(struct rpc_request *request, const struct api_usb_format *how, void *context)
{
    struct api *api = context;

    if (!may_ask(request, api))
        return;
    struct stick_request *asked = asked_new(request);
    follow(request, asked, engine_usb_format(api->engine, how, on_progress, on_done, asked));
}

void api_usb_check(struct rpc_request *request, const struct api_usb_check *how, void *context)
{
    struct api *api = context;

    if (!may_ask(request, api))
        return;
    struct stick_request *asked = asked_new(request);
    follow(request, asked, engine_usb_check(api->engine, how, on_progress, on_done, asked));
}

void api_usb_policy_list(struct rpc_request *request, const struct api_empty *nothing,
                         void *context)
{
    _cleanup_api_usb_policy_ struct api_usb_policy *policy = NULL;
    struct api *api = context;

    if (!may_ask(request, api))
        return;
    policy = engine_usb_policy(api->engine);
    rpc_reply(request, policy, NULL, 0);
}

void api_usb_policy_add(struct rpc_request *request, const struct api_usb_policy_add *what,
                        void *context)
{
    struct api *api = context;

    if (may_ask(request, api))
        engine_usb_policy_add(api->engine, what, api_done_document, request);
}

void api_usb_policy_remove(struct rpc_request *request, const struct api_usb_policy_ref *which,
                           void *context)
{
    struct api *api = context;

    if (may_ask(request, api))
        engine_usb_policy_remove(api->engine, which->id, api_done_document, request);
}
