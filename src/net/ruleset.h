/*
 * Our nftables table, which is the whole of what the host's packet path knows of us:
 *
 *     table ip cloche {
 *         map published {    # protocol and host port -> container, at every address of the host
 *             type inet_proto . inet_service : ipv4_addr . inet_service
 *         }
 *         map published_at { # the same at one address of the host
 *             type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
 *         }
 *         chain guard {      # before connection tracking
 *             type filter hook prerouting priority raw; policy accept;
 *             iifname BRIDGE ip saddr 127.0.0.0/8 drop
 *             iifname BRIDGE ip daddr 127.0.0.0/8 drop
 *             iifname != BRIDGE iifname != "lo" ip daddr SUBNET drop
 *         }
 *         chain inbound {    # and `outbound` with the same rules at hook output
 *             type nat hook prerouting priority dstnat; policy accept;
 *             fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
 *             fib daddr type local dnat ip to meta l4proto . th dport map @published
 *         }
 *         chain masquerade {
 *             type nat hook postrouting priority srcnat; policy accept;
 *             oifname BRIDGE ip saddr 127.0.0.0/8 masquerade
 *             oifname BRIDGE ip saddr SUBNET ct status dnat masquerade
 *             oifname != BRIDGE oifname != "lo" ip saddr SUBNET masquerade
 *         }
 *     }
 *
 * guard: route_localnet, which published ports at 127.0.0.1 need, would otherwise open the host's
 * loopback services to containers (CVE-2020-8558); and a neighbour that routes our subnet to this
 * machine would reach ports that are not published. Packets for published ports still carry the
 * host's address at this point.
 * masquerade: answers to 127.0.0.1 and to containers that reached a container (or themselves) by
 * an address of the host have to come back through the host, which turns them round.
 */
#ifndef NET_RULESET_H
#define NET_RULESET_H

#include "state.h"

/* Replaces the table, in one transaction, by one with exactly net's publications. */
int ruleset_replace(struct net *net, struct error *err);

/* Removes it; 0 when there is none. */
int ruleset_remove(struct net *net, struct error *err);

int ruleset_publish(struct net *net, const struct net_publication *publication, struct error *err);

/* 0 when it was not there (somebody flushed the rules a moment ago). */
int ruleset_unpublish(struct net *net, const struct net_publication *publication,
                      struct error *err);

/* Whether another instance on this machine has the port: 1, 0 or -errno. */
int ruleset_published_elsewhere(struct net *net, const struct net_publication *publication,
                                struct error *err);

/* Whether the notification says that part of our table is gone, by another hand than ours. */
bool ruleset_is_damage(const struct net *net, const struct nlmsghdr *message);

#endif
