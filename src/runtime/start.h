#ifndef RUNTIME_START_H
#define RUNTIME_START_H

#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include <base/error.h>

/* Hooks that run when the program has been started. When one fails the container is to be stopped
 * and deleted by the caller (runtime.md, "Lifecycle"). */
int start_run_hooks(const struct oci_config *config, const struct runtime_state *state,
                    struct error *err);

#endif
