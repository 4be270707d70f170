/*
 * container.list:
 *
 *     engine_container_list   which are named
 *     list_work               only for `ancestor`: the images that descend from those (worker)
 *     make_list               the table, filters applied
 *     sizes_work              only for `size`: what their files take (worker)
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "filters.h"
#include "inspect.h"
#include "internal.h"

struct list_call {
    uv_work_t work;
    struct engine *engine;
    struct api_container_list *which; /* owned */
    char **named;                     /* owned; IDs; NULL: not by name */
    char **images;                    /* owned; what `ancestor` stands for */
    struct api_container_summaries *list;
    engine_list_sees sees;
    engine_image_done done;
    void *data;
    struct error err;
};

static void finish(struct list_call *call)
{
    call->done(call->err.code ? &call->err : NULL, call->list, call->data);
    api_container_list_free(call->which);
    api_container_summaries_free(call->list);
    strv_free(call->named);
    strv_free(call->images);
    error_finish(&call->err);
    free(call);
}

/* ---- ancestors ---- */

static bool descends(const struct store_image *image, const struct store_image *from)
{
    size_t i = 0;

    if (text_equal(image->id, from->id))
        return true;
    if (!text_equal(image->base, from->base) && from->base)
        return false;
    for (; from->diff_ids && from->diff_ids[i]; i++) {
        if (!image->diff_ids || !image->diff_ids[i] ||
            !text_equal(image->diff_ids[i], from->diff_ids[i]))
            return false;
    }
    return i > 0;
}

static void images_work(uv_work_t *work)
{
    struct list_call *call = work->data;
    const struct api_container_filters *filters = call->which->filters;
    struct store *store = call->engine->store;
    struct store_image **images = NULL;
    size_t count = 0;

    int r = store_image_list(store, &images, &count, &call->err);
    for (size_t i = 0; r >= 0 && i < filters->ancestor_count; i++) {
        _cleanup_store_image_ struct store_image *from = NULL;
        /* What there is no image of nobody descends from. */
        if (store_image_find(store, filters->ancestor[i], &from, NULL) < 0)
            continue;
        for (size_t j = 0; j < count; j++) {
            if (descends(images[j], from))
                strv_append(&call->images, images[j]->id);
        }
    }
    if (r >= 0)
        store_image_list_free(images, count);
    engine_settle(&call->err, r);
}

/* ---- sizes ---- */

static void sizes_work(uv_work_t *work)
{
    struct list_call *call = work->data;
    struct store *store = call->engine->store;

    for (size_t i = 0; i < call->list->containers_count; i++) {
        struct api_container_summary *one = call->list->containers[i];
        _cleanup_store_image_ struct store_image *image = NULL;
        uint64_t used = 0;
        /* One that was removed meanwhile has none. */
        if (store_snapshot_usage(store, one->id, &used, NULL) < 0)
            continue;
        store_image_find(store, one->image_id, &image, NULL);
        one->size_rw = (int64_t)used;
        one->size_root_fs = (int64_t)(used + (image ? image->size : 0));
        one->has_size_rw = one->has_size_root_fs = true;
    }
}

static void sizes_done(uv_work_t *work, int status)
{
    struct list_call *call = work->data;

    call->engine->image_calls--;
    finish(call);
}

/* ---- the list ---- */

static bool is_wanted(const struct list_call *call, const struct container *container)
{
    const struct api_container_list *which = call->which;

    if (container->hidden || (call->named && !strv_contains(call->named, container->id)) ||
        (call->sees && !call->sees(container, call->data)))
        return false;
    return which->all || which->limit > 0 || call->named ||
           container_filter_has_status(which->filters) || container->state == CONTAINER_RUNNING ||
           container->state == CONTAINER_RESTARTING;
}

static int make_list(struct list_call *call, struct error *err)
{
    _cleanup_container_filter_ struct container_filter *filter = NULL;
    const struct engine *engine = call->engine;

    int r = container_filter_create(call->engine, call->which->filters, call->images, &filter, err);
    if (r < 0)
        return r;
    struct api_container_summaries *list = xnew(struct api_container_summaries);
    list->containers = xnew_array(struct api_container_summary *, engine->containers_count + 1);
    size_t limit = call->which->limit > 0 ? (size_t)call->which->limit : SIZE_MAX;
    for (size_t i = engine->containers_count; i > 0 && list->containers_count < limit; i--) {
        const struct container *container = engine->containers[i - 1];
        if (!is_wanted(call, container) ||
            !container_filter_matches(filter, container, inspect_state(container)))
            continue;
        struct api_container_summary *one = inspect_summary(container);
        one->details = call->which->details ? inspect_details(container) : NULL;
        list->containers[list->containers_count++] = one;
    }
    call->list = list;
    return 0;
}

static void list_now(struct list_call *call)
{
    engine_settle(&call->err, make_list(call, &call->err));
    if (call->err.code || !call->which->size || call->engine->removing) {
        finish(call);
        return;
    }
    call->engine->image_calls++;
    uv_queue_work(call->engine->loop, &call->work, sizes_work, sizes_done);
}

static void images_done(uv_work_t *work, int status)
{
    struct list_call *call = work->data;

    call->engine->image_calls--;
    if (call->err.code)
        finish(call);
    else
        list_now(call);
}

static struct api_container_list *copy_list(const struct api_container_list *which)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_container_list *copy = NULL;

    api_container_list_write(which, &text);
    if (api_container_list_parse(text.data, text.length, NULL, &copy, NULL) < 0)
        copy = xnew(struct api_container_list);
    return copy;
}

static int find_named(struct list_call *call, struct error *err)
{
    for (size_t i = 0; i < call->which->ids_count; i++) {
        struct container *container;
        int r = engine_find(call->engine, call->which->ids[i], &container, err);
        if (r < 0)
            return r;
        strv_append(&call->named, container->id);
    }
    if (call->which->ids && !call->named)
        call->named = xnew_array(char *, 1);
    return 0;
}

void engine_container_list(struct engine *engine, const struct api_container_list *which,
                           engine_list_sees sees, engine_image_done done, void *data)
{
    struct list_call *call = xnew(struct list_call);

    call->work.data = call;
    call->engine = engine;
    call->which = copy_list(which);
    call->sees = sees;
    call->done = done;
    call->data = data;
    engine_settle(&call->err, find_named(call, &call->err));
    if (call->err.code) {
        finish(call);
    } else if (which->filters && which->filters->ancestor_count && !engine->removing) {
        engine->image_calls++;
        uv_queue_work(engine->loop, &call->work, images_work, images_done);
    } else {
        list_now(call);
    }
}
