/*
 * CPUs and memory nodes that a container is confined to: docker's rules for them.
 */
#ifndef ENGINE_CPUSETS_H
#define ENGINE_CPUSETS_H

#include <base/error.h>
#include <schema/management.h>

/* -EINVAL: a list is none ("0-2,5"), or names what this machine has not, by /sys. */
int cpusets_check(const struct api_resources *resources, struct error *err);

/* The same of one list. Pure. wanted: NULL or "": whatever there is; there: "0-3", NULL: not known.
 * kind: "cpus" or "mems". */
int cpusets_compare(const char *kind, const char *wanted, const char *there, struct error *err);

#endif
