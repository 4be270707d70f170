/*
 * linux.intelRdt: a share of the cache and of the memory bandwidth, through the resctrl file system
 * (config-linux.md, "Intel RDT"; Documentation/filesystems/resctrl.rst of the kernel).
 *
 * A group is a folder of it: closID names one that several containers may share and that is not
 * ours to remove; without it the container has one of its own, with its ID for a name.
 */
#ifndef RUNTIME_INTEL_RDT_H
#define RUNTIME_INTEL_RDT_H

#include <stdbool.h>
#include <sys/types.h>

#include <schema/json.h>
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

/* Before it is joined: whether the group that would be the container's own is there already, which
 * is then not ours to remove. config may be NULL. */
bool intel_rdt_is_there(const struct oci_intel_rdt *config, const char *id);

/* What the container has for itself: its group, or its monitoring group in another's. What is gone
 * already is no failure. */
void intel_rdt_remove(const struct oci_intel_rdt *config, const char *id, bool was_there);

/* Other schemata for the group of a container that is there; of a shared one for all in it.
 * l3_cache and bandwidth may be NULL: as they are. config is NULL where the container was made
 * without: -EINVAL. -ENOTSUP for what this machine does not have. */
int intel_rdt_update(const struct oci_intel_rdt *config, const char *id, const char *l3_cache,
                     const char *bandwidth, struct error *err);

/* The members of "intel_rdt" in `runc events --stats` (runc's types/events.go): none where there is
 * no resctrl, or config is NULL. */
void intel_rdt_stats(const struct oci_intel_rdt *config, const char *id,
                     struct json_writer *writer);

/* The same below a folder that is, or stands for, the file system; root_fd -1: there is none. */
int intel_rdt_update_at(int root_fd, const struct oci_intel_rdt *config, const char *id,
                        const char *l3_cache, const char *bandwidth, struct error *err);
void intel_rdt_stats_at(int root_fd, const struct oci_intel_rdt *config, const char *id,
                        struct json_writer *writer);

/* The file system's root; -ENOTSUP. */
int intel_rdt_open(struct error *err);
int intel_rdt_open_group_at(int root_fd, const struct oci_intel_rdt *config, const char *id);

/* The lines for the file "schemata": l3CacheSchema without lines about bandwidth, memBwSchema, then
 * schemata, which wins over both (the kernel takes the last). */
void intel_rdt_schemata(const struct oci_intel_rdt *config, struct buffer *out);

/* Does a group with this text in its file have what each line of wanted asks for? Order, leading
 * zeros, case and white space do not matter, nor lines and domains that wanted does not name. */
bool intel_rdt_matches(const char *wanted, const char *existing);

#endif
