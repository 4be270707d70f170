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

/* Where the hooks' output goes: what a failing one said is in the error; with crun's annotations
 * run.oci.hooks.stdout and .stderr it is appended to files of the host instead. */
struct hook_output {
    int fds[2]; /* owned; of the annotations, else -1 */
};

#define HOOK_OUTPUT_INIT                                                                           \
    {                                                                                              \
        {                                                                                          \
            -1, -1                                                                                 \
        }                                                                                          \
    }

/* Opens the files of the annotations (may be NULL). To be called on the host. */
int hook_output_open(struct hook_output *output, const struct json_string_map *annotations,
                     struct error *err);
void hook_output_finish(struct hook_output *output);

struct hook_call {
    const char *kind; /* names the list in errors */
    struct oci_hook *const *hooks;
    size_t count;
    const char *state;     /* on standard input */
    const char *directory; /* working directory; NULL: the caller's */
    const struct hook_output *output;
};

/* Runs them one after another in the caller's namespaces. Blocks until each has ended, and kills at
 * its timeout the hook and what it started. The first failure ends it, with runc's text. */
int hooks_run(const struct hook_call *call, struct error *err);

/* All of them even when some fail; the failures become warnings, with crun's text (poststop). */
void hooks_run_all(const struct hook_call *call, char ***warnings);

#endif
