#include <base/alloc.h>
#include <base/text.h>

#include "handlers.h"

void api_network_create(struct rpc_request *request, const struct api_network_create *params,
                        void *context)
{
    struct api *api = context;

    engine_network_create(api->engine, params, api_done_document, request);
}

/* A peer that sees some containers only sees no more of them here. */
static void drop_unseen(const struct rpc_request *request, const struct api *api,
                        struct api_network_details *details)
{
    size_t kept = 0;

    for (size_t i = 0; i < details->containers_count; i++) {
        struct api_network_endpoint *endpoint = details->containers[i];

        if (api_sees(api, rpc_request_connection(request), endpoint->container, endpoint->name))
            details->containers[kept++] = endpoint;
        else
            api_network_endpoint_free(endpoint);
    }
    details->containers_count = kept;
}

void api_network_list(struct rpc_request *request, const struct api_network_list *params,
                      void *context)
{
    struct api *api = context;
    _cleanup_api_networks_ struct api_networks *list =
        engine_network_list(api->engine, params->filters);

    for (size_t i = 0; i < list->networks_count; i++)
        drop_unseen(request, api, list->networks[i]);
    rpc_reply(request, list, NULL, 0);
}

void api_network_inspect(struct rpc_request *request, const struct api_network_ref *which,
                         void *context)
{
    _cleanup_api_network_details_ struct api_network_details *details = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api *api = context;

    if (engine_network_inspect(api->engine, which->network, &details, &err) < 0) {
        api_fail(request, &err);
        return;
    }
    drop_unseen(request, api, details);
    rpc_reply(request, details, NULL, 0);
}

void api_network_remove(struct rpc_request *request, const struct api_network_remove *which,
                        void *context)
{
    struct api *api = context;

    engine_network_remove(api->engine, which, api_done_document, request);
}

void api_network_prune(struct rpc_request *request, const struct api_network_prune *which,
                       void *context)
{
    struct api *api = context;

    engine_network_prune(api->engine, which->filters, api_done_document, request);
}

void api_network_connect(struct rpc_request *request, const struct api_network_connect *how,
                         void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_network_connect(container, how, api_done_empty, request);
}

void api_network_disconnect(struct rpc_request *request, const struct api_network_disconnect *how,
                            void *context)
{
    struct container *container = api_container(request, how->container, context);

    if (container)
        engine_network_disconnect(container, how, api_done_empty, request);
}

/* --- ports ------------------------------------------------------------------------------------ */

struct ports_call {
    struct rpc_request *request;
    struct api *api;
    char *container; /* owned: its ID */
};

static void on_ports_changed(const struct engine_result *result, void *data)
{
    struct ports_call *call = data;
    struct container *container = NULL;
    _cleanup_api_published_ports_ struct api_published_ports *ports = NULL;

    if (result->err) {
        api_fail(call->request, result->err);
    } else if (engine_find(call->api->engine, call->container, &container, NULL) == 0) {
        ports = engine_container_ports(container);
        rpc_reply(call->request, ports, NULL, 0);
    } else {
        const struct api_published_ports none = {0};

        rpc_reply(call->request, &none, NULL, 0);
    }
    free(call->container);
    free(call);
}

static struct ports_call *new_call(struct rpc_request *request, struct api *api,
                                   const struct container *container)
{
    struct ports_call *call = xnew(struct ports_call);

    *call = (struct ports_call){request, api, xstrdup(container_id(container))};
    return call;
}

void api_container_publish(struct rpc_request *request, const struct api_container_ports *which,
                           void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_publish(container, which, on_ports_changed,
                                 new_call(request, context, container));
}

void api_container_unpublish(struct rpc_request *request, const struct api_container_ports *which,
                             void *context)
{
    struct container *container = api_container(request, which->container, context);

    if (container)
        engine_container_unpublish(container, which, on_ports_changed,
                                   new_call(request, context, container));
}
