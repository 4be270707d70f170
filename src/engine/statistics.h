/*
 * What the kernel counts for a container. Blocks for cgroupfs and /proc: worker threads.
 */
#ifndef ENGINE_STATISTICS_H
#define ENGINE_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

#include <schema/management.h>

/* Where to look. Texts are the owner's. */
struct statistics_source {
    char *parent; /* cgroup: /PARENT/ID */
    char *id;
    char *name;
    int64_t pid;        /* of its init; 0: it does not run */
    int64_t started_at; /* nanoseconds since 1970 */
    int32_t restart_count;
    bool own_network;
    bool v2;
};

/* Owned by the caller. What cannot be read is 0 or absent. */
struct api_container_statistics *statistics_of(const struct statistics_source *source);

/* CPU time of all CPUs since the boot, nanoseconds, idle or not, and their number. */
void statistics_machine(uint64_t *ret_usage, uint32_t *ret_cpus);

#endif
