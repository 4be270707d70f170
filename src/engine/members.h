/*
 * The processes of a running container. Blocks for /proc or cgroupfs: worker threads.
 */
#ifndef ENGINE_MEMBERS_H
#define ENGINE_MEMBERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

/* Whose: those in the cgroup /PARENT/ID. Without cgroups (parent NULL) those in the PID namespace
 * of the first process; where that is the machine's, it and its descendants. */
struct members {
    const char *parent, *id;
    pid_t first;
};

/* At most `most` of them. Owned by the caller. */
int members_list(const struct members *members, size_t most, int64_t **ret, size_t *ret_count,
                 struct error *err);

#endif
