/*
 * container.list:
 *
 *     engine_container_list   which are named
 *     list_work               only for `ancestor`: the images that descend from those (worker)
 *     make_list               the table, filters applied: text at once, or
 *     sizes_work              only for `size`: what their files take (worker)
 *     answer                  who has this edition of the list is told no more than that
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "filters.h"
#include "inspect.h"
#include "internal.h"

enum {
    EDITION_DIGITS = 32,
    ANSWER_REST = 100,            /* bytes around the list, about */
    LISTED_MAX = 2 * 1024 * 1024, /* bytes of a list that is kept */
};

struct list_call {
    uv_work_t work;
    struct engine *engine;
    struct api_container_list *which;     /* owned */
    char **named;                         /* owned; IDs; NULL: not by name */
    char **images;                        /* owned; what `ancestor` stands for */
    struct api_container_summaries *list; /* owned; NULL: without sizes, it is text already */
    struct buffer text;                   /* owned; the array of containers */
    engine_list_sees sees;
    engine_list_done done;
    void *data;
    struct error err;
};

/* ---- editions ---- */

/* The last list of those who say what they know, word for word, and what was asked for. */
struct engine_listed {
    char edition[EDITION_DIGITS + 1];
    struct buffer question, text;
};

void engine_listed_free(struct engine_listed *listed)
{
    if (!listed)
        return;
    buffer_finish(&listed->question);
    buffer_finish(&listed->text);
    free(listed);
}

static bool is_same(const struct buffer *one, const struct buffer *other)
{
    return one->length == other->length && memcmp(one->data, other->data, one->length) == 0;
}

/* Takes the call's text over when it is news. */
static const struct engine_listed *find_edition(struct list_call *call)
{
    _cleanup_buffer_ struct buffer question = BUFFER_INIT;
    struct engine_listed **listed = &call->engine->listed;

    free(steal_ptr(call->which->known));
    api_container_list_write(call->which, &question);
    if (!*listed)
        *listed = xnew(struct engine_listed);
    if (is_same(&(*listed)->question, &question) && is_same(&(*listed)->text, &call->text))
        return *listed;
    buffer_finish(&(*listed)->question);
    buffer_finish(&(*listed)->text);
    (*listed)->question = question;
    (*listed)->text = call->text;
    question = call->text = (struct buffer)BUFFER_INIT;
    text_random_hex((*listed)->edition, EDITION_DIGITS);
    return *listed;
}

static void write_answer(const char *edition, const struct buffer *list, struct buffer *out)
{
    buffer_reserve(out, (list ? list->length : 0) + ANSWER_REST);
    buffer_append_char(out, '{');
    if (edition)
        buffer_printf(out, "\"edition\":\"%s\",", edition);
    if (!list)
        buffer_append_text(out, "\"unchanged\":true,");
    buffer_append_text(out, "\"containers\":");
    buffer_append(out, list ? list->data : "[]", list ? list->length : 2);
    buffer_append_char(out, '}');
}

static void answer(struct list_call *call)
{
    _cleanup_free_ char *known = xstrdup(call->which->known);
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    if (!known || call->list || call->text.length > LISTED_MAX) {
        write_answer(NULL, &call->text, &out);
    } else {
        const struct engine_listed *listed = find_edition(call);
        bool same = text_equal(listed->edition, known);
        write_answer(listed->edition, same ? NULL : &listed->text, &out);
    }
    call->done(NULL, &out, call->data);
}

static void finish(struct list_call *call)
{
    if (call->err.code)
        call->done(&call->err, NULL, call->data);
    else
        answer(call);
    buffer_finish(&call->text);
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

static void add_text(struct list_call *call, const struct api_container_summary *one)
{
    buffer_append_char(&call->text, call->text.length ? ',' : '[');
    api_container_summary_write(one, &call->text);
}

static void end_text(struct list_call *call)
{
    buffer_append_text(&call->text, call->text.length ? "]" : "[]");
}

static void sizes_done(uv_work_t *work, int status)
{
    struct list_call *call = work->data;

    call->engine->image_calls--;
    for (size_t i = 0; i < call->list->containers_count; i++)
        add_text(call, call->list->containers[i]);
    end_text(call);
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
           container_filter_has_status(which->filters) ||
           ((container->state == CONTAINER_RUNNING || container->state == CONTAINER_RESTARTING) &&
            !container->leaving);
}

/* Without sizes each becomes text before the next is made: the allocator has its pieces at hand. */
static void take(struct list_call *call, const struct container *container)
{
    struct api_container_summary *one = inspect_summary(container);

    one->details = call->which->details ? inspect_details(container) : NULL;
    if (call->list) {
        call->list->containers[call->list->containers_count++] = one;
        return;
    }
    add_text(call, one);
    api_container_summary_free(one);
}

static int make_list(struct list_call *call, struct error *err)
{
    _cleanup_container_filter_ struct container_filter *filter = NULL;
    const struct engine *engine = call->engine;

    int r = container_filter_create(call->engine, call->which->filters, call->images, &filter, err);
    if (r < 0)
        return r;
    size_t left = call->which->limit > 0 ? (size_t)call->which->limit : SIZE_MAX;
    for (size_t i = engine->containers_count; i > 0 && left; i--) {
        const struct container *container = engine->containers[i - 1];
        if (!is_wanted(call, container) ||
            !container_filter_matches(filter, container, inspect_state(container)))
            continue;
        take(call, container);
        left--;
    }
    return 0;
}

static void list_now(struct list_call *call)
{
    struct engine *engine = call->engine;

    if (call->which->size && !engine->removing) {
        call->list = xnew(struct api_container_summaries);
        call->list->containers =
            xnew_array(struct api_container_summary *, engine->containers_count + 1);
    }
    engine_settle(&call->err, make_list(call, &call->err));
    if (call->err.code || !call->list) {
        end_text(call);
        finish(call);
        return;
    }
    engine->image_calls++;
    uv_queue_work(engine->loop, &call->work, sizes_work, sizes_done);
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
                           engine_list_sees sees, engine_list_done done, void *data)
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
