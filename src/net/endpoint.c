/*
 * A container's interfaces: one end of a veth pair in its namespace, the other a port of a bridge.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

#include "link.h"
#include "namespace.h"
#include "sysctl.h"

enum { READY_PAUSE_NS = 100 * 1000, READY_TRIES = 50 };

/* A namespace and our socket in it. */
struct inside {
    struct net *net;
    int netns;
    struct netlink *route;
};

static void choose_mac(const struct net_interface *interface, uint8_t mac[static 6])
{
    static const uint8_t none[6];

    if (memcmp(interface->mac, none, sizeof(none)) == 0)
        net_address_mac(interface->address, mac);
    else
        memcpy(mac, interface->mac, sizeof(none));
}

/* The host's end of an earlier container may still be on its way out, and its name with it: the
 * kernel takes links down after their namespace in a work queue. Then a random name does. */
static int create_veth(const struct inside *inside, struct net_interface *interface,
                       struct error *err)
{
    char *name = interface->host_name;
    char random[9];
    uint8_t mac[6];
    struct link_veth veth = {
        .name = name,
        .bridge = interface->bridge->index,
        .peer_name = interface->name,
        .peer_mac = mac,
        .peer_netns = inside->netns,
        .mtu = interface->bridge->config.mtu,
        .isolated = interface->bridge->config.separate,
    };
    struct error failure = ERROR_INIT;
    int r = -EEXIST;

    choose_mac(interface, mac);
    for (int tries = 0; r == -EEXIST && tries < 4; tries++) {
        _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;

        link_add_veth(&batch, &veth);
        error_finish(&failure);
        r = netlink_run(&inside->net->route, &batch, &failure);
        if (r == 0)
            return sysctl_disable_ipv6(name, err);
        text_random_hex(random, 8);
        snprintf(name, IFNAMSIZ, "v%s", random);
    }
    return error_move(err, &failure);
}

/* /proc/sys/net is that of the namespace which the thread is in. */
static int enable_ipv6_inside(const struct inside *inside, const char *link, struct error *err)
{
    int r = namespace_enter(inside->netns, err);

    if (r < 0)
        return r;
    r = sysctl_enable_ipv6(link, err);
    namespace_leave(inside->net);
    return r;
}

static void add_default_routes(struct netlink_batch *batch, unsigned index,
                               const struct net_bridge_config *config)
{
    const struct net_ip gateway = net_ip_v4(config->subnet.gateway);
    const struct net_ip gateway6 = net_ip_v6(config->subnet6.gateway);

    link_add_default_route(batch, index, &gateway);
    if (config->subnet6.prefix > 0)
        link_add_default_route(batch, index, &gateway6);
}

static int configure(const struct inside *inside, const struct net_interface *interface,
                     struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    const struct net_bridge_config *config = &interface->bridge->config;
    const struct net_subnet address = {interface->address, config->subnet.prefix};
    struct link link;
    int r = 0;

    if (config->subnet6.prefix > 0)
        r = enable_ipv6_inside(inside, interface->name, err);
    if (r == 0)
        r = link_get(inside->route, interface->name, &link, err);
    if (r < 0)
        return r;
    link_add_address(&batch, link.index, &address);
    for (size_t i = 0; i < interface->link_local_count; i++)
        link_add_address(&batch, link.index,
                         &(struct net_subnet){interface->link_local[i], NET_LINK_LOCAL_PREFIX});
    if (config->subnet6.prefix > 0)
        link_add_address6(&batch, link.index, interface->address6, config->subnet6.prefix);
    link_add_set_up(&batch, "bring a container's link up", link.index, 0);
    if (interface->default_route)
        add_default_routes(&batch, link.index, config);
    return netlink_run(inside->route, &batch, err);
}

/*
 * A link that came up is put to work by the kernel's link watch, a moment later; what is sent
 * before is lost, and a lost ARP request costs a container's first connection a whole second. Since
 * Linux 6.8 asking for a link runs its link watch at once; older ones need a few short waits.
 * Without success after some milliseconds the container is better off starting than failing.
 */
static int wait_for_carrier(struct netlink *route, const char *name, struct error *err)
{
    const struct timespec pause = {.tv_nsec = READY_PAUSE_NS};

    for (int tries = 0; tries < READY_TRIES; tries++) {
        struct link link;
        int r = link_get(route, name, &link, err);

        if (r < 0 || link.passes_packets)
            return r;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static bool is_link_name(const char *name)
{
    return strnlen(name, IFNAMSIZ) > 0 && strnlen(name, IFNAMSIZ) < IFNAMSIZ;
}

static int check(const struct net_interface *interface, struct error *err)
{
    const struct net_subnet *subnet = &interface->bridge->config.subnet;
    const in_addr_t address = interface->address.s_addr;
    char text[NET_ADDRESS_TEXT];

    if (interface->bridge->index == 0)
        return error_set(err, -EINVAL, "the bridge is not set up");
    if (!is_link_name(interface->name) || !is_link_name(interface->host_name))
        return error_set(err, -EINVAL, "'%s' cannot be a link's name", interface->host_name);
    if (!net_subnet_contains(subnet, interface->address) || address == subnet->gateway.s_addr ||
        address == net_subnet_network(subnet).s_addr ||
        address == net_subnet_broadcast(subnet).s_addr)
        return error_set(err, -EINVAL, "%s is no address for a container",
                         net_address_format(interface->address, text));
    return 0;
}

static int add_interface(const struct inside *inside, struct net_interface *interface,
                         struct error *err)
{
    char text[NET_ADDRESS_TEXT];
    int r;

    r = check(interface, err);
    if (r == 0)
        r = create_veth(inside, interface, err);
    if (r == 0)
        r = configure(inside, interface, err);
    if (r == 0)
        r = wait_for_carrier(inside->route, interface->name, err);
    if (r == 0)
        r = wait_for_carrier(&inside->net->route, interface->host_name, err);
    if (r == 0) /* it loses its carrier with its last port, and gets it back with the next */
        r = wait_for_carrier(&inside->net->route, interface->bridge->config.name, err);
    if (r < 0)
        error_context(err, "network of a container with address %s",
                      net_address_format(interface->address, text));
    return r;
}

int net_endpoint_create(struct net *net, int made_fd, struct net_interface *interfaces,
                        size_t count, int *ret_netns_fd, struct error *err)
{
    _cleanup_(namespace_finish) struct namespace namespace = {.fd = -1};
    int r;

    r = made_fd >= 0 ? namespace_adopt(net, made_fd, &namespace, err)
                     : namespace_take(net, &namespace, err);
    for (size_t i = 0; r == 0 && i < count; i++) {
        const struct inside inside = {net, namespace.fd, &namespace.route};

        r = add_interface(&inside, &interfaces[i], err);
    }
    if (r < 0)
        return r;
    *ret_netns_fd = steal_fd(&namespace.fd);
    return 0;
}

int net_interface_add(struct net *net, int netns_fd, struct net_interface *interface,
                      struct error *err)
{
    _cleanup_(netlink_finish) struct netlink route = {0};
    int r = namespace_open_netlink(net, netns_fd, NETLINK_ROUTE, &route, err);

    if (r < 0)
        return r;
    const struct inside inside = {net, netns_fd, &route};
    return add_interface(&inside, interface, err);
}

int net_interface_route(struct net *net, int netns_fd, const struct net_interface *interface,
                        struct error *err)
{
    _cleanup_(netlink_finish) struct netlink route = {0};
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct link link;
    int r = namespace_open_netlink(net, netns_fd, NETLINK_ROUTE, &route, err);

    if (r == 0)
        r = link_get(&route, interface->name, &link, err);
    if (r < 0)
        return r;
    add_default_routes(&batch, link.index, &interface->bridge->config);
    return netlink_run(&route, &batch, err);
}
