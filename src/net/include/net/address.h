/*
 * IPv4 addresses and the subnet of a bridge. Addresses are struct in_addr: network byte order
 * everywhere outside this module's own arithmetic. Pure functions; nothing here blocks.
 */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>

enum {
    NET_ADDRESS_TEXT = 16, /* "255.255.255.255" and NUL */
    NET_SUBNET_TEXT = 19,  /* "255.255.255.255/32" and NUL */
    NET_PREFIX_MIN = 8,    /* the largest subnet a bridge may have */
    NET_PREFIX_MAX = 30,   /* the smallest: gateway and one container */
};

struct net_subnet {
    struct in_addr gateway; /* the bridge's own address */
    unsigned prefix;        /* bits, NET_PREFIX_MIN to NET_PREFIX_MAX */
};

/* "10.1.2.3"; exactly the dotted quad (inet_pton). -EINVAL with a message otherwise. */
int net_address_parse(const char *text, struct in_addr *ret, struct error *err);
const char *net_address_format(struct in_addr address, char text[static NET_ADDRESS_TEXT]);

/* "172.20.16.1/20": the gateway and the prefix. A network address instead of a gateway
 * ("172.20.16.0/20") means the first address of the subnet; the broadcast address is refused. */
int net_subnet_parse(const char *text, struct net_subnet *ret, struct error *err);
const char *net_subnet_format(const struct net_subnet *subnet, char text[static NET_SUBNET_TEXT]);

struct in_addr net_subnet_network(const struct net_subnet *subnet);
struct in_addr net_subnet_broadcast(const struct net_subnet *subnet);
bool net_subnet_contains(const struct net_subnet *subnet, struct in_addr address);

/* The MAC address of a container with this IPv4 address: 02:42 and the address. The same address
 * always has the same MAC, so that neighbours' ARP entries stay right when it is reused. */
void net_address_mac(struct in_addr address, uint8_t mac[static 6]);

#endif
