/*
 * The program cloche-relay (relay/protocol.h), which keeps the sockets of published ports while no
 * daemon lives, and serves [::1], where rules do not reach: TCP and UDP ports that are published at
 * every address.
 */
#ifndef ENGINE_RELAY_H
#define ENGINE_RELAY_H

#include "internal.h"

/* What a running container has published now. A port of [::1] that somebody else has stays his. */
void relay_update(struct container *container);
/* It has ended. */
void relay_gone(struct container *container);
/* Before its ports are taken back: no socket of theirs is an obstacle any more. */
void relay_release(struct container *container);
/* The daemon ends, or the container is removed: our descriptors only. */
void relay_forget(struct container *container);

/* At the daemon's start, before it is told of ports: one that speaks an older version gives way to
 * ours. What is connected through it stays so. Blocks, for up to a few seconds. */
void relay_replace_old(struct engine *engine);

/* remove: its socket, too, since the instance goes. */
void relay_close(struct engine *engine, bool remove);

#endif
