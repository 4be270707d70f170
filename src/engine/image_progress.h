/*
 * How far an image worker is that a thread waits for: what it says comes to the loop, of each item
 * the latest, so that a loop that has other things to do is not told of all of it.
 */
#ifndef ENGINE_IMAGE_PROGRESS_H
#define ENGINE_IMAGE_PROGRESS_H

#include <engine/registry.h>

struct image_worker_progress;
struct image_progress;

/* Loop's thread; told is called there, for items only. NULL when told is, and when there is no room
 * for one more: nothing is told then. */
struct image_progress *image_progress_new(struct engine *engine, engine_transfer_progress told,
                                          void *data);

/* Any thread. For image_worker_run(), progress being its context (NULL allowed). */
void image_progress_take(const struct image_worker_progress *news, void *progress);

/* Loop's thread: tells what was not told yet, and frees it. NULL is nothing. */
void image_progress_end(struct image_progress *progress);

#endif
