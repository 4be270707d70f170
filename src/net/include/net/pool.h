/*
 * Which addresses of a subnet are in use: a bitmap, one bit an address. Pure; nothing here blocks
 * or talks to the kernel. Not thread-safe.
 *
 * Network, broadcast and gateway address are never given out. Addresses are given next-fit: one
 * that was released comes again only after the search has gone round, since neighbours and
 * connection tracking remember addresses for a while.
 */
#ifndef NET_POOL_H
#define NET_POOL_H

#include <net/address.h>

struct net_pool;

/* range: the part of it that addresses are given from, unless they are asked for; NULL: all. */
struct net_pool *net_pool_create(const struct net_subnet *subnet, const struct net_subnet *range);
void net_pool_destroy(struct net_pool *pool); /* NULL allowed */

/* A free address, now in use. -EADDRNOTAVAIL when there is none. */
int net_pool_allocate(struct net_pool *pool, struct in_addr *ret, struct error *err);

/* Marks one address as in use (a container that runs already, or --ip). -EINVAL when it is outside
 * of the subnet or one that is never given out, -EADDRINUSE when it is in use. */
int net_pool_reserve(struct net_pool *pool, struct in_addr address, struct error *err);

/* What is not in use, or not ours, is ignored. */
void net_pool_release(struct net_pool *pool, struct in_addr address);

/* Numbers of addresses: given out, and left. */
uint32_t net_pool_used(const struct net_pool *pool);
uint32_t net_pool_free(const struct net_pool *pool);

#endif
