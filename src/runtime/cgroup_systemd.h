/*
 * Cgroups that systemd makes: a scope per container (systemd.scope(5)), asked for over D-Bus.
 *
 * systemd owns the unit and its cgroup; what it has properties for is set through it, so that it
 * does not undo it, and then everything is written to the control files too, as the backends of
 * cgroup.h do. A scope is never without a process: it is made when the container's process is there
 * already (container_cgroup.h).
 *
 * The D-Bus part is the program cloche-runtime-systemd, executed by these functions only.
 */
#ifndef RUNTIME_CGROUP_SYSTEMD_H
#define RUNTIME_CGROUP_SYSTEMD_H

#include <base/buffer.h>

#include "cgroup.h"

struct device_rule;
struct oci_config;

/* In place of cgroup_init. path: "SLICE:PREFIX:NAME" for the scope PREFIX-NAME.scope; an empty
 * slice is systemd's default for the caller: system.slice, for users user.slice; NULL: the scope is
 * cloche-ID.scope. Nothing is made yet. -ENOTSUP when systemd does not run here. */
int cgroup_systemd_init(struct cgroup *cgroup, const char *path, const char *id, struct error *err);

/* Starts the scope with the process in it and sets all limits. cgroup->path is what systemd says
 * from then on. */
int cgroup_systemd_start(struct cgroup *cgroup, pid_t pid, const struct oci_config *config,
                         struct error *err);

/* Before the control files are written, for a scope that is there. */
int cgroup_systemd_set(struct cgroup *cgroup, const struct oci_resources *resources,
                       struct error *err);

int cgroup_systemd_set_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                               struct error *err);

/* Stops the scope, and lets systemd forget it. Processes in it are to be dead: else systemd waits
 * for them. */
int cgroup_systemd_stop(struct cgroup *cgroup, struct error *err);

/* Moves a process into the scope: for callers who may not write to its cgroup.procs. */
int cgroup_systemd_attach(const struct cgroup *cgroup, pid_t pid, struct error *err);

/* --- shared by its two files ------------------------------------------------------------------ */

/* Appends records "MIN-VERSION NAME VALUE" NUL, as cloche-runtime-systemd reads them. */
int systemd_unit_properties(const struct cgroup *cgroup, const struct oci_config *config,
                            struct buffer *out, struct error *err);
int systemd_resource_properties(const struct cgroup *cgroup, const struct oci_resources *resources,
                                struct buffer *out, struct error *err);
void systemd_device_properties(const struct cgroup *cgroup, const struct device_rule *rules,
                               size_t count, struct buffer *out);

#endif
