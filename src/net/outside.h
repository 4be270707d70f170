/*
 * Sockets of the machine, for who is in a network namespace of his own and may not leave it
 * (net_outside_serve()).
 */
#ifndef NET_OUTSIDE_H
#define NET_OUTSIDE_H

#include <net/net.h>

/* A socket of the machine that serves the publication's port, listening with TCP: the caller's, or
 * -errno as of bind(2); of connect(2) when nobody serves at path. Blocks for the other process:
 * some 100 us, two seconds when it hangs. released: as for port_open_serving(). */
int outside_open(const char *path, const struct net_publication *publication, bool released);

#endif
