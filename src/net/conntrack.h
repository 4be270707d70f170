/*
 * Connection tracking's memory of UDP.
 */
#ifndef NET_CONNTRACK_H
#define NET_CONNTRACK_H

#include "state.h"

/*
 * Makes the kernel forget UDP flows to a host port that began before this publication. NAT is
 * decided by a flow's first packet: a client that goes on sending (a log shipper, say) would for
 * ever reach what was there before: an earlier container's address, or nobody. TCP needs nothing,
 * its clients connect again. Best effort: without success, flows end 30 to 120 s after their last
 * packet. A walk through the kernel's table, about 1 ms.
 */
void conntrack_forget_udp(struct net *net, const struct net_publication *publication);

#endif
