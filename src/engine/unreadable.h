#ifndef ENGINE_UNREADABLE_H
#define ENGINE_UNREADABLE_H

#include "internal.h"

/* Reserves the addresses that a container without a readable record has, if it runs. After those of
 * all others were reserved. */
void unreadable_hold(struct container *container);
/* Ends its monitor, and then whatever else there is of it: container_ended() follows. */
void unreadable_kill(struct container *container);
/* It is removed. Others hold nothing by then. */
void unreadable_release(struct container *container);

#endif
