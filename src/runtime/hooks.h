/*
 * Hooks: programs of the configuration at six points of a container's life (config.md,
 * "POSIX-platform Hooks").
 */
#ifndef RUNTIME_HOOKS_H
#define RUNTIME_HOOKS_H

#include <stddef.h>

#include <schema/oci_config.h>

#include <base/error.h>

/* The six names, in the order of a container's life; NULL-terminated. */
extern char *const hook_kinds[];

/* Runs them one after another in the caller's namespaces, with state on standard input. The first
 * failure ends it. kind names the list in errors. */
int hooks_run(const char *kind, struct oci_hook *const *hooks, size_t count, const char *state,
              struct error *err);

/* All of them even when some fail; the failures become warnings (poststart, poststop). */
void hooks_run_all(const char *kind, struct oci_hook *const *hooks, size_t count, const char *state,
                   char ***warnings);

#endif
