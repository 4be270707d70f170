/*
 * What the engine tells of containers.
 */
#ifndef ENGINE_INSPECT_H
#define ENGINE_INSPECT_H

#include <schema/management.h>

struct container;

/* created, running, paused ...: static. */
const char *inspect_state(const struct container *container);

/* A line of `ps`, without sizes. Owned by the caller. */
struct api_container_summary *inspect_summary(const struct container *container);

#endif
