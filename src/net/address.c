#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

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

const char *net_address_format(struct in_addr address, char text[static NET_ADDRESS_TEXT])
{
    const uint8_t *byte = (const uint8_t *)&address.s_addr;

    snprintf(text, NET_ADDRESS_TEXT, "%u.%u.%u.%u", byte[0], byte[1], byte[2], byte[3]);
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
