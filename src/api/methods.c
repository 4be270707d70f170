#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/json.h>

#include "handlers.h"

static const struct {
    const char *name;
    rpc_handler handler;
} handlers[] = {
    {"system.version", api_system_version_handler},
    {"system.info", api_system_info_handler},
    {"system.shutdown", api_system_shutdown_handler},
    {"system.remove", api_system_remove_handler},
    {"container.create", api_container_create_handler},
    {"container.start", api_container_start_handler},
    {"container.attach", api_container_attach_handler},
    {"container.wait", api_container_wait_handler},
    {"container.list", api_container_list_handler},
    {"container.inspect", api_container_inspect_handler},
    {"container.logs", api_container_logs_handler},
    {"container.kill", api_container_kill_handler},
    {"container.stop", api_container_stop_handler},
    {"container.remove", api_container_remove_handler},
    {"container.resize", api_container_resize_handler},
    {"container.exec", api_container_exec_handler},
    {"container.execWait", api_exec_wait_handler},
    {"container.commit", api_container_commit_handler},
    {"image.load", api_image_load_handler},
    {"image.save", api_image_save_handler},
    {"image.list", api_image_list_handler},
    {"image.inspect", api_image_inspect_handler},
    {"image.tag", api_image_tag_handler},
    {"image.remove", api_image_remove_handler},
};

static rpc_handler handler_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (text_equal(handlers[i].name, name))
            return handlers[i].handler;
    }
    /* A method that is promised in the schema and not built: the first start would show it. */
    abort();
}

const struct rpc_method *api_methods(size_t *ret_count)
{
    static struct rpc_method methods[ARRAY_SIZE(handlers)];

    if (management_methods_count != ARRAY_SIZE(methods))
        abort();
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        methods[i].type = &management_methods[i];
        methods[i].handler = handler_of(management_methods[i].name);
    }
    *ret_count = ARRAY_SIZE(methods);
    return methods;
}

/* --- what handlers share ---------------------------------------------------------------------- */

void api_fail(struct rpc_request *request, const struct error *err)
{
    static const struct {
        int code;
        enum rpc_error error;
    } codes[] = {
        {ENGINE_NO_SUCH_IMAGE, RPC_NO_SUCH_IMAGE},
        {ENGINE_PROGRAM_NOT_FOUND, RPC_PROGRAM_NOT_FOUND},
        {ENGINE_PROGRAM_NOT_EXECUTABLE, RPC_PROGRAM_NOT_EXECUTABLE},
        {-EADDRINUSE, RPC_CONFLICT},
        {-EADDRNOTAVAIL, RPC_INVALID_ARGUMENT},
        {-ENOTTY, RPC_CONFLICT},
    };

    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (codes[i].code == err->code) {
            rpc_fail(request, codes[i].error, err);
            return;
        }
    }
    rpc_fail_errno(request, err);
}

void api_done_empty(const struct engine_result *result, void *data)
{
    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, NULL, NULL, 0);
}

void api_done_changed(const struct engine_result *result, void *data)
{
    struct api_changed changed = {.changed = result->changed};

    if (result->err)
        api_fail(data, result->err);
    else
        rpc_reply(data, &changed, NULL, 0);
}

void api_done_document(const struct error *err, const void *document, void *data)
{
    if (err)
        api_fail(data, err);
    else
        rpc_reply(data, document, NULL, 0);
}

struct container *api_container(struct rpc_request *request, const char *reference, struct api *api)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct container *container = NULL;

    if (engine_find(api->engine, reference, &container, &err) < 0)
        api_fail(request, &err);
    return container;
}
