/*
 * The processes of a container as a table, as ps(1) has them. Blocks: worker threads.
 */
#ifndef ENGINE_PROCESSES_H
#define ENGINE_PROCESSES_H

#include <base/error.h>
#include <schema/management.h>

#include "members.h"

enum { PROCESSES_MAX = 65536, PS_OUTPUT_MAX = 16 * 1024 * 1024, PS_TIME_MS = 10000 };

/* The columns of `ps -ef`, read from /proc. Owned by the caller. */
int processes_list(const struct members *whose, struct api_processes **ret, struct error *err);

/* What the machine's ps says with these arguments of the same processes. -EOPNOTSUPP: there is no
 * ps; -EINVAL: it does not like them, or no column is PID. */
int processes_list_by_ps(const struct members *whose, char *const *arguments,
                         struct api_processes **ret, struct error *err);

/* Pure; for the tests. Keeps of ps's output the rows whose PID is one of pids. */
int processes_pick(char *output, const int64_t *pids, size_t count, struct api_processes **ret,
                   struct error *err);

#endif
