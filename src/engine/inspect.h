/*
 * What the engine tells of containers.
 */
#ifndef ENGINE_INSPECT_H
#define ENGINE_INSPECT_H

#include <schema/management.h>

struct container;

/* created, running, paused ...: static. */
const char *inspect_state(const struct container *container);

/* As docker shows it: "" for what is no bind. Borrowed. */
const char *inspect_propagation(const struct api_mount *mount);

/* A line of `ps`, without sizes. Owned by the caller. */
struct api_container_summary *inspect_summary(const struct container *container);
/* What only some ask for. */
struct api_container_summary_details *inspect_details(const struct container *container);

/* Its places in networks. Owned by the caller. */
struct api_container_endpoint **inspect_endpoints(const struct container *container,
                                                  size_t *ret_count);
/* The same with what is published. */
struct api_container_network *inspect_network(const struct container *container);

#endif
