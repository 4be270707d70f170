/*
 * New network namespaces and what a container finds in them.
 */
#ifndef NET_NAMESPACE_H
#define NET_NAMESPACE_H

#include "state.h"

/* The namespace that the calling thread is in, as a descriptor. */
int namespace_open_own(int *ret_fd, struct error *err);

void namespace_finish(struct namespace *namespace); /* drops it, unless its fd was moved out */

#endif
