/*
 * Our nftables table, which is the whole of what the host's packet path knows of us:
 *
 *     table inet cloche {
 *         set bridges { type ifname }          # of all networks
 *         set within { type ifname . ifname }  # each of them twice: what stays on a bridge
 *         set internal { type ifname }         # of networks that lead nowhere
 *         set masqueraded { type ifname }      # of networks that go out with the host's address
 *         set forwarded, forwarded6 { type ifname }  # links with a switch of their own
 *         map published {      # protocol and host port -> container, at every address of the host
 *             type inet_proto . inet_service : ipv4_addr . inet_service
 *         }
 *         map published_at {   # the same at one address of the host
 *             type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
 *         }
 *         map published6, published6_at        # the same for IPv6
 *         chain guard {        # before connection tracking
 *             type filter hook prerouting priority raw; policy accept;
 *             iifname @bridges jump containers
 *             iifname != "lo" meta nfproto ipv4 ip daddr 127.0.0.0/8 drop
 *         }
 *         chain containers {
 *             meta nfproto ipv4 ip saddr 127.0.0.0/8 drop
 *             fib saddr . iif oif missing drop
 *         }
 *         chain isolate {
 *             type filter hook forward priority filter; policy accept;
 *             iifname @internal iifname . oifname != @within drop    (where there is one)
 *             oifname @internal iifname . oifname != @within drop
 *             ct state established,related accept
 *             iifname . oifname @within accept
 *             oifname != @bridges jump strangers       (where forwarding was switched on by us)
 *             oifname != @bridges accept
 *             ct status dnat accept
 *             drop
 *         }
 *         chain strangers {    # only those families that we switched forwarding on for
 *             iifkind "bridge" accept
 *             oifkind "bridge" accept
 *             meta nfproto ipv4 iifname != @forwarded drop
 *             meta nfproto ipv6 iifname != @forwarded6 drop
 *         }
 *         chain inbound {      # and `outbound` with the same rules at hook output, after
 *                              #     ip6 daddr ::1 return
 *             type nat hook prerouting priority dstnat; policy accept;
 *             fib daddr type != local return
 *             meta nfproto ipv4
 *                 dnat ip to ip daddr . meta l4proto . th dport map @published_at
 *             meta nfproto ipv4
 *                 dnat ip to meta l4proto . th dport map @published
 *             (the same two of IPv6)
 *         }
 *         chain masquerade {
 *             type nat hook postrouting priority srcnat; policy accept;
 *             oifname @bridges meta nfproto ipv4 ip saddr 127.0.0.0/8 masquerade
 *             iifname . oifname @within ct status dnat masquerade
 *             iifname "" oifname @bridges ct status dnat fib saddr type != local masquerade
 *             iifname @masqueraded iifname . oifname != @within masquerade
 *         }
 *     }
 *
 * guard: route_localnet, which published ports at 127.0.0.1 need, would otherwise open the host's
 * loopback services to containers (CVE-2020-8558), and a neighbour of the machine could reach ports
 * published there, since they are sent on before the kernel looks for such addresses on the wire
 * (moby#45610). And who sends with an address that is not of its
 * network could answer in another's place, to the host and by connection tracking to containers of
 * other networks.
 * isolate: what reaches a bridge from another one, or from a neighbour that routes our subnets to
 * this machine, is for a published port or an answer, or it is dropped. An accept here ends this
 * chain only: a firewall of the host sees the same packets in its own forward chains, and its drop
 * wins.
 * What goes on is accepted first, since that is nearly all there is.
 * strangers: a machine that did not forward before us does not become a router between its
 * neighbours: only what comes from or goes to a bridge passes, ours or that of another program for
 * containers or virtual machines, and what it forwarded before: packets that come by a link whose
 * own switch was on (forwarding.c). outbound: [::1] as a source cannot be turned round; who
 * listens there is reached. masquerade: answers to 127.0.0.1 and to containers that reached a
 * container on their own bridge (or themselves) by an address of the host have to come back through
 * the host, which turns them round. Packets that a bridge passes on itself have no incoming link
 * here (br_netfilter).
 */
#ifndef NET_RULESET_H
#define NET_RULESET_H

#include "state.h"

/* Replaces the table, in one transaction, by one with exactly net's bridges and
 * publications. */
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
