/*
 * Published ports at [::1], which the program cloche-relay serves (relay/protocol.h): TCP ports
 * that are published at every address.
 */
#ifndef ENGINE_RELAY_H
#define ENGINE_RELAY_H

#include "internal.h"

/* What a running container has published now. A port of [::1] that somebody else has stays his. */
void relay_update(struct container *container);
/* It has ended. */
void relay_gone(const struct container *container);

/* remove: its socket, too, since the instance goes. */
void relay_close(struct engine *engine, bool remove);

#endif
