/* The end of what engine/garbage.h begins. */
#ifndef ENGINE_GARBAGE_TIMER_H
#define ENGINE_GARBAGE_TIMER_H

struct engine;

/* With the engine: no more collections begin. */
void garbage_end(struct engine *engine);

#endif
