/*
 * The instance's network as a whole: opening it, making bridge and rules what they must be, and
 * taking them away.
 */
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/text.h>

#include "link.h"
#include "namespace.h"
#include "ruleset.h"
#include "state.h"
#include "sysctl.h"

enum {
    WATCH_BUFFER = 1024 * 1024,     /* bytes of notifications; more are lost and mean "look" */
    WATCH_MESSAGES_PER_CALL = 1024, /* so that a flood does not hold the event loop */
};

static int open_watch(struct netlink *watch, struct error *err)
{
    const int group = NFNLGRP_NFTABLES, buffer = WATCH_BUFFER;
    int r;

    r = netlink_open(NETLINK_NETFILTER, watch, err);
    if (r < 0)
        return r;
    if (setsockopt(mnl_socket_get_fd(watch->socket), SOL_SOCKET, SO_RCVBUFFORCE, &buffer,
                   sizeof(buffer)) < 0 ||
        mnl_socket_setsockopt(watch->socket, NETLINK_ADD_MEMBERSHIP, (void *)&group,
                              sizeof(group)) < 0)
        return error_errno(err, errno, "subscribe to changes of nftables rules");
    return 0;
}

static int check_config(const struct net_config *config, struct error *err)
{
    if (text_empty(config->bridge) || strlen(config->bridge) >= IFNAMSIZ)
        return error_set(err, -EINVAL, "'%s' cannot be a bridge's name",
                         config->bridge ? config->bridge : "");
    if (text_empty(config->nft_table) || strlen(config->nft_table) > NET_TABLE_NAME_MAX)
        return error_set(err, -EINVAL, "'%s' cannot be a table's name",
                         config->nft_table ? config->nft_table : "");
    if (config->subnet.prefix < NET_PREFIX_MIN || config->subnet.prefix > NET_PREFIX_MAX)
        return error_set(err, -EINVAL, "a subnet's prefix is %d to %d, not %u", NET_PREFIX_MIN,
                         NET_PREFIX_MAX, config->subnet.prefix);
    return 0;
}

int net_open(const struct net_config *config, struct net **ret, struct error *err)
{
    struct net *net;
    int r;

    r = check_config(config, err);
    if (r < 0)
        return r;
    net = xnew(struct net);
    net->bridge = xstrdup(config->bridge);
    net->nft_table = xstrdup(config->nft_table);
    net->subnet = config->subnet;
    net->mtu = config->mtu > 0 ? config->mtu : NET_MTU_DEFAULT;
    net->own_netns = -1;

    r = namespace_open_own(&net->own_netns, err);
    if (r == 0)
        r = netlink_open(NETLINK_ROUTE, &net->route, err);
    if (r == 0)
        r = netlink_open(NETLINK_NETFILTER, &net->nft, err);
    if (r == 0)
        r = open_watch(&net->watch, err);
    if (r < 0) {
        error_context(err, "network");
        net_close(net);
        return r;
    }
    *ret = net;
    return 0;
}

void net_close(struct net *net)
{
    if (!net)
        return;
    while (net->spare_count > 0)
        namespace_finish(&net->spare[--net->spare_count]);
    netlink_finish(&net->watch);
    netlink_finish(&net->nft);
    netlink_finish(&net->route);
    close_fd(net->own_netns);
    free(net->publications);
    free(net->nft_table);
    free(net->bridge);
    free(net);
}

/* --- the bridge --- */

static int create_bridge(struct net *net, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    uint8_t mac[6];

    net_address_mac(net->subnet.gateway, mac);
    link_add_bridge(&batch, net->bridge, mac, net->mtu);
    return netlink_run(&net->route, &batch, err);
}

static int find_or_create_bridge(struct net *net, struct link *ret, struct error *err)
{
    int r;

    r = link_get(&net->route, net->bridge, ret, err);
    if (r == -ENODEV) {
        r = create_bridge(net, err);
        if (r == 0)
            r = link_get(&net->route, net->bridge, ret, err);
    }
    if (r < 0)
        return r;
    if (!ret->is_bridge)
        return error_set(err, -EEXIST, "a link of this name exists and is no bridge");
    return 0;
}

struct address_repair {
    struct netlink_batch *batch; /* removal of what is wrong */
    unsigned index;
    const struct net_subnet *wanted;
    bool found;
};

static void check_address(const struct net_subnet *address, void *data)
{
    struct address_repair *repair = data;

    if (address->gateway.s_addr == repair->wanted->gateway.s_addr &&
        address->prefix == repair->wanted->prefix)
        repair->found = true;
    else
        link_add_address_delete(repair->batch, repair->index, address);
}

static int repair_link(struct net *net, const struct link *bridge, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct address_repair repair = {&batch, bridge->index, &net->subnet, false};
    int r;

    if (!bridge->is_up || bridge->mtu != net->mtu)
        link_add_set_up(&batch, "bring the bridge up", bridge->index, net->mtu);
    r = link_each_address(&net->route, bridge->index, check_address, &repair, err);
    if (r < 0)
        return r;
    if (!repair.found)
        link_add_address(&batch, bridge->index, &net->subnet);
    return batch.count > 0 ? netlink_run(&net->route, &batch, err) : 0;
}

static int set_up_bridge(struct net *net, struct error *err)
{
    struct link bridge;
    int r;

    r = find_or_create_bridge(net, &bridge, err);
    if (r == 0)
        r = repair_link(net, &bridge, err);
    if (r == 0)
        r = sysctl_set_for_link("ipv4", net->bridge, "route_localnet", err);
    if (r == 0)
        r = sysctl_disable_ipv6(net->bridge, err);
    if (r < 0) {
        error_context(err, "bridge '%s'", net->bridge);
        return r;
    }
    net->bridge_index = bridge.index;
    return 0;
}

/* The rules come first: there is no moment at which the bridge is open to what they keep out. */
int net_setup(struct net *net, struct error *err)
{
    int r;

    r = ruleset_replace(net, err);
    if (r == 0) {
        net->rules_active = true;
        r = set_up_bridge(net, err);
    }
    if (r == 0)
        r = sysctl_set("/proc/sys/net/ipv4/ip_forward", err);
    return r;
}

int net_teardown(struct net *net, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct link bridge;
    int r;

    net->rules_active = false;
    net->publications_count = 0;
    net->bridge_index = 0;
    r = link_get(&net->route, net->bridge, &bridge, err);
    if (r == 0 && bridge.is_bridge) {
        link_add_delete(&batch, net->bridge);
        r = netlink_run(&net->route, &batch, err);
    }
    if (r < 0 && r != -ENODEV)
        return r;
    return ruleset_remove(net, err);
}

/* --- changes by others --- */

int net_poll_fd(const struct net *net)
{
    return mnl_socket_get_fd(net->watch.socket);
}

/* Whether one read's worth of notifications tells of damage. */
static bool tells_of_damage(const struct net *net, const char *data, ssize_t length)
{
    int left = (int)length;

    for (const struct nlmsghdr *message = (const void *)data; mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
        if (ruleset_is_damage(net, message))
            return true;
    }
    return false;
}

int net_dispatch(struct net *net, struct error *err)
{
    char data[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
    bool damaged = false;
    int r;

    for (int i = 0; i < WATCH_MESSAGES_PER_CALL; i++) {
        ssize_t length = recv(net_poll_fd(net), data, sizeof(data), MSG_DONTWAIT);

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (length < 0 && errno != ENOBUFS)
            return error_errno(err, errno, "read changes of nftables rules");
        /* ENOBUFS: some were lost, any of which could have been it. */
        damaged = damaged || length < 0 || tells_of_damage(net, data, length);
    }
    if (!damaged || !net->rules_active)
        return 0;
    r = ruleset_replace(net, err);
    return r < 0 ? r : 1;
}
