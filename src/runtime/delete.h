#ifndef RUNTIME_DELETE_H
#define RUNTIME_DELETE_H

#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include <base/error.h>

#include "cgroup.h"

/* What delete and the end of a foreground run share: removes the cgroup with whoever is left in it
 * and the state, runs the poststop hooks. config and state may be NULL (no hooks then). */
int delete_leftovers(const char *root, const char *id, struct cgroup *cgroup,
                     const struct oci_config *config, const struct runtime_state *state,
                     char ***warnings, struct error *err);

#endif
