/*
 * New network namespaces and what a container finds in them.
 */
#ifndef NET_NAMESPACE_H
#define NET_NAMESPACE_H

#include "state.h"

/* The namespace that the calling thread is in, as a descriptor. */
int namespace_open_own(int *ret_fd, struct error *err);

void namespace_finish(struct namespace *namespace); /* drops it, unless its fd was moved out */

/* A spare one, or a new one. */
int namespace_take(struct net *net, struct namespace *ret, struct error *err);

/* That at fd, as the kernel makes it, which stays the caller's. */
int namespace_adopt(struct net *net, int fd, struct namespace *ret, struct error *err);

/* Between these two calls the thread is inside; nothing may return early. */
int namespace_enter(int fd, struct error *err);
void namespace_leave(const struct net *net);

/* A netlink socket of a namespace that is in use. */
int namespace_open_netlink(struct net *net, int fd, int protocol, struct netlink *ret,
                           struct error *err);

#endif
