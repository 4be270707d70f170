/*
 * Annotations that change what the runtime does: crun's. Others are only passed on.
 */
#ifndef RUNTIME_ANNOTATIONS_H
#define RUNTIME_ANNOTATIONS_H

#include <schema/json.h>

/* The host's files that get the hooks' output (hooks.h). */
#define ANNOTATION_HOOKS_STDOUT "run.oci.hooks.stdout"
#define ANNOTATION_HOOKS_STDERR "run.oci.hooks.stderr"
/* Whatever it says: the program has the supplementary groups of the runtime's caller. */
#define ANNOTATION_KEEP_GROUPS "run.oci.keep_original_groups"
/* A socket that gets a pidfd of the container's process, as with --pidfd-socket. */
#define ANNOTATION_PIDFD_RECEIVER "run.oci.pidfd_receiver"
/* Not "0": system calls of the profile that libseccomp does not know are an error. */
#define ANNOTATION_SECCOMP_FAIL "run.oci.seccomp_fail_unknown_syscall"

/* All of them, for the features document; NULL-terminated. */
extern char *const annotation_names[];

/* NULL when it is not there. annotations may be NULL. Borrowed. */
const char *annotation_value(const struct json_string_map *annotations, const char *name);

#endif
