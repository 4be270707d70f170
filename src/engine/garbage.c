/*
 * Garbage by itself: each time the timer rings, steps of builds and images that are over their
 * limits go, and then what no record refers to.
 */
#include <engine/garbage.h>

#include <errno.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <base/text.h>
#include <store/build.h>

#include "errand.h"
#include "events.h"
#include "garbage_timer.h"
#include "internal.h"

enum { EVERY_SECONDS = 3600 };
#define CACHE_BYTES (20ULL << 30)
#define SECOND 1000000000LL

struct garbage {
    uv_timer_t timer;
    struct engine *engine; /* NULL: it has ended */
    struct garbage_settings *settings;
};

struct collection {
    uv_work_t work;
    struct garbage *garbage;
    struct engine *engine;
    struct garbage_settings limits; /* a copy: numbers only */
    struct store_removed removed;   /* images */
    uint64_t reclaimed;             /* of steps */
    struct error err;
};

/* --- on the other thread ---------------------------------------------------------------------- */

static int64_t ago(uint32_t seconds)
{
    return clock_now() - (int64_t)seconds * SECOND;
}

static int prune_steps(struct collection *collection, const struct store_prune *how,
                       struct error *err)
{
    struct store_pruned pruned = {0};
    int r = store_build_prune(collection->engine->store, how, &pruned, err);

    collection->reclaimed += pruned.reclaimed;
    store_pruned_finish(&pruned);
    return r;
}

static int collect(struct collection *collection, struct error *err)
{
    const struct garbage_settings *limits = &collection->limits;
    struct store *store = collection->engine->store;
    const struct store_prune large = {.steps_only = true,
                                      .keep = limits->has_cache_max_bytes ? limits->cache_max_bytes
                                                                          : CACHE_BYTES};
    int r = 0;

    if (limits->has_cache_max_seconds) {
        const struct store_prune old = {.steps_only = true,
                                        .unused_since = ago(limits->cache_max_seconds)};
        r = prune_steps(collection, &old, err);
    }
    if (r >= 0)
        r = prune_steps(collection, &large, err);
    if (r >= 0 && limits->has_unused_max_seconds)
        r = store_image_expire(store, ago(limits->unused_max_seconds), true, &collection->removed,
                               err);
    if (r >= 0 && limits->has_unnamed_max_seconds)
        r = store_image_expire(store, ago(limits->unnamed_max_seconds), false, &collection->removed,
                               err);
    return r < 0 ? r : store_collect(store, err);
}

static void collect_work(uv_work_t *work)
{
    struct collection *collection = work->data;

    engine_settle(&collection->err, collect(collection, &collection->err));
}

/* --- on the loop ------------------------------------------------------------------------------ */

static void start_timer(struct garbage *garbage);

static void tell(const struct collection *collection)
{
    char *const *deleted = collection->removed.deleted;
    size_t images = strv_length(collection->removed.deleted);

    if (collection->err.code < 0)
        log_failure(LOG_ERROR, &collection->err, "garbage is not collected");
    if (images || collection->reclaimed)
        log_info("garbage: %zu images and their layers, %llu bytes of steps of builds", images,
                 (unsigned long long)collection->reclaimed);
    for (; deleted && *deleted; deleted++)
        event_image(collection->engine, "delete", *deleted, NULL);
}

static void collect_done(uv_work_t *work, int status)
{
    struct collection *collection = work->data;

    collection->engine->image_calls--;
    if (!collection->engine->ending) {
        tell(collection);
        start_timer(collection->garbage);
    }
    store_removed_finish(&collection->removed);
    error_finish(&collection->err);
    free(collection);
}

static void on_timer(uv_timer_t *timer)
{
    struct garbage *garbage = timer->data;
    struct engine *engine = garbage->engine;

    if (engine->removing || !engine->store) { /* it may yet be refused; or fail without a store */
        start_timer(garbage);
        return;
    }
    struct collection *collection = xnew(struct collection);
    collection->work.data = collection;
    collection->garbage = garbage;
    collection->engine = engine;
    if (garbage->settings)
        collection->limits = *garbage->settings;
    engine->image_calls++;
    errand_run(engine, &collection->work, collect_work, collect_done);
}

static void start_timer(struct garbage *garbage)
{
    const struct garbage_settings *settings = garbage->settings;
    uint64_t seconds =
        settings && settings->has_every_seconds ? settings->every_seconds : EVERY_SECONDS;

    uv_timer_start(&garbage->timer, on_timer, seconds * 1000, 0);
}

void engine_set_garbage(struct engine *engine, struct garbage_settings *settings)
{
    struct garbage *garbage = engine->garbage;

    if (!garbage) {
        garbage = engine->garbage = xnew(struct garbage);
        garbage->engine = engine;
        garbage->timer.data = garbage;
        uv_timer_init(engine->loop, &garbage->timer);
    }
    garbage_settings_free(garbage->settings);
    garbage->settings = settings;
    start_timer(garbage);
}

static void on_closed(uv_handle_t *handle)
{
    struct garbage *garbage = handle->data;

    garbage_settings_free(garbage->settings);
    free(garbage);
}

void garbage_end(struct engine *engine)
{
    struct garbage *garbage = steal_ptr(engine->garbage);

    if (garbage)
        uv_close((uv_handle_t *)&garbage->timer, on_closed);
}
