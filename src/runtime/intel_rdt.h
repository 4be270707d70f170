/*
 * linux.intelRdt: a share of the cache and of the memory bandwidth, through the resctrl file system
 * (config-linux.md, "Intel RDT"; Documentation/filesystems/resctrl.rst of the kernel).
 *
 * A group is a folder of it: closID names one that several containers may share and that is not
 * ours to remove; without it the container has one of its own, with its ID for a name.
 */
#ifndef RUNTIME_INTEL_RDT_H
#define RUNTIME_INTEL_RDT_H

#include <sys/types.h>

#include <schema/oci_config.h>

#include <base/buffer.h>
#include <base/error.h>

#define INTEL_RDT_ROOT "/sys/fs/resctrl"

/* Refuses by name what cannot be, and all of it where resctrl is not mounted. config may be NULL.
 */
int intel_rdt_check(const struct oci_intel_rdt *config, struct error *err);

/* Makes the group, if need be, and puts the process there. */
int intel_rdt_join(const struct oci_intel_rdt *config, const char *id, pid_t pid,
                   struct error *err);

/* A further process of the container. */
int intel_rdt_add(const struct oci_intel_rdt *config, const char *id, pid_t pid, struct error *err);

/* What the container has for itself: its group, or its monitoring group in a shared one. What is
 * gone already is no failure. */
void intel_rdt_remove(const struct oci_intel_rdt *config, const char *id);

/* The lines for the file "schemata": l3CacheSchema without lines about bandwidth, memBwSchema, then
 * schemata, which wins over both (the kernel takes the last). */
void intel_rdt_schemata(const struct oci_intel_rdt *config, struct buffer *out);

/* Does a group with this text in its file have what each line of wanted asks for? Order, leading
 * zeros, case and white space do not matter, nor lines and domains that wanted does not name. */
bool intel_rdt_matches(const char *wanted, const char *existing);

#endif
