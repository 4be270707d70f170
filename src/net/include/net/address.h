/*
 * Addresses and the subnets of a bridge. Addresses are struct in_addr and in6_addr: network byte
 * order everywhere outside this module's own arithmetic. Pure functions; nothing here blocks.
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
    NET_IP_TEXT = 46,      /* an address of either family and NUL */
    NET_SUBNET6_TEXT = 50, /* with its prefix */
    NET_PREFIX6_MIN = 8,
    NET_PREFIX6_MAX = 124,
};

/* An address of either family; a zeroed one is none at all. */
struct net_ip {
    uint16_t family; /* AF_INET, AF_INET6 */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    };
};

/* The IPv6 subnet of a bridge; prefix 0: it has none. */
struct net_subnet6 {
    struct in6_addr gateway;
    unsigned prefix;
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

/* "10.1.2.3", "fd00::1", "[fd00::1]". */
int net_ip_parse(const char *text, struct net_ip *ret, struct error *err);
const char *net_ip_format(const struct net_ip *ip, char text[static NET_IP_TEXT]);
bool net_ip_equal(const struct net_ip *a, const struct net_ip *b);
bool net_ip_is_any(const struct net_ip *ip); /* 0.0.0.0 or :: */
bool net_ip_is_loopback(const struct net_ip *ip);
static inline struct net_ip net_ip_v4(struct in_addr address)
{
    return (struct net_ip){.family = AF_INET, .v4 = address};
}
static inline struct net_ip net_ip_v6(struct in6_addr address)
{
    return (struct net_ip){.family = AF_INET6, .v6 = address};
}

/* Whether two IPv4 subnets have addresses in common. */
bool net_subnet_overlap(const struct net_subnet *a, const struct net_subnet *b);

/* "fd12:3456:789a::1/64"; the subnet's own first address means the one after it. */
int net_subnet6_parse(const char *text, struct net_subnet6 *ret, struct error *err);
const char *net_subnet6_format(const struct net_subnet6 *subnet,
                               char text[static NET_SUBNET6_TEXT]);
struct in6_addr net_subnet6_network(const struct net_subnet6 *subnet);
bool net_subnet6_contains(const struct net_subnet6 *subnet, const struct in6_addr *address);
/* The subnet's address with this number (below 2^32, and below what the prefix leaves). */
struct in6_addr net_subnet6_at(const struct net_subnet6 *subnet, uint32_t number);
/* A /64 that is nobody else's: a unique local one (RFC 4193) with random bits. */
struct net_subnet6 net_subnet6_random(void);

/* "02:42:ac:11:00:02"; unicast addresses only. */
int net_mac_parse(const char *text, uint8_t ret[static 6], struct error *err);

/* The MAC address of a container with this IPv4 address: 02:42 and the address. The same address
 * always has the same MAC, so that neighbours' ARP entries stay right when it is reused. */
void net_address_mac(struct in_addr address, uint8_t mac[static 6]);

#endif
