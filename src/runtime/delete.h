#ifndef RUNTIME_DELETE_H
#define RUNTIME_DELETE_H

#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include <base/error.h>

#include "cgroup.h"
#include "container.h"
#include "state.h"

/* What delete and the end of a foreground run share: removes the cgroup with whoever is left in it
 * and the state, runs the poststop hooks. config and state may be NULL (no hooks then). */
int delete_leftovers(const char *root, const char *id, struct cgroup *cgroup,
                     const struct oci_config *config, const struct runtime_state *state,
                     char ***warnings, struct error *err);

/* The same for a container without hooks that this process ran itself (container->unwatched). */
int delete_unwatched(const char *root, struct container *container,
                     const struct runtime_state *state, struct error *err);

/* The whole of delete. force: kills first. */
int delete_stored(const char *root, const char *id, struct stored *stored, bool force,
                  char ***warnings, struct error *err);

/* The poststop hooks. Failures become warnings. */
void delete_run_hooks(const struct oci_config *config, const struct runtime_state *state,
                      char ***warnings);

#endif
