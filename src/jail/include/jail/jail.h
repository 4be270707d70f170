/*
 * Self-isolation of a program that works with the machine's network and nothing else of it, in this
 * order:
 *
 *   root           a mount namespace of its own with an empty read-only root
 *   capabilities   none, nor a way to get any; the user nobody
 *   system calls   an allow list: memory, waiting and internet sockets, and what the program names
 */
#ifndef JAIL_JAIL_H
#define JAIL_JAIL_H

#include <stddef.h>

#include <base/error.h>

/* calls: names of further system calls, ended by NULL; those that the architecture does not have
 * are left out. Whoever gets an error ends. */
int jail_enter(const char *program, const char *const *calls, struct error *err);

/* As many descriptors as the system allows: before jail_enter(). */
void jail_allow_descriptors(void);

void jail_random(void *data, size_t size); /* needs getrandom */

#endif
