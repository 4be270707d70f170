#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>

#include "fields.h"

static void write_subnets(struct json_writer *writer, const struct api_network_ipam *ipam)
{
    json_writer_key(writer, "Config");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < ipam->config_count; i++) {
        const struct api_network_subnet *subnet = ipam->config[i];

        json_writer_object_begin(writer);
        field_text(writer, "Subnet", subnet->subnet);
        if (subnet->ip_range)
            field_text(writer, "IPRange", subnet->ip_range);
        if (subnet->gateway)
            field_text(writer, "Gateway", subnet->gateway);
        if (subnet->aux_addresses && subnet->aux_addresses->count > 0)
            field_map(writer, "AuxiliaryAddresses", subnet->aux_addresses);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void write_ipam(struct json_writer *writer, const struct api_network_ipam *ipam)
{
    field_object_begin(writer, "IPAM");
    field_text(writer, "Driver", "default");
    if (ipam && ipam->options)
        field_map(writer, "Options", ipam->options);
    else
        field_null(writer, "Options");
    if (ipam)
        write_subnets(writer, ipam);
    json_writer_object_end(writer);
}

static void write_containers(struct json_writer *writer, const struct api_network_details *network)
{
    field_object_begin(writer, "Containers");
    for (size_t i = 0; i < network->containers_count; i++) {
        const struct api_network_endpoint *endpoint = network->containers[i];

        field_object_begin(writer, endpoint->container);
        field_text(writer, "Name", endpoint->name);
        field_text(writer, "EndpointID", endpoint->endpoint_id);
        field_text(writer, "MacAddress", endpoint->mac_address);
        field_text(writer, "IPv4Address", endpoint->ipv4_address);
        field_text(writer, "IPv6Address", endpoint->ipv6_address);
        json_writer_object_end(writer);
    }
    json_writer_object_end(writer);
}

void door_inspect_network(const struct api_network_details *network, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "Name", network->name);
    field_text(&writer, "Id", network->id);
    field_text(&writer, "Created", network->created_at);
    field_text(&writer, "Scope", network->scope);
    field_text(&writer, "Driver", network->driver);
    field_boolean(&writer, "EnableIPv6", network->enable_ipv6);
    write_ipam(&writer, network->ipam);
    field_boolean(&writer, "Internal", network->internal);
    field_boolean(&writer, "Attachable", network->attachable);
    field_boolean(&writer, "Ingress", network->ingress);
    field_object_begin(&writer, "ConfigFrom");
    field_text(&writer, "Network", "");
    json_writer_object_end(&writer);
    field_boolean(&writer, "ConfigOnly", false);
    write_containers(&writer, network);
    field_map(&writer, "Options", network->options);
    field_map(&writer, "Labels", network->labels);
    json_writer_object_end(&writer);
}
