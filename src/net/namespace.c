#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

#include "link.h"
#include "namespace.h"
#include "sysctl.h"

#define CONTAINER_LINK "eth0"

enum { READY_PAUSE_NS = 100 * 1000, READY_TRIES = 50 };

int namespace_open_own(int *ret_fd, struct error *err)
{
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open the own network namespace");
    *ret_fd = fd;
    return 0;
}

void namespace_finish(struct namespace *namespace)
{
    netlink_finish(&namespace->route);
    close_fd(namespace->fd);
    namespace->fd = -1;
}

/* What has to be done by a thread that is inside; state on entry: a namespace as the kernel makes
 * it, lo down. */
static int set_up_inside(struct namespace *namespace, struct error *err)
{
    int r;

    r = namespace_open_own(&namespace->fd, err);
    if (r == 0)
        r = netlink_open(NETLINK_ROUTE, &namespace->route, err);
    if (r < 0)
        return r;
    return sysctl_disable_ipv6("default", err); /* lo exists already and keeps ::1 */
}

/*
 * unshare() and setns() change the calling thread only, and for the moment between them nothing
 * else runs in it: other threads and the children they start do not see it.
 */
static int create_empty(struct net *net, struct namespace *ret, struct error *err)
{
    struct namespace namespace = {.fd = -1};
    int r;

    if (unshare(CLONE_NEWNET) < 0)
        return error_errno(err, errno, "create a network namespace");
    r = set_up_inside(&namespace, err);
    if (setns(net->own_netns, CLONE_NEWNET) < 0)
        abort(); /* whatever this thread did next would happen in the wrong namespace */
    if (r < 0) {
        namespace_finish(&namespace);
        return r;
    }
    *ret = namespace;
    return 0;
}

static int create(struct net *net, struct namespace *ret, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct namespace namespace;
    int r;

    r = create_empty(net, &namespace, err);
    if (r < 0)
        return r;
    link_add_set_up(&batch, "bring lo up", LINK_LOOPBACK, 0);
    r = netlink_run(&namespace.route, &batch, err);
    if (r < 0) {
        namespace_finish(&namespace);
        return r;
    }
    *ret = namespace;
    return 0;
}

static int take_or_create(struct net *net, struct namespace *ret, struct error *err)
{
    if (net->spare_count == 0)
        return create(net, ret, err);
    *ret = net->spare[--net->spare_count];
    return 0;
}

int net_prepare_spare(struct net *net, unsigned wanted, struct error *err)
{
    if (wanted > NET_SPARE_NAMESPACES_MAX)
        wanted = NET_SPARE_NAMESPACES_MAX;
    if (net->spare_count < wanted) {
        int r = create(net, &net->spare[net->spare_count], err);

        if (r < 0)
            return r;
        net->spare_count++;
    }
    return net->spare_count < wanted;
}

/* The host's end of an earlier container may still be on its way out, and its name with it: the
 * kernel takes links down after their namespace in a work queue. Then a random name does. */
static int create_veth(struct net *net, const struct net_endpoint *endpoint, int netns,
                       char name[static IFNAMSIZ], struct error *err)
{
    char random[9];
    uint8_t mac[6];
    struct link_veth veth = {
        .name = name,
        .bridge = net->bridge_index,
        .peer_name = CONTAINER_LINK,
        .peer_mac = mac,
        .peer_netns = netns,
        .mtu = net->mtu,
    };
    struct error failure = ERROR_INIT;
    int r = -EEXIST;

    net_address_mac(endpoint->address, mac);
    snprintf(name, IFNAMSIZ, "%s", endpoint->link_name);
    for (int tries = 0; r == -EEXIST && tries < 4; tries++) {
        _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;

        link_add_veth(&batch, &veth);
        error_finish(&failure);
        r = netlink_run(&net->route, &batch, &failure);
        if (r == 0)
            return sysctl_disable_ipv6(name, err);
        text_random_hex(random, 8);
        snprintf(name, IFNAMSIZ, "v%s", random);
    }
    return error_move(err, &failure);
}

static int configure_inside(struct net *net, const struct net_endpoint *endpoint,
                            struct netlink *route, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    const struct net_subnet address = {endpoint->address, net->subnet.prefix};
    struct link eth0;
    int r;

    r = link_get(route, CONTAINER_LINK, &eth0, err);
    if (r < 0)
        return r;
    link_add_address(&batch, eth0.index, &address);
    link_add_set_up(&batch, "bring " CONTAINER_LINK " up", eth0.index, 0);
    link_add_default_route(&batch, eth0.index, net->subnet.gateway);
    return netlink_run(route, &batch, err);
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

static int check(const struct net *net, const struct net_endpoint *endpoint, struct error *err)
{
    const in_addr_t address = endpoint->address.s_addr;
    char text[NET_ADDRESS_TEXT];

    if (net->bridge_index == 0)
        return error_set(err, -EINVAL, "the bridge is not set up");
    if (text_empty(endpoint->link_name) || strlen(endpoint->link_name) >= IFNAMSIZ)
        return error_set(err, -EINVAL, "'%s' cannot be a link's name",
                         endpoint->link_name ? endpoint->link_name : "");
    if (!net_subnet_contains(&net->subnet, endpoint->address) ||
        address == net->subnet.gateway.s_addr ||
        address == net_subnet_network(&net->subnet).s_addr ||
        address == net_subnet_broadcast(&net->subnet).s_addr)
        return error_set(err, -EINVAL, "%s is no address for a container",
                         net_address_format(endpoint->address, text));
    return 0;
}

int net_endpoint_create(struct net *net, const struct net_endpoint *endpoint, int *ret_netns_fd,
                        struct error *err)
{
    _cleanup_(namespace_finish) struct namespace namespace = {.fd = -1};
    char text[NET_ADDRESS_TEXT], name[IFNAMSIZ];
    int r;

    r = check(net, endpoint, err);
    if (r == 0)
        r = take_or_create(net, &namespace, err);
    if (r == 0)
        r = create_veth(net, endpoint, namespace.fd, name, err);
    if (r == 0)
        r = configure_inside(net, endpoint, &namespace.route, err);
    if (r == 0)
        r = wait_for_carrier(&namespace.route, CONTAINER_LINK, err);
    if (r == 0)
        r = wait_for_carrier(&net->route, name, err);
    if (r == 0) /* it loses its carrier with its last port, and gets it back with the next */
        r = wait_for_carrier(&net->route, net->bridge, err);
    if (r < 0) {
        error_context(err, "network of a container with address %s",
                      net_address_format(endpoint->address, text));
        return r;
    }
    *ret_netns_fd = steal_fd(&namespace.fd);
    return 0;
}

int net_endpoint_create_none(struct net *net, int *ret_netns_fd, struct error *err)
{
    _cleanup_(namespace_finish) struct namespace namespace = {.fd = -1};
    int r;

    r = take_or_create(net, &namespace, err);
    if (r < 0)
        return r;
    *ret_netns_fd = steal_fd(&namespace.fd);
    return 0;
}
