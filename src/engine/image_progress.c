#include "image_progress.h"

#include <pthread.h>
#include <uv.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/image_worker.h>

#include "internal.h"

struct image_progress {
    uv_async_t async;
    engine_transfer_progress told;
    void *data;
    pthread_mutex_t mutex;                /* guards what follows */
    struct image_worker_progress **items; /* not told yet, in the order in which they came */
    size_t count;
};

/* Told without the lock, so that the worker's thread never waits for a client. */
static void tell_all(struct image_progress *progress)
{
    pthread_mutex_lock(&progress->mutex);
    struct image_worker_progress **items = steal_ptr(progress->items);
    size_t count = progress->count;
    progress->count = 0;
    pthread_mutex_unlock(&progress->mutex);

    for (size_t i = 0; i < count; i++) {
        progress->told(items[i]->item, items[i]->step, items[i]->bytes, items[i]->total,
                       progress->data);
        image_worker_progress_free(items[i]);
    }
    free(items);
}

static void on_async(uv_async_t *async)
{
    tell_all(async->data);
}

struct image_progress *image_progress_new(struct engine *engine, engine_transfer_progress told,
                                          void *data)
{
    if (!told)
        return NULL;
    struct image_progress *progress = xnew(struct image_progress);
    progress->told = told;
    progress->data = data;
    progress->async.data = progress;
    if (uv_async_init(engine->loop, &progress->async, on_async) < 0) {
        free(progress);
        return NULL;
    }
    pthread_mutex_init(&progress->mutex, NULL);
    return progress;
}

static struct image_worker_progress *item_of(struct image_progress *progress, const char *name)
{
    for (size_t i = 0; i < progress->count; i++)
        if (text_equal(progress->items[i]->item, name))
            return progress->items[i];
    progress->items =
        xrealloc(progress->items, progress->count + 1, sizeof(struct image_worker_progress *));
    struct image_worker_progress *item = xnew(struct image_worker_progress);
    item->item = xstrdup(name);
    return progress->items[progress->count++] = item;
}

void image_progress_take(const struct image_worker_progress *news, void *context)
{
    struct image_progress *progress = context;

    if (!progress || !news->item)
        return;
    pthread_mutex_lock(&progress->mutex);
    struct image_worker_progress *item = item_of(progress, news->item);
    free(item->step);
    item->step = xstrdup(news->step);
    item->bytes = news->bytes;
    item->total = news->total;
    pthread_mutex_unlock(&progress->mutex);
    uv_async_send(&progress->async);
}

static void on_closed(uv_handle_t *handle)
{
    struct image_progress *progress = handle->data;

    pthread_mutex_destroy(&progress->mutex);
    free(progress);
}

void image_progress_end(struct image_progress *progress)
{
    if (!progress)
        return;
    tell_all(progress);
    uv_close((uv_handle_t *)&progress->async, on_closed);
}
