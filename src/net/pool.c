#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <net/pool.h>

enum { WORD_BITS = 64 };

struct net_pool {
    struct net_subnet subnet;
    uint32_t first;    /* the network address, host byte order */
    uint32_t size;     /* addresses of the subnet, those never given out too */
    uint32_t used;     /* given out */
    uint32_t next;     /* where the next search begins, an offset from first */
    uint32_t low;      /* addresses are given out from here */
    uint32_t high;     /* to before here */
    uint64_t bitmap[]; /* bit set: in use, or never given out */
};

enum { NEVER_GIVEN_OUT = 3 }; /* network, gateway, broadcast */

static bool in_use(const struct net_pool *pool, uint32_t offset)
{
    return pool->bitmap[offset / WORD_BITS] >> (offset % WORD_BITS) & 1;
}

static void set_in_use(struct net_pool *pool, uint32_t offset, bool value)
{
    uint64_t bit = 1ULL << (offset % WORD_BITS);

    if (value)
        pool->bitmap[offset / WORD_BITS] |= bit;
    else
        pool->bitmap[offset / WORD_BITS] &= ~bit;
}

static bool never_given_out(const struct net_pool *pool, uint32_t offset)
{
    return offset == 0 || offset == pool->size - 1 ||
           offset == ntohl(pool->subnet.gateway.s_addr) - pool->first;
}

struct net_pool *net_pool_create(const struct net_subnet *subnet, const struct net_subnet *range)
{
    uint32_t size = 1U << (32 - subnet->prefix);
    size_t words = (size + WORD_BITS - 1) / WORD_BITS;
    struct net_pool *pool = xcalloc(1, sizeof(*pool) + words * sizeof(uint64_t));

    pool->subnet = *subnet;
    pool->first = ntohl(net_subnet_network(subnet).s_addr);
    pool->size = size;
    pool->high = size;
    if (range && net_subnet_contains(subnet, net_subnet_network(range)) &&
        range->prefix >= subnet->prefix) {
        pool->low = ntohl(net_subnet_network(range).s_addr) - pool->first;
        pool->high = pool->low + (1U << (32 - range->prefix));
    }
    pool->next = pool->low > 0 ? pool->low : 1;
    set_in_use(pool, 0, true);
    set_in_use(pool, size - 1, true);
    set_in_use(pool, ntohl(subnet->gateway.s_addr) - pool->first, true);
    for (uint32_t beyond = size; beyond < words * WORD_BITS; beyond++)
        set_in_use(pool, beyond, true);
    return pool;
}

void net_pool_destroy(struct net_pool *pool)
{
    free(pool);
}

/* The first free offset in [from, to), or to. */
static uint32_t find_free(const struct net_pool *pool, uint32_t from, uint32_t to)
{
    for (uint32_t offset = from; offset < to;) {
        uint64_t free_bits = ~pool->bitmap[offset / WORD_BITS] >> (offset % WORD_BITS);

        if (free_bits) {
            offset += (uint32_t)__builtin_ctzll(free_bits);
            return offset < to ? offset : to;
        }
        offset += WORD_BITS - offset % WORD_BITS;
    }
    return to;
}

int net_pool_allocate(struct net_pool *pool, struct in_addr *ret, struct error *err)
{
    uint32_t offset = find_free(pool, pool->next, pool->high);

    if (offset == pool->high) {
        offset = find_free(pool, pool->low, pool->next);
        if (offset == pool->next) {
            char text[NET_SUBNET_TEXT];

            error_set(err, -EADDRNOTAVAIL, "no free address is left in subnet %s",
                      net_subnet_format(&pool->subnet, text));
            error_hint(err, "remove containers that are not needed");
            return -EADDRNOTAVAIL;
        }
    }
    set_in_use(pool, offset, true);
    pool->used++;
    pool->next = offset + 1; /* at most size - 1: the broadcast address is never free */
    *ret = (struct in_addr){htonl(pool->first + offset)};
    return 0;
}

int net_pool_reserve(struct net_pool *pool, struct in_addr address, struct error *err)
{
    char text[NET_ADDRESS_TEXT], subnet[NET_SUBNET_TEXT];
    uint32_t offset = ntohl(address.s_addr) - pool->first;

    if (!net_subnet_contains(&pool->subnet, address) || never_given_out(pool, offset))
        return error_set(err, -EINVAL, "address %s is none that a container in subnet %s can have",
                         net_address_format(address, text),
                         net_subnet_format(&pool->subnet, subnet));
    if (in_use(pool, offset))
        return error_set(err, -EADDRINUSE, "address %s is in use by another container",
                         net_address_format(address, text));
    set_in_use(pool, offset, true);
    pool->used++;
    return 0;
}

void net_pool_release(struct net_pool *pool, struct in_addr address)
{
    uint32_t offset = ntohl(address.s_addr) - pool->first;

    if (!net_subnet_contains(&pool->subnet, address) || never_given_out(pool, offset) ||
        !in_use(pool, offset))
        return;
    set_in_use(pool, offset, false);
    pool->used--;
}

uint32_t net_pool_used(const struct net_pool *pool)
{
    return pool->used;
}

uint32_t net_pool_free(const struct net_pool *pool)
{
    return pool->size - NEVER_GIVEN_OUT - pool->used;
}
