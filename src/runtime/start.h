#ifndef RUNTIME_START_H
#define RUNTIME_START_H

#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include <sys/types.h>

/* Hooks that run when the program has been started. */
void start_run_hooks(const struct oci_config *config, const struct runtime_state *state, pid_t pid,
                     char ***warnings);

#endif
