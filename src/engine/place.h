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

/* Whether a network of that name is one of the built-in ones, which have no names of their own, and
 * the wishes for it ask for some: -EINVAL. */
int place_check_aliases(const char *network, const struct api_endpoint *wanted, struct error *err);
/* The same of all that a new container asks for. */
int places_check(const struct container *container, struct error *err);

#endif
