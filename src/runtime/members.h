/*
 * The processes of a container, also of one without a cgroup.
 */
#ifndef RUNTIME_MEMBERS_H
#define RUNTIME_MEMBERS_H

#include <sys/types.h>

#include <base/error.h>

#include "state.h"

/* By its cgroup; where there is none by its pid namespace, and where it has neither of its own only
 * its first process is known. ret is owned by the caller. */
int members_list(const struct stored *stored, pid_t **ret, size_t *ret_count, struct error *err);

/* Sends a signal to all of them. */
int members_signal(const struct stored *stored, int signal, struct error *err);

#endif
