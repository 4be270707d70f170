/*
 * Links, addresses and routes by rtnetlink. The add_ functions compose one message of a batch; the
 * others ask the kernel.
 */
#ifndef NET_LINK_H
#define NET_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include <net/address.h>

#include "netlink.h"

enum { LINK_LOOPBACK = 1 }; /* the kernel gives lo this index in every namespace */

struct link {
    unsigned index;
    bool is_bridge;
    bool is_up;
    bool passes_packets; /* has a carrier, and as a port of a bridge is in its forwarding state */
    uint32_t mtu;
};

/* -ENODEV, with err, when there is none. */
int link_get(struct netlink *route, const char *name, struct link *ret, struct error *err);

/* Each IPv4 address of this machine (link_index 0), or of one link. */
typedef void link_address_handler(const struct net_subnet *address, void *data);
int link_each_address(struct netlink *route, unsigned link_index, link_address_handler *handle,
                      void *data, struct error *err);

/* Each IPv4 route of this machine's main table, but for the default route. gateway is the
 * destination's network address. */
int link_each_route(struct netlink *route, link_address_handler *handle, void *data,
                    struct error *err);

/* The bridge, up. Its own MAC address keeps the kernel from taking over that of a port. */
void link_add_bridge(struct netlink_batch *batch, const char *name, const uint8_t mac[static 6],
                     uint32_t mtu);
void link_add_set_up(struct netlink_batch *batch, const char *what, unsigned index, uint32_t mtu);
/* By name, or where that is NULL by index. */
void link_add_delete(struct netlink_batch *batch, const char *name, unsigned index);

struct link_veth {
    const char *name;        /* of this end, brought up as a port of the bridge */
    unsigned bridge;         /* index */
    const char *peer_name;   /* of the other end, left down in peer_netns */
    const uint8_t *peer_mac; /* 6 bytes */
    int peer_netns;          /* descriptor */
    uint32_t mtu;
    bool isolated; /* does not reach the other isolated ports of the bridge */
};

/* The pair, and hairpin mode on its port: a container may reach itself through a published port. */
void link_add_veth(struct netlink_batch *batch, const struct link_veth *veth);

void link_add_address(struct netlink_batch *batch, unsigned index,
                      const struct net_subnet *address);
void link_add_address_delete(struct netlink_batch *batch, unsigned index,
                             const struct net_subnet *address);
/* Without duplicate address detection, which would keep it from being used for 1.8 s. One that is
 * there already stays. */
void link_add_address6(struct netlink_batch *batch, unsigned index, struct in6_addr address,
                       unsigned prefix);
/* In place of another default route of the gateway's family. */
void link_add_default_route(struct netlink_batch *batch, unsigned index,
                            const struct net_ip *gateway);

#endif
