#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>
#include <schema/management.h>

#include "../fields.h"
#include "create.h"
#include "filters.h"
#include "handlers.h"

/* ---- list, inspect */

static void write_network(const struct api_network_details *network, struct buffer *out)
{
    if (out->length > 1)
        buffer_append_char(out, ',');
    door_inspect_network(network, out);
}

static void on_list(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_networks *list = outcome->result;
    struct buffer out = BUFFER_INIT;

    buffer_append_char(&out, '[');
    for (size_t i = 0; i < list->networks_count; i++)
        write_network(list->networks[i], &out);
    buffer_append_char(&out, ']');
    answer_json(exchange, 200, &out);
}

static bool network_filters(struct exchange *exchange, const struct filters *filters,
                            struct api_network_filters *ret)
{
    *ret = (struct api_network_filters){
        .driver = filters_get(filters, "driver"),
        .id = filters_get(filters, "id"),
        .label = filters_get(filters, "label"),
        .label_not = filters_get(filters, "label!"),
        .name = filters_get(filters, "name"),
        .scope = filters_get(filters, "scope"),
        .type = filters_get(filters, "type"),
    };
    ret->driver_count = strv_length(ret->driver);
    ret->id_count = strv_length(ret->id);
    ret->label_count = strv_length(ret->label);
    ret->label_not_count = strv_length(ret->label_not);
    ret->name_count = strv_length(ret->name);
    ret->scope_count = strv_length(ret->scope);
    ret->type_count = strv_length(ret->type);
    return filters_flag(exchange, filters, "dangling", &ret->dangling, &ret->has_dangling);
}

void docker_network_list(struct exchange *exchange)
{
    static const char *const known[] = {"driver", "type",  "name",     "id",
                                        "label",  "scope", "dangling", NULL};
    _cleanup_filters_ struct filters filters;
    struct api_network_filters wanted;

    if (!filters_of(exchange, known, &filters) || !network_filters(exchange, &filters, &wanted))
        return;
    call(exchange, "network.list", &(struct api_network_list){.filters = &wanted}, on_list, NULL);
}

static void on_inspect(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_network_details *network = outcome->result;
    const char *scope = target_text(&exchange->target, "scope");
    struct buffer out = BUFFER_INIT;

    if (!text_empty(scope) && !text_equal(scope, network->scope)) {
        answer_fail(exchange, 404, "network %s not found", exchange->words[0]);
        return;
    }

    door_inspect_network(network, &out);
    answer_json(exchange, 200, &out);
}

void docker_network_inspect(struct exchange *exchange)
{
    const struct api_network_ref which = {.network = exchange->words[0]};

    call(exchange, "network.inspect", &which, on_inspect, NULL);
}

/* ---- create, remove */

static void on_created(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_network_created *created = outcome->result;
    _cleanup_free_ char *warning = strv_join(created->warnings, "; ");
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "Id", created->id);
    field_text(&writer, "Warning", warning);
    json_writer_object_end(&writer);
    answer_json(exchange, 201, &out);
}

static struct api_network_ipam *ipam_of(struct docker_ipam *from)
{
    if (!from || (text_empty(from->driver) && !from->config_count && !from->options))
        return NULL;
    struct api_network_ipam *to = xnew(struct api_network_ipam);
    to->driver = text_empty(from->driver) ? NULL : steal_ptr(from->driver);
    to->options = from->options && from->options->count ? steal_ptr(from->options) : NULL;
    to->config =
        from->config_count ? xnew_array(struct api_network_subnet *, from->config_count) : NULL;
    for (size_t i = 0; i < from->config_count; i++) {
        struct docker_pool *pool = from->config[i];
        struct api_network_subnet *subnet = xnew(struct api_network_subnet);
        subnet->subnet = text_empty(pool->subnet) ? NULL : steal_ptr(pool->subnet);
        subnet->ip_range = text_empty(pool->ip_range) ? NULL : steal_ptr(pool->ip_range);
        subnet->gateway = text_empty(pool->gateway) ? NULL : steal_ptr(pool->gateway);
        subnet->aux_addresses = steal_ptr(pool->auxiliary_addresses);
        to->config[i] = subnet;
        to->config_count = i + 1;
    }
    return to;
}

void docker_network_create(struct exchange *exchange)
{
    _cleanup_docker_network_create_ struct docker_network_create *from = NULL;
    void *document;

    if (!exchange_document(exchange, &docker_network_create_type, &document))
        return;
    from = document;
    if (from->config_only || (from->config_from && !text_empty(from->config_from->network))) {
        answer_fail(exchange, 501, "there are no networks that are settings of others");
        return;
    }
    struct api_network_create how = {
        .name = text_empty(from->name) ? (char *)"" : from->name,
        .driver = text_empty(from->driver) ? NULL : from->driver,
        .check_duplicate = from->check_duplicate,
        .has_check_duplicate = from->has_check_duplicate,
        .enable_ipv6 = from->enable_ipv6,
        .has_enable_ipv6 = from->has_enable_ipv6,
        .internal = from->internal,
        .has_internal = from->has_internal,
        .attachable = from->attachable,
        .has_attachable = from->has_attachable,
        .ingress = from->ingress,
        .has_ingress = from->has_ingress,
        .scope = text_empty(from->scope) ? NULL : from->scope,
        .ipam = ipam_of(from->ipam),
        .options = from->options,
        .labels = from->labels,
    };
    call(exchange, "network.create", &how, on_created, NULL);
    api_network_ipam_free(how.ipam);
}

void docker_network_remove(struct exchange *exchange)
{
    const struct api_network_remove which = {.network = exchange->words[0]};

    call(exchange, "network.remove", &which, call_done_empty, NULL);
}

/* ---- connect, disconnect */

static void done_ok(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    answer_empty(exchange, 200);
}

void docker_network_connect(struct exchange *exchange)
{
    _cleanup_docker_network_connect_ struct docker_network_connect *from = NULL;
    _cleanup_api_endpoint_ struct api_endpoint *endpoint = NULL;
    void *document;

    if (!exchange_document(exchange, &docker_network_connect_type, &document))
        return;
    from = document;
    if (from->endpoint_config) {
        endpoint = xnew(struct api_endpoint);
        docker_take_endpoint(from->endpoint_config, endpoint);
    }
    const struct api_network_connect how = {.network = exchange->words[0],
                                            .container =
                                                from->container ? from->container : (char *)"",
                                            .endpoint = endpoint};
    call(exchange, "network.connect", &how, done_ok, NULL);
}

void docker_network_disconnect(struct exchange *exchange)
{
    _cleanup_docker_network_disconnect_ struct docker_network_disconnect *from = NULL;
    void *document;

    if (!exchange_document(exchange, &docker_network_disconnect_type, &document))
        return;
    from = document;
    const struct api_network_disconnect how = {.network = exchange->words[0],
                                               .container =
                                                   from->container ? from->container : (char *)"",
                                               .force = from->force,
                                               .has_force = true};
    call(exchange, "network.disconnect", &how, done_ok, NULL);
}

/* ---- prune */

static void on_pruned(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_network_pruned *pruned = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_list(&writer, "NetworksDeleted",
               pruned->networks_deleted_count ? pruned->networks_deleted : NULL);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_network_prune(struct exchange *exchange)
{
    static const char *const known[] = {"until", "label", "label!", NULL};
    _cleanup_filters_ struct filters filters;
    struct api_network_filters wanted;
    struct api_prune_filters times;

    if (!filters_of(exchange, known, &filters) ||
        !docker_prune_filters(exchange, &filters, &times) ||
        !network_filters(exchange, &filters, &wanted))
        return;
    wanted.until = times.until;
    wanted.has_until = times.has_until;
    call(exchange, "network.prune", &(struct api_network_prune){.filters = &wanted}, on_pruned,
         NULL);
}
