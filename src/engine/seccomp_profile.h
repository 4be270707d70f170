/*
 * The default system call filter, generated at build time from
 * contrib/profiles/seccomp-default.json for the machine that is built for.
 */
#ifndef ENGINE_SECCOMP_PROFILE_H
#define ENGINE_SECCOMP_PROFILE_H

/* JSON text for linux.seccomp of a config.json: with none of the capabilities that the profile
 * speaks of. */
extern const char seccomp_default[];
/* The profile itself (runtime-spec/seccomp-profile.json). */
extern const char seccomp_default_source[];

#endif
