/*
 * Who sees which containers: what one does not see is as if it were not there.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>

#include "handlers.h"

bool api_sees(const struct api *api, const struct rpc_connection *connection, const char *id,
              const char *name)
{
    return !api->sees || api->sees(connection, id, name, api->data);
}

static bool sees_container(const struct api *api, const struct rpc_connection *connection,
                           const char *id)
{
    struct container *container;

    return engine_find(api->engine, id, &container, NULL) >= 0 &&
           api_sees(api, connection, container_id(container), container_name(container));
}

bool api_sees_all(const struct api *api, const struct rpc_connection *connection)
{
    return api_sees(api, connection, "", "");
}

/* What is told of networks can be of a container: of one that is gone nobody knows any more whether
 * it was to be seen. */
bool api_sees_event(const struct api *api, const struct rpc_connection *connection,
                    const struct api_event *event)
{
    const char *container = json_string_map_get(event->attributes, "container");

    if (api_sees_all(api, connection))
        return true;
    if (text_equal(event->type, "container"))
        return api_sees(api, connection, event->id, event->name ? event->name : "");
    return !container || sees_container(api, connection, container);
}

int api_check_name(const struct rpc_request *request, const char *name, const struct api *api,
                   struct error *err)
{
    if (api_sees(api, rpc_request_connection(request), "", name ? name : ""))
        return 0;
    if (name)
        error_set(err, -EACCES, "a container named %s could not be seen here", name);
    else
        error_set(err, -EACCES, "a container without a name could not be seen here");
    return error_hint(err, "Give it a name that fits \"visible\" of this socket: cloched.conf(5)");
}
