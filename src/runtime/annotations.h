/*
 * Annotations that change what the runtime does: crun's. Others are only passed on.
 */
#ifndef RUNTIME_ANNOTATIONS_H
#define RUNTIME_ANNOTATIONS_H

#include <schema/json.h>

#include <base/error.h>

/* The host's files that get the hooks' output (hooks.h). */
#define ANNOTATION_HOOKS_STDOUT "run.oci.hooks.stdout"
#define ANNOTATION_HOOKS_STDERR "run.oci.hooks.stderr"
/* Whatever it says: the program has the supplementary groups of the runtime's caller. */
#define ANNOTATION_KEEP_GROUPS "run.oci.keep_original_groups"
/* A socket that gets a pidfd of the container's process, as with --pidfd-socket. */
#define ANNOTATION_PIDFD_RECEIVER "run.oci.pidfd_receiver"
/* Not "0": system calls of the profile that libseccomp does not know are an error. */
#define ANNOTATION_SECCOMP_FAIL "run.oci.seccomp_fail_unknown_syscall"

/* Which of mount(8)'s options linux.mountLabel becomes: context, fscontext, defcontext or
 * rootcontext. */
#define ANNOTATION_CONTEXT_TYPE "run.oci.mount_context_type"
/* linux.seccomp.listenerPath where there is none. */
#define ANNOTATION_SECCOMP_RECEIVER "run.oci.seccomp.receiver"
/* On v2, a cgroup below the scope that systemd makes, where the container's processes are. */
#define ANNOTATION_SUBGROUP "run.oci.systemd.subgroup"
/* On v2, a further one below that is the container's own to divide up; its limits stay above. */
#define ANNOTATION_DELEGATE "run.oci.delegate-cgroup"
/* These two are runc's. A file with settings for criu, which win over ours. */
#define ANNOTATION_CRIU_CONFIG "org.criu.config"
/* Properties of the scope that systemd makes, by what is behind this. */
#define ANNOTATION_SYSTEMD_PROPERTY "org.systemd.property."

/* All of them, for the features document; a full stop at the end: a prefix. NULL-terminated. */
extern char *const annotation_names[];

struct oci_config;

/* Errors of what they say. */
int annotations_check(const struct oci_config *config, struct error *err);

/* Puts what stands for a member of the configuration there. */
void annotations_apply(struct oci_config *config);

/* NULL when it is not there. annotations may be NULL. Borrowed. */
const char *annotation_value(const struct json_string_map *annotations, const char *name);

#endif
