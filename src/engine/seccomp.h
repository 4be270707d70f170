/*
 * System call filters as docker's users write them (runtime-spec/seccomp-profile.json), made into
 * linux.seccomp of the runtime specification.
 */
#ifndef ENGINE_SECCOMP_H
#define ENGINE_SECCOMP_H

#include <base/buffer.h>
#include <base/error.h>

enum { SECCOMP_RULES_MAX = 4096 }; /* of a profile */

/* Appends the filter that `profile` (JSON text) is for a process with these capabilities on this
 * machine. -EINVAL: it is none. Pure but for uname(2). */
int seccomp_resolve(const char *profile, char *const *capabilities, struct buffer *out,
                    struct error *err);

#endif
