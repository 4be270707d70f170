/*
 * Networks, names and published ports.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

static const char *const network_words[] = {"bridge", "none", "host", NULL};

const struct option network_option_table[] = {
    {
        .name = "add-host",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, add_host),
        .argument = "list",
        .help = "Add a name to its /etc/hosts: NAME:ADDRESS",
    },
    {
        .name = "dns",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, dns),
        .argument = "list",
        .help = "Address of a name server, in place of ours",
    },
    {
        .name = "dns-opt",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, dns_options),
        .argument = "list",
        .help = "The same",
        .hidden = true,
    },
    {
        .name = "dns-option",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, dns_options),
        .argument = "list",
        .help = "Option of its resolver, as in resolv.conf(5)",
    },
    {
        .name = "dns-search",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, dns_search),
        .argument = "list",
        .help = "Domain to search names in (.: none)",
    },
    {
        .name = "expose",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, expose),
        .argument = "list",
        .help = "Port or range it listens on, for --publish-all",
    },
    {
        .name = "ip",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct network_options, ip),
        .argument = "string",
        .help = "Its IPv4 address",
    },
    {
        .name = "ip6",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct network_options, ip6),
        .argument = "string",
        .help = "Its IPv6 address",
    },
    {
        .name = "link",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, links),
        .argument = "list",
        .help = "Let it find a container: NAME[:ALIAS]",
        .complete = COMPLETE_CONTAINERS,
    },
    {
        .name = "link-local-ip",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, link_local_ips),
        .argument = "list",
        .help = "Its link-local addresses",
    },
    {
        .name = "mac-address",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct network_options, mac_address),
        .argument = "string",
        .help = "Its MAC address",
    },
    {
        .name = "net",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, networks),
        .argument = "network",
        .help = "The same",
        .hidden = true,
    },
    {
        .name = "net-alias",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, aliases),
        .argument = "list",
        .help = "The same",
        .hidden = true,
    },
    {
        .name = "network",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, networks),
        .argument = "network",
        .help = "bridge, none, host, container:NAME or a network (default \"bridge\")",
        .complete = COMPLETE_EXAMPLES,
        .choices = network_words,
    },
    {
        .name = "network-alias",
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, aliases),
        .argument = "list",
        .help = "Further name on its network",
    },
    {
        .name = "publish",
        .short_name = 'p',
        .kind = OPTION_LIST,
        .offset = offsetof(struct network_options, publish),
        .argument = "list",
        .help = "Publish a port: [ADDRESS:][HOST-PORT:]PORT[/udp]",
    },
    {
        .name = "publish-all",
        .short_name = 'P',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct network_options, publish_all),
        .help = "Publish all ports it listens on, at free ones",
    },
    {.name = NULL},
};

/* ---- ports */

struct port_range {
    uint16_t first, last;
};

/* "80" or "80-90"; "" is 0-0 where that is allowed. */
static int parse_range(const char *text, bool may_be_empty, struct port_range *ret)
{
    const char *dash = strchr(text, '-');
    _cleanup_free_ char *first = xstrndup(text, dash ? (size_t)(dash - text) : strlen(text));
    uint64_t from = 0, to = 0;

    if (!text[0]) {
        *ret = (struct port_range){0, 0};
        return may_be_empty ? 0 : -EINVAL;
    }
    if (text_to_u64(first, may_be_empty ? 0 : 1, UINT16_MAX, &from) < 0)
        return -EINVAL;
    to = from;
    if (dash && text_to_u64(dash + 1, from, UINT16_MAX, &to) < 0)
        return -EINVAL;
    *ret = (struct port_range){(uint16_t)from, (uint16_t)to};
    return 0;
}

/* An IPv6 address stands in brackets. */
static char *bare_address(const char *text)
{
    size_t length = strlen(text);

    if (length > 2 && text[0] == '[' && text[length - 1] == ']')
        return xstrndup(text + 1, length - 2);
    return text[0] ? xstrdup(text) : NULL;
}

static void append_port(struct api_container_spec *spec, const char *address,
                        struct port_range host, uint16_t container, const char *protocol)
{
    struct api_port *port = xnew(struct api_port);

    port->host_address = bare_address(address);
    port->host_port = host.first;
    port->has_host_port = host.first != 0;
    port->host_port_last = host.last > host.first ? host.last : 0;
    port->has_host_port_last = port->host_port_last != 0;
    port->container_port = container;
    port->protocol = xstrdup(protocol);
    spec->ports = xrealloc(spec->ports, spec->ports_count + 1, sizeof(struct api_port *));
    spec->ports[spec->ports_count++] = port;
}

int spec_add_port(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_free_ char *words = xstrdup(text);
    const char *address = "", *host = "", *protocol = "tcp";
    struct port_range here, there;

    char *slash = strchr(words, '/');
    if (slash) {
        *slash = '\0';
        protocol = slash + 1;
    }
    if (!text_equal(protocol, "tcp") && !text_equal(protocol, "udp") &&
        !text_equal(protocol, "sctp"))
        return error_set(err, -EINVAL, "invalid proto: %s", protocol);
    char *container = strrchr(words, ':');
    if (container) {
        *container++ = '\0';
        char *colon = strrchr(words, ':');
        host = colon ? colon + 1 : words;
        if (colon) {
            *colon = '\0';
            address = words;
        }
    }
    if (parse_range(container ? container : words, false, &there) < 0)
        return error_set(err, -EINVAL, "invalid containerPort: %s", container ? container : words);
    if (parse_range(host, true, &here) < 0)
        return error_set(err, -EINVAL, "invalid hostPort: %s", host);
    unsigned count = there.last - there.first;
    /* One port may have any of a range. */
    if (here.first && count > 0 && (unsigned)(here.last - here.first) != count)
        return error_set(err, -EINVAL,
                         "invalid ranges specified for container and host Ports: "
                         "%s and %s",
                         container ? container : words, host);
    for (unsigned i = 0; i <= count; i++) {
        const uint16_t port = (uint16_t)(here.first ? here.first + i : 0);
        const struct port_range wanted = count > 0 ? (struct port_range){port, port} : here;

        append_port(spec, address, wanted, (uint16_t)(there.first + i), protocol);
    }
    return 0;
}

/* ---- networks */

static struct api_endpoint *endpoint_of(struct api_container_spec *spec, const char *network)
{
    struct api_endpoints *all = spec->networks;

    if (!all)
        all = spec->networks = xnew(struct api_endpoints);
    for (size_t i = 0; i < all->count; i++) {
        if (text_equal(all->keys[i], network))
            return all->values[i];
    }
    all->keys = xrealloc(all->keys, all->count + 1, sizeof(*all->keys));
    all->values = xrealloc(all->values, all->count + 1, sizeof(*all->values));
    all->keys[all->count] = xstrdup(network);
    all->values[all->count] = xnew(struct api_endpoint);
    return all->values[all->count++];
}

static void set_text(char **field, const char *value)
{
    free(*field);
    *field = xstrdup(value);
}

static int set_wish(struct api_endpoint *endpoint, const char *key, const char *value,
                    struct error *err)
{
    if (text_equal(key, "alias")) {
        strv_append(&endpoint->aliases, value);
        endpoint->aliases_count++;
    } else if (text_equal(key, "ip")) {
        set_text(&endpoint->ipv4_address, value);
    } else if (text_equal(key, "ip6")) {
        set_text(&endpoint->ipv6_address, value);
    } else if (text_equal(key, "mac-address")) {
        set_text(&endpoint->mac_address, value);
    } else if (text_equal(key, "link-local-ip")) {
        strv_append(&endpoint->link_local_ips, value);
        endpoint->link_local_ips_count++;
    } else if (text_equal(key, "driver-opt")) {
        char *const words[] = {(char *)value, NULL};
        spec_fill_map(&endpoint->driver_opts, words);
    } else {
        return error_set(err, -EINVAL, "invalid field key %s", key);
    }
    return 0;
}

/* "name=shop,alias=db,ip=10.1.2.3". */
static int add_network_with_wishes(struct api_container_spec *spec, const char *text,
                                   char **ret_name, struct error *err)
{
    _cleanup_strv_ char **fields = strv_split(text, ',');
    const char *name = NULL;
    int r = 0;

    for (size_t i = 0; fields && fields[i]; i++) {
        if (text_starts_with(fields[i], "name="))
            name = fields[i] + 5;
    }
    if (text_empty(name))
        return error_set(err, -EINVAL, "network name/id is not specified");
    struct api_endpoint *endpoint = endpoint_of(spec, name);
    for (size_t i = 0; r >= 0 && fields[i]; i++) {
        char *equals = strchr(fields[i], '=');
        if (!equals)
            return error_set(err, -EINVAL, "invalid field %s", fields[i]);
        *equals = '\0';
        if (!text_equal(fields[i], "name"))
            r = set_wish(endpoint, fields[i], equals + 1, err);
        else
            *equals = '=';
    }
    *ret_name = xstrdup(name);
    return r;
}

static int add_network(struct api_container_spec *spec, const char *text, bool several,
                       struct error *err)
{
    _cleanup_free_ char *name = NULL;
    int r = 0;

    if (strchr(text, '=') && !text_starts_with(text, "container:"))
        r = add_network_with_wishes(spec, text, &name, err);
    else
        name = xstrdup(text);
    if (r < 0)
        return r;
    if (several)
        endpoint_of(spec, name);
    if (!spec->network_mode)
        spec->network_mode = steal_ptr(name);
    return 0;
}

/* What the options ask for that are about "the network": the first one. */
static int add_wishes(const struct network_options *options, struct api_container_spec *spec,
                      struct error *err)
{
    struct api_endpoint *endpoint;

    if (!options->aliases && !options->ip && !options->ip6 && !options->link_local_ips)
        return 0;
    if (strv_length(options->networks) > 1)
        return error_set(err, -EINVAL,
                         "--network-alias, --ip, --ip6 and --link-local-ip are about one network: "
                         "say them in --network name=...,alias=...,ip=...");
    endpoint = endpoint_of(spec, spec->network_mode ? spec->network_mode : "bridge");
    for (char **alias = options->aliases; alias && *alias; alias++)
        set_wish(endpoint, "alias", *alias, NULL);
    for (char **address = options->link_local_ips; address && *address; address++)
        set_wish(endpoint, "link-local-ip", *address, NULL);
    if (options->ip)
        set_wish(endpoint, "ip", options->ip, NULL);
    if (options->ip6)
        set_wish(endpoint, "ip6", options->ip6, NULL);
    return 0;
}

/* ---- what it listens on */

static int add_exposed(struct api_container_spec *spec, const char *text, struct error *err)
{
    size_t length = strcspn(text, "/");
    _cleanup_free_ char *ports = xstrndup(text, length);
    const char *protocol = text[length] ? text + length + 1 : "tcp";
    struct port_range range;

    if (strchr(text, ':'))
        return error_set(err, -EINVAL, "invalid port format for --expose: %s", text);
    if (parse_range(ports, false, &range) < 0 ||
        (!text_equal(protocol, "tcp") && !text_equal(protocol, "udp") &&
         !text_equal(protocol, "sctp")))
        return error_set(err, -EINVAL, "invalid range format for --expose: %s", text);
    for (unsigned port = range.first; port <= range.last; port++) {
        strv_take(&spec->exposed_ports, xasprintf("%u/%s", port, protocol));
        spec->exposed_ports_count++;
    }
    return 0;
}

/* ---- all of it */

int network_build(const struct network_options *options, struct api_container_spec *spec,
                  struct error *err)
{
    bool several = strv_length(options->networks) > 1;
    int r = 0;

    for (char **text = options->publish; r >= 0 && text && *text; text++)
        r = spec_add_port(spec, *text, err);
    for (char **text = options->networks; r >= 0 && text && *text; text++)
        r = add_network(spec, *text, several, err);
    if (r >= 0)
        r = add_wishes(options, spec, err);
    for (char **text = options->expose; r >= 0 && text && *text; text++)
        r = add_exposed(spec, *text, err);
    if (r < 0)
        return r;
    spec_fill_list(&spec->dns, &spec->dns_count, options->dns);
    spec_fill_list(&spec->dns_search, &spec->dns_search_count, options->dns_search);
    spec_fill_list(&spec->dns_options, &spec->dns_options_count, options->dns_options);
    spec_fill_list(&spec->extra_hosts, &spec->extra_hosts_count, options->add_host);
    spec_fill_list(&spec->links, &spec->links_count, options->links);
    spec->mac_address = xstrdup(options->mac_address);
    spec->publish_all_ports = spec->has_publish_all_ports = options->publish_all;
    return 0;
}
