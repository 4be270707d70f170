/*
 * Kernel parameters of the container's namespaces.
 */
#ifndef RUNTIME_SYSCTL_H
#define RUNTIME_SYSCTL_H

#include "container.h"

/* In the parent: refuses what is not bound to a namespace that the container has for itself. */
int sysctl_check(const struct container *container, struct error *err);

/* In the container's process, before it loses sight of the host's /proc. */
int sysctl_apply(struct container *container, struct error *err);

#endif
