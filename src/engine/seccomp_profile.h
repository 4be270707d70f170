/*
 * The default system call filter, as JSON text for linux.seccomp of a config.json. Generated at
 * build time from contrib/profiles/seccomp-default.json for the machine that is built for.
 */
#ifndef ENGINE_SECCOMP_PROFILE_H
#define ENGINE_SECCOMP_PROFILE_H

extern const char seccomp_profile[];

#endif
