#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/json.h>

#include "handlers.h"

static const struct management_handlers handlers = {
    .system_version = api_system_version,
    .system_info = api_system_info,
    .system_shutdown = api_system_shutdown,
    .system_check = api_system_check,
    .system_remove = api_system_remove,
    .container_create = api_container_create,
    .container_start = api_container_start,
    .container_attach = api_container_attach,
    .container_wait = api_container_wait,
    .container_list = api_container_list,
    .container_inspect = api_container_inspect,
    .container_logs = api_container_logs,
    .container_kill = api_container_kill,
    .container_stop = api_container_stop,
    .container_remove = api_container_remove,
    .container_resize = api_container_resize,
    .container_exec = api_container_exec,
    .container_exec_wait = api_container_exec_wait,
    .container_commit = api_container_commit,
    .container_update = api_container_update,
    .container_rename = api_container_rename,
    .container_pause = api_container_pause,
    .container_unpause = api_container_unpause,
    .container_restart = api_container_restart,
    .container_top = api_container_top,
    .container_size = api_container_size,
    .container_stats = api_container_stats,
    .container_prune = api_container_prune,
    .container_exec_create = api_container_exec_create,
    .container_exec_start = api_container_exec_start,
    .container_exec_inspect = api_container_exec_inspect,
    .image_history = api_image_history,
    .image_prune = api_image_prune,
    .container_archive_stat = api_container_archive_stat,
    .container_archive_get = api_container_archive_get,
    .container_archive_put = api_container_archive_put,
    .container_changes = api_container_changes,
    .container_export = api_container_export,
    .image_import = api_image_import,
    .build_run = api_build_run,
    .build_prune = api_build_prune,
    .volume_create = api_volume_create,
    .volume_list = api_volume_list,
    .volume_inspect = api_volume_inspect,
    .volume_remove = api_volume_remove,
    .volume_prune = api_volume_prune,
    .system_disk_usage = api_system_disk_usage,
    .image_load = api_image_load,
    .image_save = api_image_save,
    .image_list = api_image_list,
    .image_inspect = api_image_inspect,
    .image_tag = api_image_tag,
    .image_remove = api_image_remove,
    .image_pull = api_image_pull,
    .image_push = api_image_push,
    .image_distribution = api_image_distribution,
    .image_search = api_image_search,
    .registry_login = api_registry_login,
    .network_create = api_network_create,
    .network_list = api_network_list,
    .network_inspect = api_network_inspect,
    .network_remove = api_network_remove,
    .network_prune = api_network_prune,
    .network_connect = api_network_connect,
    .network_disconnect = api_network_disconnect,
    .container_publish = api_container_publish,
    .container_unpublish = api_container_unpublish,
    .usb_list = api_usb_list,
    .usb_inspect = api_usb_inspect,
    .usb_attach = api_usb_attach,
    .usb_detach = api_usb_detach,
    .usb_eject = api_usb_eject,
    .usb_stats = api_usb_stats,
    .usb_format = api_usb_format,
    .usb_check = api_usb_check,
    .usb_policy_list = api_usb_policy_list,
    .usb_policy_add = api_usb_policy_add,
    .usb_policy_remove = api_usb_policy_remove,
    .rpc_whoami = api_rpc_whoami,
    .events_subscribe = api_events_subscribe,
    .events_unsubscribe = api_events_unsubscribe,
    .events_list = api_events_list,
};

int api_add_methods(struct rpc_server *server, struct error *err)
{
    return rpc_server_add_handlers(server, management_methods, management_methods_count, &handlers,
                                   err);
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
        {-ENOBUFS, RPC_TOO_MANY},
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

    if (engine_find(api->engine, reference, &container, &err) < 0) {
        api_fail(request, &err);
        return NULL;
    }
    if (api_sees(api, rpc_request_connection(request), container_id(container),
                 container_name(container)))
        return container;
    error_set(&err, -ENOENT, "No such container: %.128s", reference);
    api_fail(request, &err);
    return NULL;
}
