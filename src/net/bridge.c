/*
 * One network's bridge: link, addresses and switches.
 */
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "link.h"
#include "ruleset.h"
#include "state.h"
#include "sysctl.h"

static int check_config(const struct net_bridge_config *config, struct error *err)
{
    if (text_empty(config->name) || strlen(config->name) >= IFNAMSIZ)
        return error_set(err, -EINVAL, "'%s' cannot be a bridge's name",
                         config->name ? config->name : "");
    if (config->subnet.prefix < NET_PREFIX_MIN || config->subnet.prefix > NET_PREFIX_MAX)
        return error_set(err, -EINVAL, "a subnet's prefix is %d to %d, not %u", NET_PREFIX_MIN,
                         NET_PREFIX_MAX, config->subnet.prefix);
    return 0;
}

static int create_link(struct net *net, const struct net_bridge_config *config, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    uint8_t mac[6];

    net_address_mac(config->subnet.gateway, mac);
    link_add_bridge(&batch, config->name, mac, config->mtu);
    return netlink_run(&net->route, &batch, err);
}

static int find_or_create_link(struct net *net, const struct net_bridge_config *config,
                               struct link *ret, struct error *err)
{
    int r;

    r = link_get(&net->route, config->name, ret, err);
    if (r == -ENODEV) {
        r = create_link(net, config, err);
        if (r == 0)
            r = link_get(&net->route, config->name, ret, err);
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

static int repair_link(struct net *net, const struct net_bridge_config *config,
                       const struct link *link, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct address_repair repair = {&batch, link->index, &config->subnet, false};
    int r;

    if (!link->is_up || link->mtu != config->mtu)
        link_add_set_up(&batch, "bring the bridge up", link->index, config->mtu);
    r = link_each_address(&net->route, link->index, check_address, &repair, err);
    if (r < 0)
        return r;
    if (!repair.found)
        link_add_address(&batch, link->index, &config->subnet);
    if (config->subnet6.prefix > 0)
        link_add_address6(&batch, link->index, config->subnet6.gateway, config->subnet6.prefix);
    return batch.count > 0 ? netlink_run(&net->route, &batch, err) : 0;
}

static int set_switches(const struct net_bridge_config *config, struct error *err)
{
    int r;

    r = sysctl_set_for_link("ipv4", config->name, "route_localnet", "1", err);
    if (r < 0)
        return r;
    if (config->subnet6.prefix == 0)
        return sysctl_disable_ipv6(config->name, err);
    r = sysctl_enable_ipv6(config->name, err);
    if (r == 0 && !config->internal)
        r = sysctl_forward_ipv6(err);
    return r;
}

int bridge_set_up(struct net *net, struct net_bridge *bridge, struct error *err)
{
    const struct net_bridge_config *config = &bridge->config;
    struct link link;
    int r;

    r = find_or_create_link(net, config, &link, err);
    if (r == 0)
        r = set_switches(config, err);
    if (r == 0)
        r = repair_link(net, config, &link, err);
    if (r < 0) {
        error_context(err, "bridge '%s'", config->name);
        return r;
    }
    bridge->index = link.index;
    return 0;
}

int bridge_delete(struct net *net, const char *name, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct link link;
    int r;

    r = link_get(&net->route, name, &link, err);
    if (r == 0 && link.is_bridge) {
        link_add_delete(&batch, name, 0);
        r = netlink_run(&net->route, &batch, err);
    }
    return r == -ENODEV ? 0 : r;
}

void bridge_free(struct net_bridge *bridge)
{
    free((char *)bridge->config.name);
    free(bridge);
}

static void forget(struct net *net, struct net_bridge *bridge)
{
    for (size_t i = 0; i < net->bridges_count; i++) {
        if (net->bridges[i] == bridge)
            net->bridges[i] = net->bridges[--net->bridges_count];
    }
}

static int make_now(struct net *net, struct net_bridge *bridge, struct error *err)
{
    int r = forwarding_prepare(net, err);

    if (r == 0)
        r = ruleset_replace(net, err);
    return r < 0 ? r : bridge_set_up(net, bridge, err);
}

int net_bridge_add(struct net *net, const struct net_bridge_config *config, struct net_bridge **ret,
                   struct error *err)
{
    int r = check_config(config, err);

    if (r < 0)
        return r;
    if (net->bridges_count >= NET_BRIDGES_MAX)
        return error_set(err, -ENOSPC, "there are %d networks already", NET_BRIDGES_MAX);
    for (size_t i = 0; i < net->bridges_count; i++) {
        if (text_equal(net->bridges[i]->config.name, config->name))
            return error_set(err, -EEXIST, "bridge '%s' is another network's", config->name);
    }
    struct net_bridge *bridge = xnew(struct net_bridge);
    bridge->config = *config;
    bridge->config.name = xstrdup(config->name);
    if (bridge->config.mtu == 0)
        bridge->config.mtu = NET_MTU_DEFAULT;
    net->bridges = xrealloc(net->bridges, net->bridges_count + 1, sizeof(struct net_bridge *));
    net->bridges[net->bridges_count++] = bridge;
    r = net->rules_active ? make_now(net, bridge, err) : 0;
    if (r < 0) {
        forget(net, bridge);
        bridge_free(bridge);
        return r;
    }
    *ret = bridge;
    return 0;
}

int net_bridge_remove(struct net *net, struct net_bridge *bridge, struct error *err)
{
    forget(net, bridge);
    bridge_free(bridge);
    return net->rules_active ? ruleset_replace(net, err) : 0;
}

bool net_bridge_is_up(const struct net_bridge *bridge)
{
    return bridge->index != 0;
}

static int delete_link(const char *name, unsigned index, struct error *err)
{
    _cleanup_(netlink_finish) struct netlink route = {0};
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    _cleanup_error_ struct error why = ERROR_INIT;
    int r = netlink_open(NETLINK_ROUTE, &route, err);

    if (r < 0)
        return r;
    link_add_delete(&batch, name, index);
    r = netlink_run(&route, &batch, &why);
    return r < 0 && r != -ENODEV ? error_move(err, &why) : 0;
}

int net_link_delete(const char *name, struct error *err)
{
    return delete_link(name, 0, err);
}

int net_link_delete_index(unsigned index, struct error *err)
{
    return delete_link(NULL, index, err);
}
