/*
 * Connection tracking's memory of what came by published ports.
 */
#ifndef NET_CONNTRACK_H
#define NET_CONNTRACK_H

#include "state.h"

/*
 * Makes the kernel forget flows to a host port. NAT is decided by a flow's first packet: a UDP
 * client that goes on sending (a log shipper, say) would for ever reach what was there before a
 * publication, an earlier container's address, or nobody; and a client of any protocol what was
 * published until a moment ago. Best effort: without success, flows of UDP end 30 to 120 s after
 * their last packet. A walk through the kernel's table, about 1 ms.
 */
void conntrack_forget(struct net *net, const struct net_publication *publication);

#endif
