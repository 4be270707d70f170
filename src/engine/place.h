/*
 * A container's list of places: adding to it and taking from it. What others need is in internal.h.
 */
#ifndef ENGINE_PLACE_H
#define ENGINE_PLACE_H

#include "internal.h"

/* A place at the end of the list; wanted is copied, NULL: no wishes. The container's own. */
struct place *place_new(struct container *container, const char *network,
                        const struct api_endpoint *wanted);
void place_remove(struct container *container, struct place *place); /* frees it */

/* Finds its network, by ID, then by name. */
int place_resolve(struct container *container, struct place *place, struct error *err);

#endif
