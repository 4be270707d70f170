/*
 * From what somebody asks of a new network to its record.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "cni.h"
#include "networks.h"

enum {
    MTU_MIN = 68, /* of IPv4; with IPv6 the kernel wants 1280 */
    MTU_MAX = 65535,
    BRIDGE_ID_DIGITS = 12,
    OPTIONS_MAX = 64,
};

#define OPTION_PREFIX "com.docker.network."

static const char *option(const struct api_network_create *how, const char *name)
{
    return json_string_map_get(how->options, name);
}

static int read_switch(const struct api_network_create *how, const char *name, bool otherwise,
                       bool *ret, struct error *err)
{
    const char *value = option(how, name);

    *ret = otherwise;
    if (!value)
        return 0;
    if (text_equal(value, "true") || text_equal(value, "1"))
        *ret = true;
    else if (text_equal(value, "false") || text_equal(value, "0"))
        *ret = false;
    else
        return error_set(err, -EINVAL, "option %s: '%s' is neither true nor false", name, value);
    return 0;
}

static int read_options(const struct api_network_create *how, struct record_stored_network *record,
                        struct error *err)
{
    const char *mtu = option(how, OPTION_PREFIX "driver.mtu");
    const char *binding = option(how, OPTION_PREFIX "bridge.host_binding_ipv4");
    bool together, masquerade;
    uint64_t bytes = 0;
    struct in_addr address;
    int r;

    if (how->options && how->options->count > OPTIONS_MAX)
        return error_set(err, -EINVAL, "more than %d options", OPTIONS_MAX);
    if (mtu && text_to_u64(mtu, MTU_MIN, MTU_MAX, &bytes) < 0)
        return error_set(err, -EINVAL, "invalid MTU: %s (%d to %d)", mtu, MTU_MIN, MTU_MAX);
    record->mtu = (uint32_t)bytes;
    record->has_mtu = bytes > 0;
    r = read_switch(how, OPTION_PREFIX "bridge.enable_icc", true, &together, err);
    if (r == 0)
        r = read_switch(how, OPTION_PREFIX "bridge.enable_ip_masquerade", true, &masquerade, err);
    if (r == 0 && binding)
        r = net_address_parse(binding, &address, err);
    if (r < 0)
        return r;
    record->host_binding = xstrdup(binding);
    record->separate = record->has_separate = !together;
    record->own_addresses = record->has_own_addresses = !masquerade;
    return 0;
}

/* A bridge's name: ours by the network's ID, or the one that was asked for. */
static int choose_bridge(const struct api_network_create *how, const char *id,
                         struct record_stored_network *record, struct error *err)
{
    const char *wanted = option(how, OPTION_PREFIX "bridge.name");

    if (!wanted) {
        record->bridge = xasprintf("clo%.*s", BRIDGE_ID_DIGITS, id);
        return 0;
    }
    if (!wanted[0] || strlen(wanted) >= IFNAMSIZ || strpbrk(wanted, "/ \t\n:%"))
        return error_set(err, -EINVAL, "'%s' cannot be a bridge's name", wanted);
    if (if_nametoindex(wanted) != 0)
        return error_set(err, -EEXIST, "a link with the name %s exists already", wanted);
    record->bridge = xstrdup(wanted);
    return 0;
}

static int check_overlap(struct engine *engine, const struct net_subnet *subnet, struct error *err)
{
    char text[NET_SUBNET_TEXT];

    for (size_t i = 0; i < engine->networks_count; i++) {
        const struct network *other = engine->networks[i];

        if (other->kind == NETWORK_BRIDGE && net_subnet_overlap(&other->subnet, subnet)) {
            error_set(err, -EPERM, "Pool overlaps with other one on this address space");
            error_hint(err, "network %s has %s", other->record->name,
                       net_subnet_format(&other->subnet, text));
            return -EPERM;
        }
    }
    return 0;
}

static int check_overlap6(struct engine *engine, const struct net_subnet6 *subnet,
                          struct error *err)
{
    for (size_t i = 0; i < engine->networks_count; i++) {
        const struct net_subnet6 *other = &engine->networks[i]->subnet6;

        if (other->prefix > 0 && (net_subnet6_contains(other, &subnet->gateway) ||
                                  net_subnet6_contains(subnet, &other->gateway)))
            return error_set(err, -EPERM, "Pool overlaps with other one on this address space");
    }
    return 0;
}

/* Loopback, multicast, "this network" and what is reserved: routes to them would break the machine.
 */
static int check_special(const struct net_subnet *subnet, struct error *err)
{
    const uint32_t first = ntohl(net_subnet_network(subnet).s_addr);
    const uint32_t last = ntohl(net_subnet_broadcast(subnet).s_addr);
    char text[NET_SUBNET_TEXT];

    if (first >> 24 != 0 && last >> 24 < 224 && (first >> 24 > 127 || last >> 24 < 127))
        return 0;
    return error_set(err, -EINVAL, "invalid subnet %s: these addresses are no network's",
                     net_subnet_format(subnet, text));
}

static int check_special6(const struct net_subnet6 *subnet, struct error *err)
{
    const struct in6_addr network = net_subnet6_network(subnet);
    char text[NET_SUBNET6_TEXT];

    if (network.s6_addr[0] != 0 && !IN6_IS_ADDR_MULTICAST(&network) &&
        !IN6_IS_ADDR_LINKLOCAL(&network))
        return 0;
    return error_set(err, -EINVAL, "invalid subnet %s: these addresses are no network's",
                     net_subnet6_format(subnet, text));
}

static int plan_ipv4(struct engine *engine, const struct api_network_subnet *wanted,
                     struct record_stored_network *record, struct error *err)
{
    struct net_subnet subnet, range;
    char text[NET_SUBNET_TEXT];
    int r = net_subnet_parse(wanted->subnet, &subnet, err);

    if (r == 0)
        r = check_special(&subnet, err);
    if (r == 0)
        r = check_overlap(engine, &subnet, err);
    if (r == 0 && !text_empty(wanted->gateway)) {
        struct in_addr gateway;

        r = net_address_parse(wanted->gateway, &gateway, err);
        if (r == 0 && !net_subnet_contains(&subnet, gateway))
            r = error_set(err, -EINVAL, "no matching subnet for gateway %s", wanted->gateway);
        subnet.gateway = gateway;
    } else if (r == 0) { /* an address inside of the subnet is the subnet, as docker has it */
        subnet.gateway.s_addr = htonl(ntohl(net_subnet_network(&subnet).s_addr) + 1);
    }
    if (r == 0 && !text_empty(wanted->ip_range)) {
        r = net_subnet_parse(wanted->ip_range, &range, err);
        if (r == 0 &&
            (!net_subnet_contains(&subnet, range.gateway) || range.prefix < subnet.prefix))
            r = error_set(err, -EINVAL, "no matching subnet for range %s", wanted->ip_range);
    }
    if (r < 0)
        return r;
    record->subnet = xstrdup(net_subnet_format(&subnet, text));
    record->ip_range = text_empty(wanted->ip_range) ? NULL : xstrdup(wanted->ip_range);
    record->aux_addresses = json_string_map_copy(wanted->aux_addresses);
    return 0;
}

static int plan_ipv6(struct engine *engine, const struct api_network_subnet *wanted,
                     struct record_stored_network *record, struct error *err)
{
    struct net_subnet6 subnet;
    char text[NET_SUBNET6_TEXT];
    int r = net_subnet6_parse(wanted->subnet, &subnet, err);

    if (r == 0)
        r = check_special6(&subnet, err);
    if (r == 0)
        r = check_overlap6(engine, &subnet, err);
    if (r == 0 && !text_empty(wanted->gateway)) {
        struct in6_addr gateway;

        if (inet_pton(AF_INET6, wanted->gateway, &gateway) != 1 ||
            !net_subnet6_contains(&subnet, &gateway))
            r = error_set(err, -EINVAL, "no matching subnet for gateway %s", wanted->gateway);
        subnet.gateway = gateway;
    }
    if (r < 0)
        return r;
    record->subnet6 = xstrdup(net_subnet6_format(&subnet, text));
    return 0;
}

static int plan_ipam(struct engine *engine, const struct api_network_ipam *ipam,
                     struct record_stored_network *record, struct error *err)
{
    if (!ipam)
        return 0;
    if (!text_empty(ipam->driver) && !text_equal(ipam->driver, "default"))
        return error_set(err, -EINVAL, "IPAM driver %s is not there: use default", ipam->driver);
    for (size_t i = 0; i < ipam->config_count; i++) {
        const struct api_network_subnet *wanted = ipam->config[i];
        bool v6 = wanted->subnet && strchr(wanted->subnet, ':');
        int r;

        if (text_empty(wanted->subnet)) {
            if (!text_empty(wanted->gateway) || !text_empty(wanted->ip_range))
                return error_set(err, -EINVAL, "invalid subnet: a gateway or a range needs one");
            continue;
        }
        if (v6 ? record->subnet6 : record->subnet)
            return error_set(err, -EINVAL, "bridge driver doesn't support multiple subnets");
        r = v6 ? plan_ipv6(engine, wanted, record, err) : plan_ipv4(engine, wanted, record, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int choose_missing(struct engine *engine, const struct api_network_create *how,
                          struct record_stored_network *record, struct error *err)
{
    char text[NET_SUBNET_TEXT], text6[NET_SUBNET6_TEXT];
    struct net_subnet subnet;

    if (!record->subnet) {
        int r = net_choose_subnet(engine->net, record->bridge, &subnet, err);

        if (r < 0)
            return r;
        record->subnet = xstrdup(net_subnet_format(&subnet, text));
    }
    if (how->enable_ipv6 && !record->subnet6) {
        const struct net_subnet6 random = net_subnet6_random();

        record->subnet6 = xstrdup(net_subnet6_format(&random, text6));
    }
    return 0;
}

static int check_driver(const struct api_network_create *how, struct error *err)
{
    if (!text_empty(how->driver) && !text_equal(how->driver, "bridge") &&
        !text_equal(how->driver, "default") && !text_equal(how->driver, "cni")) {
        error_set(err, -EINVAL, "network driver %s is not there", how->driver);
        error_hint(err, "networks are bridges (--driver bridge) or of plug-ins (--driver cni)");
        return -EINVAL;
    }
    if (how->ingress)
        return error_set(err, -EINVAL, "ingress networks belong to swarms, and there are none");
    if (!text_empty(how->scope) && !text_equal(how->scope, "local"))
        return error_set(err, -EINVAL, "scope %s is not there: local is", how->scope);
    return 0;
}

/* What its list says nobody else does. */
static int check_plugins(const struct api_network_create *how, struct error *err)
{
    const struct json_string_map *options = how->options;
    const struct api_network_ipam *ipam = how->ipam;

    if (ipam && (ipam->config_count > 0 || (ipam->options && ipam->options->count > 0) ||
                 (!text_empty(ipam->driver) && !text_equal(ipam->driver, "default"))))
        return error_set(err, -EINVAL,
                         "a network of plug-ins has the addresses that its list says: no subnet, "
                         "gateway or range");
    if (how->enable_ipv6 || how->internal)
        return error_set(err, -EINVAL, "%s: its list decides that for a network of plug-ins",
                         how->internal ? "internal" : "IPv6");
    for (size_t i = 0; options && i < options->count; i++) {
        if (!text_equal(options->keys[i], CNI_LIST_OPTION))
            return error_set(err, -EINVAL, "option %.80s: a network of plug-ins has only %s",
                             options->keys[i], CNI_LIST_OPTION);
    }
    return 0;
}

int network_plan(struct engine *engine, const struct api_network_create *how, const char *id,
                 struct record_stored_network **ret, struct error *err)
{
    struct record_stored_network *record = xnew(struct record_stored_network);
    int r;

    record->version = 1;
    record->name = xstrdup(how->name);
    record->driver = xstrdup("bridge");
    record->created_at = clock_now();
    record->internal = record->has_internal = how->internal;
    record->attachable = record->has_attachable = how->attachable;
    record->labels = json_string_map_copy(how->labels);
    record->options = json_string_map_copy(how->options);
    r = check_driver(how, err);
    if (r == 0 && text_equal(how->driver, "cni")) {
        free(record->driver);
        record->driver = xstrdup("cni");
        r = check_plugins(how, err);
        if (r < 0)
            record_stored_network_free(record);
        else
            *ret = record;
        return r;
    }
    if (r == 0 && !engine->net)
        r = error_set(err, -ENETDOWN, "there is no network: %s", error_message(&engine->net_error));
    if (r == 0)
        r = read_options(how, record, err);
    if (r == 0)
        r = choose_bridge(how, id, record, err);
    if (r == 0)
        r = plan_ipam(engine, how->ipam, record, err);
    if (r == 0)
        r = choose_missing(engine, how, record, err);
    if (r < 0) {
        record_stored_network_free(record);
        return r;
    }
    *ret = record;
    return 0;
}
