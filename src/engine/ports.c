/*
 * Published ports of a container: what it wants, by its specification or by what was changed since,
 * and what is published while it runs.
 */
#include "ports.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "cni.h"
#include "relay.h"

enum net_protocol ports_protocol(const char *name)
{
    if (text_equal(name, "udp"))
        return NET_UDP;
    return text_equal(name, "sctp") ? NET_SCTP : NET_TCP;
}

const char *ports_protocol_name(enum net_protocol protocol)
{
    if (protocol == NET_UDP)
        return "udp";
    return protocol == NET_SCTP ? "sctp" : "tcp";
}

/* --- publishing ------------------------------------------------------------------------------- */

static void remember(struct container *container, const struct net_publication *publication)
{
    container->publications =
        xrealloc(container->publications, container->publications_count + 1, sizeof(*publication));
    container->publications[container->publications_count++] = *publication;
}

/* They are asked together with the network. */
static int leave_to_plugins(struct container *container, struct net_publication *publication,
                            struct error *err)
{
    if (container->state == CONTAINER_RUNNING || container->state == CONTAINER_RESTARTING)
        return error_set(err, -EPERM,
                         "ports at network %s cannot be changed while the container runs: its "
                         "plug-ins get them at the start",
                         places_main(container)->network->record->name);
    container->ports_by_plugins = true;
    return cni_choose_port(container->engine, publication, err);
}

/* Only its plug-ins know of a CNI network which addresses it gives. */
static bool may_have_ipv6(const struct place *main)
{
    return main->network->subnet6.prefix > 0 || main->network->kind == NETWORK_CNI;
}

/* Who comes to [::1] is led to either. */
static struct net_ip target_of(const struct place *main, const struct net_ip *host)
{
    if (host->family == AF_INET6 && may_have_ipv6(main))
        return net_ip_v6(main->interface.address6);
    return net_ip_v4(main->interface.address);
}

static int publish_at(struct container *container, const struct api_port *port,
                      const struct net_ip *host, struct error *err)
{
    const struct place *main = places_main(container);
    struct net_publication publication = {
        .protocol = ports_protocol(port->protocol),
        .host_address = *host,
        .host_port = port->host_port,
        .host_port_last = port->host_port_last,
        .container_address = target_of(main, host),
        .container_port = port->container_port,
    };
    int r = main->network->kind == NETWORK_CNI
                ? leave_to_plugins(container, &publication, err)
                : net_publish(container->engine->net, &publication, err);

    if (r < 0)
        return r;
    publication.host_port_last = 0;
    remember(container, &publication);
    return 0;
}

/* A port without an address is one of both families, under the same number. */
static int publish_everywhere(struct container *container, const struct api_port *port,
                              struct error *err)
{
    const struct network *network = places_main(container)->network;
    struct net_ip any = {.family = AF_INET};
    struct api_port same = *port;
    int r = 0;

    if (network->record->host_binding)
        r = net_ip_parse(network->record->host_binding, &any, err);
    if (r == 0)
        r = publish_at(container, port, &any, err);
    if (r < 0 || network->subnet6.prefix == 0 || network->record->host_binding)
        return r;
    any = (struct net_ip){.family = AF_INET6};
    same.host_port = container->publications[container->publications_count - 1].host_port;
    same.host_port_last = 0;
    return publish_at(container, &same, &any, err);
}

int ports_publish_one(struct container *container, const struct api_port *port, struct error *err)
{
    struct net_ip host;
    int r;

    if (text_empty(port->host_address))
        return publish_everywhere(container, port, err);
    r = net_ip_parse(port->host_address, &host, err);
    if (r < 0)
        return r;
    if (host.family == AF_INET6 && !net_ip_is_loopback(&host) &&
        !may_have_ipv6(places_main(container)))
        return error_set(err, -EINVAL,
                         "publish %s: the container's network %s has no IPv6 (network create "
                         "--ipv6)",
                         port->host_address, places_main(container)->network->record->name);
    return publish_at(container, port, &host, err);
}

static int publish_exposed(struct container *container, struct error *err)
{
    const struct api_container_spec *spec = container->effective;

    for (size_t i = 0; i < spec->exposed_ports_count; i++) {
        struct exposed_range range;
        int r = ports_parse_exposed(spec->exposed_ports[i], &range, err);

        for (unsigned port = range.first; r == 0 && port <= range.last; port++) {
            const struct api_port wanted = {.container_port = (uint16_t)port,
                                            .protocol = (char *)range.protocol};

            if (!ports_wants(container, &wanted))
                r = ports_publish_one(container, &wanted, err);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- what is wanted --------------------------------------------------------------------------- */

int ports_parse_exposed(const char *text, struct exposed_range *ret, struct error *err)
{
    static const char *const protocols[] = {"tcp", "udp", "sctp"};
    size_t length = strcspn(text, "/"), dash = strcspn(text, "-");
    _cleanup_free_ char *first = xstrndup(text, dash < length ? dash : length);
    _cleanup_free_ char *last =
        dash < length ? xstrndup(text + dash + 1, length - dash - 1) : xstrdup(first);
    const char *protocol = text[length] ? text + length + 1 : "tcp";
    uint64_t from, to;

    *ret = (struct exposed_range){1, 0, NULL};
    if (text_to_u64(first, 1, UINT16_MAX, &from) < 0 ||
        text_to_u64(last, from, UINT16_MAX, &to) < 0)
        return error_set(err, -EINVAL, "invalid port specification: \"%.64s\"", text);
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
        if (text_equal(protocols[i], protocol))
            *ret = (struct exposed_range){(uint16_t)from, (uint16_t)to, protocols[i]};
    }
    return ret->protocol ? 0 : error_set(err, -EINVAL, "invalid proto: %.16s", protocol);
}

static struct record_port *copy_wanted(const struct api_port *port)
{
    struct record_port *copy = xnew(struct record_port);

    copy->host_address = xstrdup(port->host_address ? port->host_address : "");
    copy->host_port = port->host_port;
    copy->host_port_last = port->host_port_last;
    copy->has_host_port_last = port->host_port_last > 0;
    copy->container_port = port->container_port;
    copy->protocol = xstrdup(ports_protocol_name(ports_protocol(port->protocol)));
    return copy;
}

static struct api_port wanted_of(const struct record_port *port)
{
    return (struct api_port){
        .host_address = port->host_address,
        .host_port = port->host_port,
        .has_host_port = true,
        .host_port_last = port->host_port_last,
        .container_port = port->container_port,
        .protocol = port->protocol,
    };
}

static size_t wanted_count(const struct container *container)
{
    return container->record->wanted_ports ? container->record->wanted_ports_count
                                           : container->effective->ports_count;
}

static struct api_port wanted_at(const struct container *container, size_t index)
{
    return container->record->wanted_ports ? wanted_of(container->record->wanted_ports[index])
                                           : *container->effective->ports[index];
}

bool ports_wants(const struct container *container, const struct api_port *port)
{
    for (size_t i = 0; i < wanted_count(container); i++) {
        const struct api_port wanted = wanted_at(container, i);

        if (wanted.container_port == port->container_port &&
            ports_protocol(wanted.protocol) == ports_protocol(port->protocol))
            return true;
    }
    return false;
}

/* From now on the record says what is wanted, no more the specification. */
static void take_wanted_over(struct container *container)
{
    struct record_container *record = container->record;
    const struct api_container_spec *spec = container->effective;

    if (record->wanted_ports)
        return;
    record->wanted_ports = xnew_array(struct record_port *, spec->ports_count + 1);
    for (size_t i = 0; i < spec->ports_count; i++)
        record->wanted_ports[record->wanted_ports_count++] = copy_wanted(spec->ports[i]);
}

void ports_want(struct container *container, const struct api_port *port)
{
    struct record_container *record = container->record;

    take_wanted_over(container);
    record->wanted_ports = xrealloc(record->wanted_ports, record->wanted_ports_count + 2,
                                    sizeof(struct record_port *));
    record->wanted_ports[record->wanted_ports_count++] = copy_wanted(port);
    record->wanted_ports[record->wanted_ports_count] = NULL;
}

static bool fits(const struct api_port *which, const char *address, uint16_t host_port,
                 uint16_t container_port, enum net_protocol protocol)
{
    return which->container_port == container_port && ports_protocol(which->protocol) == protocol &&
           (!which->host_port || which->host_port == host_port) &&
           (text_empty(which->host_address) || text_equal(which->host_address, address));
}

/* Where the engine chose the number, it is known by what it published. */
static bool fits_wanted(const struct api_port *which, const struct api_port *wanted)
{
    return fits(which, wanted->host_address,
                wanted->host_port ? wanted->host_port : which->host_port, wanted->container_port,
                ports_protocol(wanted->protocol));
}

static bool fits_published(const struct api_port *which, const struct net_publication *publication)
{
    char address[NET_IP_TEXT];

    net_ip_format(&publication->host_address, address);
    return fits(which, address, publication->host_port, publication->container_port,
                publication->protocol);
}

bool ports_has(const struct container *container, const struct api_port *which)
{
    for (size_t i = 0; i < container->publications_count; i++) {
        if (fits_published(which, &container->publications[i]))
            return true;
    }
    for (size_t i = 0; i < wanted_count(container); i++) {
        const struct api_port wanted = wanted_at(container, i);

        if (fits_wanted(which, &wanted))
            return true;
    }
    return false;
}

bool ports_want_no_more(struct container *container, const struct api_port *which)
{
    struct record_container *record = container->record;
    bool changed = false;

    take_wanted_over(container);
    for (size_t i = record->wanted_ports_count; i > 0; i--) {
        struct record_port *port = record->wanted_ports[i - 1];
        const struct api_port wanted = wanted_of(port);

        if (!fits_wanted(which, &wanted))
            continue;
        record_port_free(port);
        record->wanted_ports[i - 1] = record->wanted_ports[--record->wanted_ports_count];
        record->wanted_ports[record->wanted_ports_count] = NULL;
        changed = true;
    }
    return changed;
}

bool ports_unpublish(struct container *container, const struct api_port *which)
{
    bool changed = false;

    for (size_t i = container->publications_count; i > 0; i--) {
        const struct net_publication publication = container->publications[i - 1];
        _cleanup_error_ struct error err = ERROR_INIT;

        if (!fits_published(which, &publication))
            continue;
        if (net_unpublish(container->engine->net, &publication, &err) < 0)
            log_failure(LOG_WARNING, &err, "a port of %.12s stays published", container->id);
        net_forget_flows(container->engine->net, &publication);
        container->publications[i - 1] = container->publications[--container->publications_count];
        changed = true;
    }
    return changed;
}

/* --- all of a container's --------------------------------------------------------------------- */

int ports_publish(struct container *container, struct error *err)
{
    int r = 0;

    if (!places_main(container))
        return 0;
    for (size_t i = 0; r == 0 && i < wanted_count(container); i++) {
        const struct api_port port = wanted_at(container, i);

        r = ports_publish_one(container, &port, err);
    }
    if (r == 0 && container->effective->publish_all_ports)
        r = publish_exposed(container, err);
    return r;
}

void ports_withdraw(struct container *container)
{
    struct engine *engine = container->engine;
    _cleanup_error_ struct error err = ERROR_INIT;

    relay_release(container);
    for (size_t i = 0;
         engine->net && !container->ports_by_plugins && i < container->publications_count; i++) {
        if (net_unpublish(engine->net, &container->publications[i], &err) < 0)
            log_failure(LOG_WARNING, &err, "a port of %.12s stays published", container->id);
    }
    container->publications_count = 0;
    container->ports_by_plugins = false;
}

static struct record_port *record_of(const struct net_publication *publication)
{
    struct record_port *port = xnew(struct record_port);
    char address[NET_IP_TEXT];

    port->host_address = xstrdup(net_ip_format(&publication->host_address, address));
    port->host_port = publication->host_port;
    port->container_port = publication->container_port;
    port->protocol = xstrdup(ports_protocol_name(publication->protocol));
    return port;
}

void ports_write(struct container *container)
{
    struct record_container *record = container->record;

    for (size_t i = 0; i < record->ports_count; i++)
        record_port_free(record->ports[i]);
    free(record->ports);
    record->ports = xnew_array(struct record_port *, container->publications_count + 1);
    record->ports_count = container->publications_count;
    for (size_t i = 0; i < container->publications_count; i++)
        record->ports[i] = record_of(&container->publications[i]);
}

static void restore_one(struct container *container, const struct record_port *port)
{
    const struct place *main = places_main(container);
    struct net_publication publication = {
        .protocol = ports_protocol(port->protocol),
        .host_port = port->host_port,
        .container_port = port->container_port,
    };
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!main)
        return;
    int r = net_ip_parse(port->host_address, &publication.host_address, &err);
    if (r == 0) {
        publication.container_address = target_of(main, &publication.host_address);
        container->ports_by_plugins = main->network->kind == NETWORK_CNI;
        if (!container->ports_by_plugins)
            r = net_restore_publication(container->engine->net, &publication, &err);
    }
    if (r < 0)
        log_failure(LOG_ERROR, &err, "a port of %.12s is lost", container->id);
    else
        remember(container, &publication);
}

void ports_restore(struct container *container)
{
    const struct record_container *record = container->record;
    const struct record_network *old = record->network;
    struct record_port *const *ports = old ? old->ports : record->ports;
    size_t count = old ? old->ports_count : record->ports_count;

    for (size_t i = 0; i < count; i++)
        restore_one(container, ports[i]);
}
