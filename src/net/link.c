#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <linux/if.h>
#include <string.h>

#include "link.h"

enum { ROUTE_TABLE_MAIN = RT_TABLE_MAIN };

static struct nlmsghdr *add_link_message(struct netlink_batch *batch, const char *what,
                                         uint16_t type, uint16_t flags,
                                         const struct ifinfomsg *header)
{
    return netlink_batch_add(batch, what, type, flags | NLM_F_ACK, header, sizeof(*header));
}

void link_add_bridge(struct netlink_batch *batch, const char *name, const uint8_t mac[static 6],
                     uint32_t mtu)
{
    const struct ifinfomsg header = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nlmsghdr *message = add_link_message(batch, "create the bridge", RTM_NEWLINK,
                                                NLM_F_CREATE | NLM_F_EXCL, &header);
    struct nlattr *info;

    mnl_attr_put_strz(message, IFLA_IFNAME, name);
    mnl_attr_put(message, IFLA_ADDRESS, 6, mac);
    mnl_attr_put_u32(message, IFLA_MTU, mtu);
    info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_strz(message, IFLA_INFO_KIND, "bridge");
    mnl_attr_nest_end(message, info);
}

void link_add_set_up(struct netlink_batch *batch, const char *what, unsigned index, uint32_t mtu)
{
    const struct ifinfomsg header = {
        .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nlmsghdr *message = add_link_message(batch, what, RTM_NEWLINK, 0, &header);

    if (mtu > 0)
        mnl_attr_put_u32(message, IFLA_MTU, mtu);
}

void link_add_delete(struct netlink_batch *batch, const char *name, unsigned index)
{
    const struct ifinfomsg header = {.ifi_index = (int)index};
    struct nlmsghdr *message = add_link_message(batch, "delete a link", RTM_DELLINK, 0, &header);

    if (name)
        mnl_attr_put_strz(message, IFLA_IFNAME, name);
}

static void put_peer(struct nlmsghdr *message, const struct link_veth *veth)
{
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    struct nlattr *data, *peer;

    mnl_attr_put_strz(message, IFLA_INFO_KIND, "veth");
    data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
    peer = mnl_attr_nest_start(message, VETH_INFO_PEER);
    /* IFF_UP in here would be refused with ENOTCONN: this end does not exist yet. */
    mnl_nlmsg_put_extra_header(message, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(message, IFLA_IFNAME, veth->peer_name);
    mnl_attr_put(message, IFLA_ADDRESS, 6, veth->peer_mac);
    mnl_attr_put_u32(message, IFLA_NET_NS_FD, (uint32_t)veth->peer_netns);
    mnl_attr_put_u32(message, IFLA_MTU, veth->mtu);
    mnl_attr_nest_end(message, peer);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
}

/* Only a link that exists takes settings of its port (Linux rtnl_newlink), so this is a message of
 * its own; it finds the link by name. */
static void add_port_settings(struct netlink_batch *batch, const char *name, bool isolated)
{
    const struct ifinfomsg header = {0};
    struct nlmsghdr *message =
        add_link_message(batch, "set up a bridge port", RTM_NEWLINK, 0, &header);
    struct nlattr *info, *data;

    mnl_attr_put_strz(message, IFLA_IFNAME, name);
    info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_strz(message, IFLA_INFO_SLAVE_KIND, "bridge");
    data = mnl_attr_nest_start(message, IFLA_INFO_SLAVE_DATA);
    mnl_attr_put_u8(message, IFLA_BRPORT_MODE, 1); /* hairpin */
    if (isolated)
        mnl_attr_put_u8(message, IFLA_BRPORT_ISOLATED, 1);
    mnl_attr_nest_end(message, data);
    mnl_attr_nest_end(message, info);
}

void link_add_veth(struct netlink_batch *batch, const struct link_veth *veth)
{
    const struct ifinfomsg header = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nlmsghdr *message = add_link_message(batch, "create a pair of links", RTM_NEWLINK,
                                                NLM_F_CREATE | NLM_F_EXCL, &header);

    mnl_attr_put_strz(message, IFLA_IFNAME, veth->name);
    mnl_attr_put_u32(message, IFLA_MASTER, veth->bridge);
    mnl_attr_put_u32(message, IFLA_MTU, veth->mtu);
    put_peer(message, veth);
    add_port_settings(batch, veth->name, veth->isolated);
}

static struct nlmsghdr *add_address_message(struct netlink_batch *batch, const char *what,
                                            uint16_t type, uint16_t flags, unsigned index,
                                            const struct net_subnet *address)
{
    const struct ifaddrmsg header = {
        .ifa_family = AF_INET,
        .ifa_prefixlen = (uint8_t)address->prefix,
        .ifa_scope = RT_SCOPE_UNIVERSE,
        .ifa_index = index,
    };
    struct nlmsghdr *message =
        netlink_batch_add(batch, what, type, flags | NLM_F_ACK, &header, sizeof(header));

    mnl_attr_put_u32(message, IFA_LOCAL, address->gateway.s_addr);
    mnl_attr_put_u32(message, IFA_ADDRESS, address->gateway.s_addr);
    return message;
}

void link_add_address(struct netlink_batch *batch, unsigned index, const struct net_subnet *address)
{
    struct nlmsghdr *message = add_address_message(batch, "add an address", RTM_NEWADDR,
                                                   NLM_F_CREATE | NLM_F_EXCL, index, address);

    mnl_attr_put_u32(message, IFA_BROADCAST, net_subnet_broadcast(address).s_addr);
}

void link_add_address_delete(struct netlink_batch *batch, unsigned index,
                             const struct net_subnet *address)
{
    add_address_message(batch, "remove an address", RTM_DELADDR, 0, index, address);
}

void link_add_address6(struct netlink_batch *batch, unsigned index, struct in6_addr address,
                       unsigned prefix)
{
    const struct ifaddrmsg header = {
        .ifa_family = AF_INET6,
        .ifa_prefixlen = (uint8_t)prefix,
        .ifa_flags = IFA_F_NODAD,
        .ifa_scope = RT_SCOPE_UNIVERSE,
        .ifa_index = index,
    };
    struct nlmsghdr *message =
        netlink_batch_add(batch, "add an IPv6 address", RTM_NEWADDR,
                          NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK, &header, sizeof(header));

    mnl_attr_put(message, IFA_LOCAL, sizeof(address), &address);
    mnl_attr_put(message, IFA_ADDRESS, sizeof(address), &address);
}

void link_add_default_route(struct netlink_batch *batch, unsigned index,
                            const struct net_ip *gateway)
{
    const struct rtmsg header = {
        .rtm_family = (uint8_t)gateway->family,
        .rtm_table = ROUTE_TABLE_MAIN,
        .rtm_protocol = RTPROT_STATIC,
        .rtm_scope = RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_UNICAST,
    };
    struct nlmsghdr *message =
        netlink_batch_add(batch, "add the default route", RTM_NEWROUTE,
                          NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK, &header, sizeof(header));

    if (gateway->family == AF_INET6)
        mnl_attr_put(message, RTA_GATEWAY, sizeof(gateway->v6), &gateway->v6);
    else
        mnl_attr_put_u32(message, RTA_GATEWAY, gateway->v4.s_addr);
    mnl_attr_put_u32(message, RTA_OIF, index);
}

static bool is_blocked_port(const struct nlattr *data)
{
    const struct nlattr *attribute;

    netlink_for_each_nested(attribute, data)
    {
        if (mnl_attr_get_type(attribute) == IFLA_BRPORT_STATE &&
            mnl_attr_get_u8(attribute) != BR_STATE_FORWARDING)
            return true;
    }
    return false;
}

static void handle_link_info(const struct nlattr *info, struct link *link, bool *ret_blocked)
{
    const struct nlattr *attribute;

    netlink_for_each_nested(attribute, info)
    {
        if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND)
            link->is_bridge = strcmp(mnl_attr_get_str(attribute), "bridge") == 0;
        if (mnl_attr_get_type(attribute) == IFLA_INFO_SLAVE_DATA)
            *ret_blocked = is_blocked_port(attribute); /* our links are ports of bridges only */
    }
}

static void handle_link(const struct nlmsghdr *message, void *data)
{
    const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
    const struct nlattr *attribute;
    struct link *link = data;
    bool works = false, blocked = false;

    link->index = (unsigned)header->ifi_index;
    link->is_up = header->ifi_flags & IFF_UP;
    netlink_for_each(attribute, message, sizeof(*header))
    {
        if (mnl_attr_get_type(attribute) == IFLA_MTU)
            link->mtu = mnl_attr_get_u32(attribute);
        if (mnl_attr_get_type(attribute) == IFLA_LINKINFO)
            handle_link_info(attribute, link, &blocked);
        /* Not IFF_RUNNING, which a link has from the beginning, while its state is unknown. */
        if (mnl_attr_get_type(attribute) == IFLA_OPERSTATE)
            works = mnl_attr_get_u8(attribute) == IF_OPER_UP;
    }
    link->passes_packets = works && !blocked;
}

int link_get(struct netlink *route, const char *name, struct link *ret, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    const struct ifinfomsg header = {0};
    struct link link = {0};
    struct nlmsghdr *message =
        netlink_batch_add(&batch, "look a link up", RTM_GETLINK, 0, &header, sizeof(header));
    int r;

    mnl_attr_put_strz(message, IFLA_IFNAME, name);
    r = netlink_query(route, &batch, handle_link, &link, err);
    if (r < 0)
        return r;
    *ret = link;
    return 0;
}

struct address_filter {
    unsigned link_index;
    link_address_handler *handle;
    void *data;
};

static void handle_address(const struct nlmsghdr *message, void *data)
{
    const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
    const struct address_filter *filter = data;
    struct net_subnet address = {.prefix = header->ifa_prefixlen};
    const struct nlattr *attribute;

    if (header->ifa_family != AF_INET ||
        (filter->link_index != 0 && header->ifa_index != filter->link_index))
        return;
    netlink_for_each(attribute, message, sizeof(*header))
    {
        if (mnl_attr_get_type(attribute) == IFA_LOCAL)
            address.gateway.s_addr = mnl_attr_get_u32(attribute);
    }
    filter->handle(&address, filter->data);
}

int link_each_address(struct netlink *route, unsigned link_index, link_address_handler *handle,
                      void *data, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct address_filter filter = {link_index, handle, data};
    const struct ifaddrmsg header = {.ifa_family = AF_INET};

    netlink_batch_add(&batch, "list the addresses", RTM_GETADDR, NLM_F_DUMP, &header,
                      sizeof(header));
    return netlink_query(route, &batch, handle_address, &filter, err);
}

static void handle_route(const struct nlmsghdr *message, void *data)
{
    const struct rtmsg *header = mnl_nlmsg_get_payload(message);
    const struct address_filter *filter = data;
    struct net_subnet destination = {.prefix = header->rtm_dst_len};
    const struct nlattr *attribute;

    if (header->rtm_family != AF_INET || header->rtm_table == RT_TABLE_LOCAL ||
        header->rtm_dst_len == 0)
        return;
    netlink_for_each(attribute, message, sizeof(*header))
    {
        if (mnl_attr_get_type(attribute) == RTA_DST)
            destination.gateway.s_addr = mnl_attr_get_u32(attribute);
    }
    filter->handle(&destination, filter->data);
}

int link_each_route(struct netlink *route, link_address_handler *handle, void *data,
                    struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct address_filter filter = {0, handle, data};
    const struct rtmsg header = {.rtm_family = AF_INET};

    netlink_batch_add(&batch, "list the routes", RTM_GETROUTE, NLM_F_DUMP, &header, sizeof(header));
    return netlink_query(route, &batch, handle_route, &filter, err);
}
