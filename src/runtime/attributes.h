/*
 * What the kernel keeps of a process besides its rights: scheduler, I/O priority, CPU affinity,
 * memory policy and personality (config.md, "Process" and "Linux": "memoryPolicy", "personality").
 * A process without any of them costs a look at the pointers.
 */
#ifndef RUNTIME_ATTRIBUTES_H
#define RUNTIME_ATTRIBUTES_H

#include <sys/types.h>

#include <schema/oci_config.h>

#include <base/error.h>

/* Before anything is done: whether the kernel could understand them at all. linux may be NULL. */
int attributes_check(const struct oci_process *process, struct error *err);
int attributes_check_linux(const struct oci_linux *linux, struct error *err);

/* In the parent, which may have privileges that the child gave up in its user namespace: scheduler
 * and I/O priority of pid. */
int attributes_set(pid_t pid, const struct oci_process *process, const struct oci_linux *linux,
                   struct error *err);

/* In the child, for itself: memory policy and personality. linux may be NULL. */
int attributes_adopt(const struct oci_linux *linux, struct error *err);

/* For the caller itself. list: as in execCPUAffinity; NULL: every CPU that the cgroup has, which
 * does not fail. field names the list in messages. */
int attributes_set_affinity(const char *field, const char *list, struct error *err);

/* The list as a number, "0x3". Owned by the caller. */
char *attributes_affinity_mask(const char *list);

/* The names of memoryPolicy's modes and flags, for the features document; NULL behind the last. */
const char *attributes_memory_mode(size_t i);
const char *attributes_memory_flag(size_t i);

#endif
