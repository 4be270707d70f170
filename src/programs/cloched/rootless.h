/*
 * The daemon of an ordinary user: it becomes root of a user namespace with mounts and network of
 * its own, which a process of its own (the holder) keeps, so that the next daemon comes into the
 * same.
 */
#ifndef CLOCHED_ROOTLESS_H
#define CLOCHED_ROOTLESS_H

#include <sys/types.h>

#include <base/error.h>
#include <base/instance.h>

/* Goes on as argv again, inside, as root: returns only when that fails. Needs newuidmap, newgidmap
 * and ranges in /etc/subuid and /etc/subgid; without pasta the network leads nowhere, which is
 * logged. */
int rootless_enter(const struct instance *instance, const char *libexec, char **argv,
                   struct error *err);

/* Whether this process is where rootless_enter() leads. */
bool rootless_is_inside(const struct instance *instance);

/* The number in a file that says who holds something; 0: there is none. */
pid_t rootless_read_pid(const char *path);

/* Inside: holder and pasta end with the instance. Where there are none it is no error. */
void rootless_end(const struct instance *instance);

#endif
