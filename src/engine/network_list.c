/*
 * What the engine tells of networks.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "networks.h"

/* --- one network ------------------------------------------------------------------------------ */

static char *mac_text(const uint8_t mac[static 6])
{
    return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                     mac[5]);
}

static struct api_network_endpoint *endpoint_of(const struct container *container,
                                                const struct place *place)
{
    struct api_network_endpoint *endpoint = xnew(struct api_network_endpoint);
    char text[NET_IP_TEXT];

    endpoint->container = xstrdup(container->id);
    endpoint->name = xstrdup(container->name);
    endpoint->endpoint_id = xstrdup(place->endpoint_id);
    endpoint->mac_address = mac_text(place->interface.mac);
    if (place_prefix(place) > 0)
        endpoint->ipv4_address = xasprintf(
            "%s/%u", net_address_format(place->interface.address, text), place_prefix(place));
    if (place_prefix6(place) > 0) {
        const struct net_ip address = net_ip_v6(place->interface.address6);

        endpoint->ipv6_address =
            xasprintf("%s/%u", net_ip_format(&address, text), place_prefix6(place));
    }
    return endpoint;
}

static void add_containers(const struct engine *engine, const struct network *network,
                           struct api_network_details *details)
{
    details->containers = xnew_array(struct api_network_endpoint *, engine->containers_count + 1);
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct place *place = places_find(engine->containers[i], network);

        if (place && place->held && network->kind != NETWORK_HOST && network->kind != NETWORK_NONE)
            details->containers[details->containers_count++] =
                endpoint_of(engine->containers[i], place);
    }
}

static struct api_network_subnet *subnet_of(const char *network, unsigned prefix,
                                            const char *gateway)
{
    struct api_network_subnet *subnet = xnew(struct api_network_subnet);

    subnet->subnet = xasprintf("%s/%u", network, prefix);
    subnet->gateway = xstrdup(gateway);
    return subnet;
}

static struct api_network_ipam *ipam_of(const struct network *network)
{
    struct api_network_ipam *ipam = xnew(struct api_network_ipam);
    char text[NET_IP_TEXT], gateway[NET_IP_TEXT];

    ipam->driver = xstrdup("default");
    ipam->config = xnew_array(struct api_network_subnet *, 3);
    if (network->kind != NETWORK_BRIDGE)
        return ipam;
    ipam->config[ipam->config_count++] =
        subnet_of(net_address_format(net_subnet_network(&network->subnet), text),
                  network->subnet.prefix, net_address_format(network->subnet.gateway, gateway));
    ipam->config[0]->ip_range = xstrdup(network->record->ip_range);
    ipam->config[0]->aux_addresses = json_string_map_copy(network->record->aux_addresses);
    if (network->subnet6.prefix > 0) {
        const struct net_ip first = net_ip_v6(net_subnet6_network(&network->subnet6));
        const struct net_ip own = net_ip_v6(network->subnet6.gateway);

        ipam->config[ipam->config_count++] = subnet_of(
            net_ip_format(&first, text), network->subnet6.prefix, net_ip_format(&own, gateway));
    }
    return ipam;
}

static struct json_string_map *copy_or_empty(const struct json_string_map *map)
{
    return map ? json_string_map_copy(map) : xnew(struct json_string_map);
}

static struct api_network_details *details_of(const struct engine *engine,
                                              const struct network *network)
{
    const struct record_stored_network *record = network->record;
    struct api_network_details *details = xnew(struct api_network_details);

    details->id = xstrdup(network->id);
    details->name = xstrdup(record->name);
    details->created_at = clock_format(record->created_at);
    details->scope = xstrdup("local");
    details->driver = xstrdup(record->driver);
    details->enable_ipv6 = network->subnet6.prefix > 0;
    details->ipam = ipam_of(network);
    details->internal = record->internal;
    details->attachable = record->attachable;
    details->bridge = xstrdup(record->bridge);
    add_containers(engine, network, details);
    details->options = copy_or_empty(record->options);
    details->labels = copy_or_empty(record->labels);
    return details;
}

int engine_network_inspect(struct engine *engine, const char *reference,
                           struct api_network_details **ret, struct error *err)
{
    struct network *network = NULL;
    int r = network_find(engine, reference, &network, err);

    if (r < 0)
        return r;
    *ret = details_of(engine, network);
    return 0;
}

/* --- filters ---------------------------------------------------------------------------------- */

static bool one_begins(char *const *wanted, const char *text)
{
    for (; *wanted; wanted++) {
        if (text_starts_with(text, *wanted))
            return true;
    }
    return false;
}

static bool one_is_part(char *const *wanted, const char *text)
{
    for (; *wanted; wanted++) {
        if (strstr(text, *wanted))
            return true;
    }
    return false;
}

static bool has_label(const struct json_string_map *labels, const char *wanted)
{
    size_t length = strcspn(wanted, "=");
    _cleanup_free_ char *key = xstrndup(wanted, length);
    const char *value = json_string_map_get(labels, key);

    return value && (!wanted[length] || text_equal(value, wanted + length + 1));
}

static bool fits_labels(const struct api_network_filters *filters,
                        const struct json_string_map *labels)
{
    for (size_t i = 0; i < filters->label_count; i++) {
        if (!has_label(labels, filters->label[i]))
            return false;
    }
    for (size_t i = 0; i < filters->label_not_count; i++) {
        if (has_label(labels, filters->label_not[i]))
            return false;
    }
    return true;
}

static bool is_dangling(const struct engine *engine, const struct network *network)
{
    return !network->builtin && !network_is_used(network, engine, true);
}

static bool fits(const struct engine *engine, const struct network *network,
                 const struct api_network_filters *filters)
{
    const struct record_stored_network *record = network->record;

    if (network->hidden)
        return false;
    if (!filters)
        return true;
    return (!filters->has_dangling || filters->dangling == is_dangling(engine, network)) &&
           (!filters->driver_count || strv_contains(filters->driver, record->driver)) &&
           (!filters->id_count || one_begins(filters->id, network->id)) &&
           (!filters->name_count || one_is_part(filters->name, record->name)) &&
           (!filters->scope_count || strv_contains(filters->scope, "local")) &&
           (!filters->type_count ||
            strv_contains(filters->type, network->builtin ? "builtin" : "custom")) &&
           (!filters->has_until || record->created_at < filters->until) &&
           fits_labels(filters, record->labels);
}

struct api_networks *engine_network_list(struct engine *engine,
                                         const struct api_network_filters *filters)
{
    struct api_networks *list = xnew(struct api_networks);

    list->networks = xnew_array(struct api_network_details *, engine->networks_count + 1);
    for (size_t i = 0; i < engine->networks_count; i++) {
        if (fits(engine, engine->networks[i], filters))
            list->networks[list->networks_count++] = details_of(engine, engine->networks[i]);
    }
    return list;
}
