/*
 * What a container's processes may do: capabilities, and the words of --security-opt. Pure.
 */
#ifndef ENGINE_SECURITY_H
#define ENGINE_SECURITY_H

#include <stdbool.h>

#include <base/error.h>
#include <schema/management.h>

/* The words of securityOpt, read. Nothing is owned. */
struct security_options {
    bool no_new_privileges;
    bool seccomp_unconfined;
    const char *seccomp;  /* a profile (JSON text); NULL: the default one, or none */
    const char *apparmor; /* NULL: none was named */
    bool paths_unconfined;
    bool writable_cgroups;
};

/* Takes "name=value" and "name:value". -EINVAL: a word that docker knows neither; -EOPNOTSUPP. */
int security_options_read(const struct api_container_spec *spec, struct security_options *ret,
                          struct error *err);

/* -EINVAL: capAdd or capDrop names what is no capability. */
int security_check_capabilities(const struct api_container_spec *spec, struct error *err);

/* Names (CAP_...) in the kernel's order: docker's default set, changed by capAdd and capDrop, or
 * all of them for privileged containers. Owned by the caller (strv_free). */
char **security_capabilities(const struct api_container_spec *spec);
char **security_all_capabilities(void);
/* Whether it is the set that seccomp_default was made for, or a smaller one. */
bool security_capabilities_are_default(const struct api_container_spec *spec);

/* The AppArmor profile of its processes: the one that was named, of_machine where none was (but for
 * privileged ones), NULL for none. */
const char *security_profile(const struct api_container_spec *spec,
                             const struct security_options *options, const char *of_machine);

/* Paths that its processes see as empty, and that they see but cannot write to: what was asked for,
 * docker's where nothing was. NULL: none. The spec's, or static. */
char *const *security_masked_paths(const struct api_container_spec *spec);
char *const *security_readonly_paths(const struct api_container_spec *spec);

#endif
