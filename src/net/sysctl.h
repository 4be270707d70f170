/*
 * The kernel's network switches under /proc/sys/net, of the namespace the calling thread is in.
 */
#ifndef NET_SYSCTL_H
#define NET_SYSCTL_H

#include <stdbool.h>

#include <base/error.h>

/* Gives the switch this value; writes only when it has another one, since it may be the whole
 * machine's. */
int sysctl_set(const char *path, const char *value, struct error *err);

/* The same for a link: /proc/sys/net/FAMILY/conf/LINK/NAME. */
int sysctl_set_for_link(const char *family, const char *link, const char *name, const char *value,
                        struct error *err);

/* No IPv6 on a link, or ("default") on every link made from now on: where a bridge has no IPv6
 * subnet, a link that listens to IPv6 takes anybody on the bridge for its router who says so
 * (CVE-2020-13401). A kernel without IPv6 is fine. */
int sysctl_disable_ipv6(const char *link, struct error *err);

/* IPv6 on a link, with addresses that we give and no others: routers are not listened to. */
int sysctl_enable_ipv6(const char *link, struct error *err);

#define SYSCTL_FORWARD_IPV4 "/proc/sys/net/ipv4/ip_forward"
#define SYSCTL_FORWARD_IPV6 "/proc/sys/net/ipv6/conf/all/forwarding"

/* Whether a switch is on; one that is not there is off. */
bool sysctl_is_on(const char *path);

/* The links whose switch NAME in FOLDER/LINK is on, without "all" and "default"; the caller's list.
 */
char **sysctl_links_on(const char *folder, const char *name);

/* IPv6 packets are forwarded. A kernel that does so does not listen to routers any more, by which
 * the machine may have its own address: links that do are told to go on (accept_ra 2). */
int sysctl_forward_ipv6(struct error *err);

#endif
