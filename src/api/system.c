#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "handlers.h"

/* As the Go world, and with it docker, calls the machines. */
static const char *architecture(const char *machine)
{
    static const char *const names[][2] = {
        {"x86_64", "amd64"},
        {"aarch64", "arm64"},
        {"armv7l", "arm"},
        {"i686", "386"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (text_equal(names[i][0], machine))
            return names[i][1];
    }
    return machine;
}

void api_system_version(struct rpc_request *request, const struct api_empty *params, void *context)
{
    struct utsname system;

    uname(&system);
    struct api_system_version version = {
        .version = (char *)CLOCHE_VERSION,
        .api_version = (char *)API_VERSION,
        .git_commit = CLOCHE_COMMIT[0] ? (char *)CLOCHE_COMMIT : NULL,
        .os = (char *)"linux",
        .arch = (char *)architecture(system.machine),
        .kernel_version = system.release,
        .compiler = (char *)"gcc " __VERSION__,
        .pid = getpid(),
        .has_pid = true,
    };
    rpc_reply(request, &version, NULL, 0);
}

void api_system_info(struct rpc_request *request, const struct api_empty *params, void *context)
{
    struct api *api = context;

    engine_info(api->engine, api_done_document, request);
}

void api_rpc_whoami(struct rpc_request *request, const struct api_empty *params, void *context)
{
    struct api *api = context;

    api->whoami(request, api->data);
}

void api_system_shutdown(struct rpc_request *request, const struct api_system_shutdown *params,
                         void *context)
{
    struct api *api = context;

    rpc_reply(request, NULL, NULL, 0);
    api->shutdown(false, api->data);
}

struct remove_call {
    struct rpc_request *request;
    struct api *api;
};

static void on_removed(const struct engine_result *result, void *data)
{
    struct remove_call *call = data;

    api_done_empty(result, call->request);
    if (!result->err || engine_is_gone(call->api->engine))
        call->api->shutdown(!result->err, call->api->data);
    free(call);
}

void api_system_remove(struct rpc_request *request, const struct api_system_remove *how,
                       void *context)
{
    struct remove_call *call = xnew(struct remove_call);
    struct api *api = context;

    *call = (struct remove_call){request, api};
    engine_remove_instance(api->engine, how->force, on_removed, call);
}

struct check_call {
    struct rpc_request *request;
    struct engine_cancel *cancel;
};

static void on_checked(const struct error *err, const void *document, void *data)
{
    struct check_call *call = data;

    rpc_request_on_cancel(call->request, NULL, NULL);
    api_done_document(err, document, call->request);
    free(call);
}

static void on_nobody_waits(struct rpc_request *request, void *data)
{
    struct check_call *call = data;

    engine_cancel(call->cancel);
}

void api_system_check(struct rpc_request *request, const struct api_system_check *how,
                      void *context)
{
    struct check_call *call = xnew(struct check_call);
    struct api *api = context;

    call->request = request;
    call->cancel = engine_check(api->engine, how->deep, how->repair, on_checked, call);
    rpc_request_on_cancel(request, on_nobody_waits, call);
}
