/*
 * Names of containers on networks that were made, and the program that answers for them.
 */
#ifndef ENGINE_NAMESERVER_H
#define ENGINE_NAMESERVER_H

#include "internal.h"

/* Whether containers find each other by name there: everywhere but on the engine's own networks,
 * and on those of plug-ins that name a name server or give no IPv4 address. */
bool place_has_names(const struct place *place);
/* All its names there, the best known first; owned by the caller. */
char **place_names(const struct container *container, const struct place *place);

bool nameserver_is_needed(const struct container *container);
/* Opens the sockets in a container's new network before it runs, when it needs them. 0.3 ms. */
int nameserver_prepare(struct container *container, int netns_fd, struct error *err);
/* Hands them over, with all names of the container, once it has a monitor. */
void nameserver_start(struct container *container);
void nameserver_drop(struct container *container);
/* Both for a container that runs already. */
void nameserver_adopt(struct container *container);

/* What has changed. */
void nameserver_places(const struct container *container);
void nameserver_place(const struct container *container, const struct place *place);
void nameserver_leave(const struct container *container, const struct place *place);
void nameserver_gone(const struct container *container);
/* It was connected or disconnected: whether it may ask others. */
void nameserver_policy(const struct container *container);

/* remove: its socket, too, since the instance goes. */
void nameserver_close(struct engine *engine, bool remove);

#endif
