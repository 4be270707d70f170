/*
 * What goes from the store by itself: on a timer, on a thread of its own.
 */
#ifndef ENGINE_GARBAGE_H
#define ENGINE_GARBAGE_H

#include <engine/engine.h>
#include <schema/garbage.h>

/* How often, and what. Taken over; NULL: as the schema says for what is absent. Loop's thread. */
void engine_set_garbage(struct engine *engine, struct garbage_settings *settings);

#endif
