/*
 * Containers that stand still.
 */
#ifndef ENGINE_PAUSE_H
#define ENGINE_PAUSE_H

#include <stdbool.h>

struct container;

bool container_is_paused(const struct container *container);

/* Lets go what stands still because a signal to end it is on its way: on cgroups v1 not even
 * SIGKILL reaches a frozen process. Nothing where it is not paused. */
void container_end_pause(struct container *container);

#endif
