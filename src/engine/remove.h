#ifndef ENGINE_REMOVE_H
#define ENGINE_REMOVE_H

#include "internal.h"

/* Queues the removal of a container; force: SIGKILL first when it runs. done may be NULL. */
void remove_submit(struct container *container, bool force, engine_done done, void *data);

#endif
