#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <net/net.h>

#include "link.h"
#include "state.h"

/*
 * Candidates: the /20 subnets of these ranges. 4093 containers are more than a bridge has ports
 * (1024 on Linux), and many subnets leave room for instances and for what the machine's own
 * networks take. 10.0.0.0/8 is left to those, most of which live there.
 */
enum { CANDIDATE_PREFIX = 20 };

static const struct range {
    uint32_t first; /* host byte order */
    uint32_t count; /* candidates in it */
} ranges[] = {
    {0xac140000, 12 * 16}, /* 172.20.0.0 - 172.31.255.255 */
    {0xc0a80000, 16},      /* 192.168.0.0/16 */
};

static uint32_t candidates_count(void)
{
    uint32_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
        count += ranges[i].count;
    return count;
}

static struct net_subnet candidate(uint32_t number)
{
    size_t i = 0;

    while (number >= ranges[i].count)
        number -= ranges[i++].count;
    return (struct net_subnet){
        .gateway.s_addr = htonl(ranges[i].first + (number << (32 - CANDIDATE_PREFIX)) + 1),
        .prefix = CANDIDATE_PREFIX,
    };
}

/* FNV-1a: spreads names that differ in one letter. */
static uint32_t hash(const char *text)
{
    uint32_t value = 2166136261U;

    for (; *text; text++)
        value = (value ^ (uint8_t)*text) * 16777619U;
    return value;
}

struct taken {
    bool *candidates; /* of candidates_count() */
    uint32_t count;
};

static void mark_taken(const struct net_subnet *used, void *data)
{
    struct taken *taken = data;

    for (uint32_t i = 0; i < taken->count; i++) {
        struct net_subnet subnet = candidate(i);

        if (net_subnet_overlap(&subnet, used))
            taken->candidates[i] = true;
    }
}

static void keep_first(const struct net_subnet *address, void *data)
{
    struct net_subnet *first = data;

    if (first->gateway.s_addr == 0 && address->prefix >= NET_PREFIX_MIN &&
        address->prefix <= NET_PREFIX_MAX)
        *first = *address;
}

static int subnet_of_bridge(struct netlink *route, const char *bridge, struct net_subnet *ret,
                            struct error *err)
{
    struct link link;
    int r;

    r = link_get(route, bridge, &link, NULL);
    if (r == -ENODEV || (r == 0 && !link.is_bridge))
        return 0;
    if (r < 0)
        return error_errno(err, -r, "look the bridge '%s' up", bridge);
    return link_each_address(route, link.index, keep_first, ret, err);
}

static int choose_free(const struct net *net, struct netlink *route, const char *bridge,
                       struct net_subnet *ret, struct error *err)
{
    bool candidates[ARRAY_SIZE(ranges) * 256] = {false};
    struct taken taken = {candidates, candidates_count()};
    uint32_t wanted = hash(bridge) % taken.count;
    int r;

    r = link_each_address(route, 0, mark_taken, &taken, err);
    if (r == 0)
        r = link_each_route(route, mark_taken, &taken, err);
    if (r < 0)
        return r;
    for (size_t i = 0; net && i < net->bridges_count; i++)
        mark_taken(&net->bridges[i]->config.subnet, &taken);
    for (uint32_t i = 0; i < taken.count; i++) {
        uint32_t number = (wanted + i) % taken.count;

        if (!candidates[number]) {
            *ret = candidate(number);
            return 0;
        }
    }
    return error_set(err, -EADDRNOTAVAIL,
                     "no free IPv4 subnet: every /20 of 172.20.0.0-172.31.255.255 and "
                     "192.168.0.0/16 overlaps the machine's addresses and routes");
}

int net_choose_subnet(const struct net *net, const char *bridge, struct net_subnet *ret,
                      struct error *err)
{
    _cleanup_(netlink_finish) struct netlink route = {0};
    struct net_subnet subnet = {0};
    int r;

    r = netlink_open(NETLINK_ROUTE, &route, err);
    if (r == 0)
        r = subnet_of_bridge(&route, bridge, &subnet, err);
    if (r == 0 && subnet.prefix == 0)
        r = choose_free(net, &route, bridge, &subnet, err);
    if (r < 0)
        return r;
    *ret = subnet;
    return 0;
}
