/*
 * Self-isolation of cloche-names, in this order:
 *
 *   root           a mount namespace of its own with an empty read-only root
 *   capabilities   none, nor a way to get any; the user nobody
 *   system calls   an allow list
 *
 * It keeps the machine's network, where the resolvers are.
 */
#ifndef NAMES_JAIL_H
#define NAMES_JAIL_H

#include <stddef.h>

#include <base/error.h>

int jail_enter(struct error *err);

void jail_random(void *data, size_t size);

#endif
