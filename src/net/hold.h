/*
 * Sockets that are bound to published ports and serve nobody: rules turn what comes for such a port
 * to its container, and without the socket a program could bind to it and never be reached.
 */
#ifndef NET_HOLD_H
#define NET_HOLD_H

#include <net/net.h>

/* A socket, or -errno: -EADDRINUSE when a program has the port, however willing to share.
 * released: one of ours has had the port until a moment ago (port_hold_release()). */
int port_hold_open(const struct net_publication *publication, bool released);

/* Closes it. Another process may have a second descriptor of it still: it is no obstacle to
 * port_hold_open() any more. */
void port_hold_release(int fd);

/* A socket at the port for who serves those that come by it: TCP listens. shared: for UDP, too, one
 * that shares the port lets it be bound beside it. */
int port_open_serving(enum net_protocol protocol, const struct net_ip *address, uint16_t port,
                      bool shared);

/* The same of a publication, or, where the machine is outside, the socket that serves it there. */
int publication_open(const struct net *net, const struct net_publication *publication);

/* While it is shared, an own socket can be bound beside it that wants that, too. */
void port_hold_share(int fd, bool shared);

#endif
