#include <errno.h>

#include <base/alloc.h>

#include "handlers.h"

void api_volume_create(struct rpc_request *request, const struct api_volume_create *how,
                       void *context)
{
    struct api *api = context;

    engine_volume_create(api->engine, how, api_done_document, request);
}

void api_volume_list(struct rpc_request *request, const struct api_volume_list *which,
                     void *context)
{
    struct api *api = context;
    struct api_volumes *volumes = engine_volume_list(api->engine, which->filters);

    rpc_reply(request, volumes, NULL, 0);
    api_volumes_free(volumes);
}

void api_volume_inspect(struct rpc_request *request, const struct api_volume_ref *which,
                        void *context)
{
    _cleanup_api_volume_ struct api_volume *volume = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api *api = context;

    if (engine_volume_inspect(api->engine, which->volume, &volume, &err) < 0)
        api_fail(request, &err);
    else
        rpc_reply(request, volume, NULL, 0);
}

void api_volume_remove(struct rpc_request *request, const struct api_volume_remove *how,
                       void *context)
{
    struct api *api = context;

    engine_volume_remove(api->engine, how->volume, how->force, api_done_document, request);
}

void api_volume_prune(struct rpc_request *request, const struct api_volume_prune *how,
                      void *context)
{
    struct api *api = context;

    engine_volume_prune(api->engine, how, api_done_document, request);
}

void api_system_disk_usage(struct rpc_request *request, const struct api_disk_usage_what *what,
                           void *context)
{
    struct api *api = context;

    if (!api_sees_all(api, rpc_request_connection(request))) {
        _cleanup_error_ struct error err = ERROR_INIT;
        error_set(&err, -EACCES, "what all containers take is only told to who may see all");
        api_fail(request, &err);
        return;
    }
    engine_disk_usage(api->engine, what, api_done_document, request);
}
