/*
 * Work on a thread of its own: for what waits for a client, an image worker or a whole flush, and
 * for what must not queue behind such. libuv's few threads (uv_queue_work) are for short calls.
 */
#ifndef ENGINE_ERRAND_H
#define ENGINE_ERRAND_H

#include <uv.h>

#include "internal.h"

/* More than this many wait their turn. More than clients can make wait for themselves (archives,
 * transfers, builds), so that what cleans up is never behind these alone. */
enum { ERRANDS_MAX = 256 };

/* As uv_queue_work(): run on the other thread, done afterwards on the loop's. Should no thread be
 * had, one of libuv's does it. */
void errand_run(struct engine *engine, uv_work_t *work, uv_work_cb run, uv_after_work_cb done);

#endif
