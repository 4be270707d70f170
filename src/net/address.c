#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include <base/text.h>
#include <net/address.h>

static uint32_t host_mask(const struct net_subnet *subnet)
{
    return subnet->prefix == 0 ? UINT32_MAX : (uint32_t)((1ULL << (32 - subnet->prefix)) - 1);
}

int net_address_parse(const char *text, struct in_addr *ret, struct error *err)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        return error_set(err, -EINVAL, "'%s' is not an IPv4 address", text);
    *ret = address;
    return 0;
}

static char *put_byte(char *at, uint8_t byte)
{
    if (byte >= 100)
        *at++ = (char)('0' + byte / 100);
    if (byte >= 10)
        *at++ = (char)('0' + byte / 10 % 10);
    *at++ = (char)('0' + byte % 10);
    return at;
}

/* Not by printf: lists of containers are full of addresses. */
const char *net_address_format(struct in_addr address, char text[static NET_ADDRESS_TEXT])
{
    const uint8_t *byte = (const uint8_t *)&address.s_addr;
    char *at = put_byte(text, byte[0]);

    for (size_t i = 1; i < 4; i++) {
        *at++ = '.';
        at = put_byte(at, byte[i]);
    }
    *at = '\0';
    return text;
}

int net_subnet_parse(const char *text, struct net_subnet *ret, struct error *err)
{
    const char *slash = strchr(text, '/');
    char address[NET_ADDRESS_TEXT];
    struct net_subnet subnet;
    uint64_t prefix;
    int r;

    if (!slash || (size_t)(slash - text) >= sizeof(address))
        return error_set(err, -EINVAL, "'%s' is not an IPv4 subnet (ADDRESS/PREFIX)", text);
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    r = net_address_parse(address, &subnet.gateway, err);
    if (r < 0)
        return r;
    if (text_to_u64(slash + 1, NET_PREFIX_MIN, NET_PREFIX_MAX, &prefix) < 0)
        return error_set(err, -EINVAL, "subnet '%s': the prefix is not %d to %d", text,
                         NET_PREFIX_MIN, NET_PREFIX_MAX);
    subnet.prefix = (unsigned)prefix;
    if (subnet.gateway.s_addr == net_subnet_broadcast(&subnet).s_addr)
        return error_set(err, -EINVAL, "subnet '%s': the gateway is the broadcast address", text);
    if (subnet.gateway.s_addr == net_subnet_network(&subnet).s_addr)
        subnet.gateway.s_addr = htonl(ntohl(subnet.gateway.s_addr) + 1);
    *ret = subnet;
    return 0;
}

const char *net_subnet_format(const struct net_subnet *subnet, char text[static NET_SUBNET_TEXT])
{
    char address[NET_ADDRESS_TEXT];

    snprintf(text, NET_SUBNET_TEXT, "%s/%u", net_address_format(subnet->gateway, address),
             subnet->prefix % 100);
    return text;
}

struct in_addr net_subnet_network(const struct net_subnet *subnet)
{
    return (struct in_addr){subnet->gateway.s_addr & ~htonl(host_mask(subnet))};
}

struct in_addr net_subnet_broadcast(const struct net_subnet *subnet)
{
    return (struct in_addr){subnet->gateway.s_addr | htonl(host_mask(subnet))};
}

bool net_subnet_contains(const struct net_subnet *subnet, struct in_addr address)
{
    return ((address.s_addr ^ subnet->gateway.s_addr) & ~htonl(host_mask(subnet))) == 0;
}

void net_address_mac(struct in_addr address, uint8_t mac[static 6])
{
    mac[0] = 0x02; /* locally administered, unicast */
    mac[1] = 0x42;
    memcpy(mac + 2, &address.s_addr, 4);
}

/* --- either family --- */

int net_ip_parse(const char *text, struct net_ip *ret, struct error *err)
{
    char inner[NET_IP_TEXT];
    struct net_ip ip = {0};
    size_t length = strlen(text);

    if (text[0] == '[' && length > 2 && length - 2 < sizeof(inner) && text[length - 1] == ']') {
        memcpy(inner, text + 1, length - 2);
        inner[length - 2] = '\0';
        text = inner;
    }
    if (inet_pton(AF_INET, text, &ip.v4) == 1)
        ip.family = AF_INET;
    else if (inet_pton(AF_INET6, text, &ip.v6) == 1)
        ip.family = AF_INET6;
    else
        return error_set(err, -EINVAL, "'%.64s' is not an IP address", text);
    *ret = ip;
    return 0;
}

const char *net_ip_format(const struct net_ip *ip, char text[static NET_IP_TEXT])
{
    if (ip->family == AF_INET)
        return net_address_format(ip->v4, text);
    if (ip->family != AF_INET6 || !inet_ntop(AF_INET6, &ip->v6, text, NET_IP_TEXT))
        text[0] = '\0';
    return text;
}

bool net_ip_equal(const struct net_ip *a, const struct net_ip *b)
{
    if (a->family != b->family)
        return false;
    return a->family == AF_INET6 ? memcmp(&a->v6, &b->v6, sizeof(a->v6)) == 0
                                 : a->v4.s_addr == b->v4.s_addr;
}

bool net_ip_is_any(const struct net_ip *ip)
{
    return ip->family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&ip->v6)
                                  : ip->v4.s_addr == htonl(INADDR_ANY);
}

bool net_ip_is_loopback(const struct net_ip *ip)
{
    return ip->family == AF_INET6 ? IN6_IS_ADDR_LOOPBACK(&ip->v6)
                                  : ntohl(ip->v4.s_addr) >> 24 == IN_LOOPBACKNET;
}

bool net_subnet_overlap(const struct net_subnet *a, const struct net_subnet *b)
{
    return a->prefix < b->prefix ? net_subnet_contains(a, b->gateway)
                                 : net_subnet_contains(b, a->gateway);
}

/* --- IPv6 --- */

static struct in6_addr masked(const struct in6_addr *address, unsigned prefix)
{
    struct in6_addr result = *address;

    for (unsigned i = 0; i < 16; i++) {
        unsigned bits = prefix > 8 * i ? prefix - 8 * i : 0;

        if (bits < 8)
            result.s6_addr[i] &= (uint8_t)(0xff00U >> bits);
    }
    return result;
}

struct in6_addr net_subnet6_network(const struct net_subnet6 *subnet)
{
    return masked(&subnet->gateway, subnet->prefix);
}

bool net_subnet6_contains(const struct net_subnet6 *subnet, const struct in6_addr *address)
{
    const struct in6_addr network = net_subnet6_network(subnet);
    const struct in6_addr of_address = masked(address, subnet->prefix);

    return subnet->prefix > 0 && memcmp(&network, &of_address, sizeof(network)) == 0;
}

struct in6_addr net_subnet6_at(const struct net_subnet6 *subnet, uint32_t number)
{
    struct in6_addr address = net_subnet6_network(subnet);

    for (int i = 15; i >= 12; i--, number >>= 8)
        address.s6_addr[i] |= (uint8_t)number;
    return address;
}

int net_subnet6_parse(const char *text, struct net_subnet6 *ret, struct error *err)
{
    const char *slash = strchr(text, '/');
    char address[NET_IP_TEXT];
    struct net_subnet6 subnet;
    uint64_t prefix;

    if (!slash || (size_t)(slash - text) >= sizeof(address))
        return error_set(err, -EINVAL, "'%.64s' is not an IPv6 subnet (ADDRESS/PREFIX)", text);
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    if (inet_pton(AF_INET6, address, &subnet.gateway) != 1)
        return error_set(err, -EINVAL, "'%s' is not an IPv6 address", address);
    if (text_to_u64(slash + 1, NET_PREFIX6_MIN, NET_PREFIX6_MAX, &prefix) < 0)
        return error_set(err, -EINVAL, "subnet '%s': the prefix is not %d to %d", text,
                         NET_PREFIX6_MIN, NET_PREFIX6_MAX);
    subnet.prefix = (unsigned)prefix;
    struct in6_addr network = net_subnet6_network(&subnet);
    if (memcmp(&network, &subnet.gateway, sizeof(network)) == 0)
        subnet.gateway = net_subnet6_at(&subnet, 1);
    *ret = subnet;
    return 0;
}

const char *net_subnet6_format(const struct net_subnet6 *subnet, char text[static NET_SUBNET6_TEXT])
{
    char address[INET6_ADDRSTRLEN];

    inet_ntop(AF_INET6, &subnet->gateway, address, sizeof(address));
    snprintf(text, NET_SUBNET6_TEXT, "%s/%u", address, subnet->prefix % 1000);
    return text;
}

struct net_subnet6 net_subnet6_random(void)
{
    struct net_subnet6 subnet = {.prefix = 64};
    uint8_t *byte = subnet.gateway.s6_addr;

    byte[0] = 0xfd;
    while (getrandom(byte + 1, 7, 0) != 7)
        ;
    byte[15] = 1;
    return subnet;
}

int net_mac_parse(const char *text, uint8_t ret[static 6], struct error *err)
{
    unsigned byte[6];
    int end = 0;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3], &byte[4],
               &byte[5], &end) != 6 ||
        text[end] || end != 17 || byte[0] & 1)
        return error_set(err, -EINVAL, "'%.64s' is not a MAC address that a link can have", text);
    for (int i = 0; i < 6; i++)
        ret[i] = (uint8_t)byte[i];
    return 0;
}
