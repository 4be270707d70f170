/*
 * The kernel's network switches under /proc/sys/net, of the namespace the calling thread is in.
 */
#ifndef NET_SYSCTL_H
#define NET_SYSCTL_H

#include <base/error.h>

/* Makes the switch 1; writes only when it is not, since it may be the whole machine's. */
int sysctl_set(const char *path, struct error *err);

/* The same for a link: /proc/sys/net/FAMILY/conf/LINK/NAME. */
int sysctl_set_for_link(const char *family, const char *link, const char *name, struct error *err);

/* No IPv6 on a link, or ("default") on every link made from now on. Our subnets are IPv4 only, and
 * a link that listens to IPv6 takes anybody on the bridge for its router who says so
 * (CVE-2020-13401). A kernel without IPv6 is fine. */
int sysctl_disable_ipv6(const char *link, struct error *err);

#endif
