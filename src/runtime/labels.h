/*
 * Labels of the security modules: the AppArmor profile and the SELinux label that the program gets
 * when it is executed (config.md, "apparmorProfile", "selinuxLabel").
 */
#ifndef RUNTIME_LABELS_H
#define RUNTIME_LABELS_H

#include <stdbool.h>

#include <schema/oci_config.h>

#include <base/error.h>

/* Whether the host can do what is asked for: a label that would not be in force is an error. */
int labels_check(const struct oci_process *process, struct error *err);

/* linux.mountLabel without SELinux protects nothing and harms nothing: the mounts go without it,
 * with a line in the log (as crun's do; runc's kernel refuses the option). */
void labels_warn_of_mounts(const struct oci_linux *linux, char ***warnings);

/* The mount option that gives a new file system of this type its label; NULL where the kernel knows
 * better, without linux.mountLabel and without SELinux. option: its name; NULL: context. Owned by
 * the caller. */
char *labels_mount_option(const struct oci_linux *linux, const char *type, const char *option);

/* For mqueue, whose instance exists before it is mounted: labels the root of the mount. */
int labels_set_mount(int mount_fd, const struct oci_linux *linux, const char *type,
                     struct error *err);

/* SELinux is there and its file system is mounted. */
bool labels_selinux_enabled(void);

/* In the child, all for itself; proc_fd is the host's /proc, so that no mount of the container can
 * catch what is written (CVE-2019-16884). */

/* For the next execution. */
int labels_set_exec(int proc_fd, const struct oci_process *process, struct error *err);

/* SELinux label of the keys that are made from now on; NULL or "" ends it. */
int labels_set_keys(int proc_fd, const char *label, struct error *err);

#endif
