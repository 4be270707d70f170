/*
 * Images: the store's functions, which block, on the loop's worker threads. What takes as long as a
 * client or a disk likes has a thread of its own (errand.h).
 */
#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <image/worker.h>

#include "errand.h"
#include "events.h"
#include "filters.h"
#include "image_call.h"
#include "internal.h"
#include "platform.h"
#include "status.h"

/* Each has a thread and a worker, and its client may be slow. */
enum { ARCHIVES_MAX = 64 };

static void image_work(uv_work_t *work)
{
    struct image_call *call = work->data;

    engine_settle(&call->err, call->step(call, &call->err));
}

void image_call_news(struct image_call *call, const char *action, const char *id, const char *name)
{
    struct image_news **end = &call->news;
    struct image_news *news = xnew(struct image_news);

    while (*end)
        end = &(*end)->next;
    *news = (struct image_news){
        .action = action, .id = xstrdup(id), .name = name ? xstrdup(name) : NULL};
    *end = news;
}

static void tell_news(struct image_call *call)
{
    if (!call->err.code && call->type == &api_image_pruned_type)
        event_pruned(call->engine, "image",
                     ((const struct api_image_pruned *)call->document)->space_reclaimed);
    while (call->news) {
        struct image_news *news = call->news;
        call->news = news->next;
        if (!call->err.code)
            event_image(call->engine, news->action, news->id, news->name);
        free(news->id);
        free(news->name);
        free(news);
    }
}

static void image_done(uv_work_t *work, int status)
{
    struct image_call *call = work->data;

    call->engine->image_calls--;
    call->engine->archives -= call->archive_fd >= 0;
    image_progress_end(steal_ptr(call->progress));
    tell_news(call);
    call->done(call->err.code ? &call->err : NULL, call->document, call->data);
    json_free(call->type, call->document);
    json_free(call->what_type, call->what);
    free(call->image);
    free(call->name);
    free(call->reference);
    free(call->url);
    fetch_settings_finish(&call->fetch);
    strv_free(call->names);
    strv_free(call->used_images);
    close_fd(call->archive_fd);
    close_fd(call->cancel.fd);
    error_finish(&call->err);
    free(call);
}

struct image_call *image_call_new(struct engine *engine, image_step step,
                                  const struct json_type *type, engine_image_done done, void *data)
{
    struct image_call *call = xnew(struct image_call);

    call->work.data = call;
    call->engine = engine;
    call->step = step;
    call->type = type;
    call->archive_fd = call->cancel.fd = -1;
    call->done = done;
    call->data = data;
    return call;
}

static int refuse_step(struct image_call *call, struct error *err)
{
    return error_set(err, -EAGAIN, "the instance is being removed");
}

static int refuse_archive_step(struct image_call *call, struct error *err)
{
    return error_set(err, -EAGAIN, "%d archives are being read or written already", ARCHIVES_MAX);
}

static void count_call(struct image_call *call)
{
    /* The store is closed under whoever comes now. */
    if (call->engine->removing)
        call->step = refuse_step;
    call->engine->image_calls++;
}

void image_call_submit(struct image_call *call)
{
    count_call(call);
    uv_queue_work(call->engine->loop, &call->work, image_work, image_done);
}

void image_call_submit_slow(struct image_call *call)
{
    count_call(call);
    errand_run(call->engine, &call->work, image_work, image_done);
}

/* A list for a field that must not be absent. */
char **image_list_of(char *const *list, size_t *ret_count)
{
    char **copy = strv_copy(list);

    *ret_count = strv_length(copy);
    return copy ? copy : xnew_array(char *, 1);
}

/* --- list and inspect ------------------------------------------------------------------------- */

/* name: repository:tag or repository@digest. */
static bool matches(const char *name, const char *reference)
{
    const char *at = strchr(name, '@');
    const char *end = at ? at : strrchr(name, ':');
    _cleanup_free_ char *repository = end ? xstrndup(name, (size_t)(end - name)) : xstrdup(name);

    return fnmatch(reference, name, 0) == 0 || fnmatch(reference, repository, 0) == 0;
}

static bool lists_by_name(const struct image_call *call)
{
    const struct api_image_filters *filters = call->what;

    return !text_empty(call->reference) || (filters && filters->reference_count);
}

static bool is_asked_for(const struct image_call *call, const char *name)
{
    const struct api_image_filters *filters = call->what;
    bool named = !filters || !filters->reference_count;

    for (size_t i = 0; !named && i < filters->reference_count; i++)
        named = matches(name, filters->reference[i]);
    return named && (text_empty(call->reference) || matches(name, call->reference));
}

/* As dockerd, which shows an image that is looked for by name under the names that fit alone. */
static char **names_asked_for(const struct image_call *call, char *const *names, size_t *ret_count)
{
    char **kept = xnew_array(char *, strv_length(names) + 1);

    *ret_count = 0;
    for (; names && *names; names++) {
        if (is_asked_for(call, *names))
            kept[(*ret_count)++] = xstrdup(*names);
    }
    return kept;
}

const struct json_string_map *image_labels(const struct store_image *image)
{
    return image->config->config ? image->config->config->labels : NULL;
}

static struct api_image_summary *summary_of(const struct image_call *call,
                                            const struct store_image *image)
{
    struct api_image_summary *summary = xnew(struct api_image_summary);
    char *const *used = call->used_images;

    summary->id = xstrdup(image->id);
    summary->names = names_asked_for(call, image->names, &summary->names_count);
    summary->digests = names_asked_for(call, image->digests, &summary->digests_count);
    summary->created_at = clock_format(image->created);
    summary->size = image->size;
    summary->has_containers = true;
    for (size_t i = 0; used && used[i]; i++)
        summary->containers += text_equal(used[i], image->id);
    summary->built_in = summary->has_built_in = image->built_in;
    summary->labels = json_string_map_copy(image_labels(image));
    return summary;
}

/* docker takes the time when an image was made; of several the narrowest counts. */
static int find_times(struct image_call *call, char *const *names, size_t count, bool earliest,
                      int64_t *ret, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        _cleanup_store_image_ struct store_image *image = NULL;
        int r = store_image_find(call->engine->store, names[i], &image, err);
        if (r < 0) {
            if (r == -ENOENT)
                err->code = ENGINE_NO_SUCH_IMAGE;
            return r;
        }
        if (!*ret || (earliest ? image->created < *ret : image->created > *ret))
            *ret = image->created;
    }
    return 0;
}

struct image_times {
    int64_t before, since; /* 0: none */
};

static bool fits(const struct store_image *image, const struct api_image_filters *filters,
                 const struct image_times *times)
{
    if (!filters)
        return true;
    return (!filters->has_dangling || filters->dangling == (image->names == NULL)) &&
           (!filters->has_until || image->created < filters->until) &&
           (!times->before || image->created < times->before) &&
           (!times->since || image->created > times->since) &&
           filter_has_labels(image_labels(image), filters->label);
}

static int list_step(struct image_call *call, struct error *err)
{
    const struct api_image_filters *filters = call->what;
    struct store_image **images = NULL;
    struct image_times times = {0};
    size_t count = 0;
    int r = 0;

    if (filters)
        r = find_times(call, filters->before, filters->before_count, true, &times.before, err);
    if (r == 0 && filters)
        r = find_times(call, filters->since, filters->since_count, false, &times.since, err);
    if (r == 0)
        r = store_image_list(call->engine->store, &images, &count, err);
    if (r < 0)
        return r;
    struct api_image_summaries *list = xnew(struct api_image_summaries);
    list->images = xnew_array(struct api_image_summary *, count + 1);
    for (size_t i = 0; i < count; i++) {
        if ((!call->force && images[i]->intermediate) || !fits(images[i], filters, &times))
            continue;
        struct api_image_summary *summary = summary_of(call, images[i]);
        if (!lists_by_name(call) || summary->names_count || summary->digests_count)
            list->images[list->images_count++] = summary;
        else
            api_image_summary_free(summary);
    }
    store_image_list_free(images, count);
    call->document = list;
    return 0;
}

void image_call_used(struct image_call *call)
{
    const struct engine *engine = call->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        if (engine->containers[i]->record->image_id)
            strv_append(&call->used_images, engine->containers[i]->record->image_id);
    }
}

static struct api_image_filters *copy_filters(const struct api_image_filters *filters)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_image_filters *copy = NULL;

    if (filters) {
        api_image_filters_write(filters, &text);
        api_image_filters_parse(text.data, text.length, NULL, &copy, NULL);
    }
    return copy;
}

void engine_image_list(struct engine *engine, const struct api_image_list *which,
                       engine_image_done done, void *data)
{
    struct image_call *call =
        image_call_new(engine, list_step, &api_image_summaries_type, done, data);

    call->reference = xstrdup(which->reference);
    call->force = which->all;
    call->what = copy_filters(which->filters);
    call->what_type = &api_image_filters_type;
    image_call_used(call);
    image_call_submit(call);
}

int image_call_find(struct image_call *call, struct store_image **ret, struct error *err)
{
    int r = store_image_find(call->engine->store, call->image, ret, err);

    if (r == -ENOENT)
        err->code = ENGINE_NO_SUCH_IMAGE;
    return r;
}

static const char *last_comment(const struct oci_image_configuration *config)
{
    return config->history_count ? config->history[config->history_count - 1]->comment : NULL;
}

/* What a build made it from is in the records; what a commit did, in its configuration. One that is
 * not here any more, or was never, is nobody's parent. */
char *image_parent(struct store *store, const struct store_image *image)
{
    _cleanup_store_image_ struct store_image *parent = NULL;
    _cleanup_free_ char *id = NULL;
    const char *named = json_string_map_get(image->config->unknown_fields, "parent");
    size_t length = named ? strlen(named) : 0;

    if (image->parent)
        id = xstrdup(image->parent);
    else if (length > 2 && named[0] == '"')
        id = xstrndup(named + 1, length - 2);
    if (!id || store_image_find(store, id, &parent, NULL) < 0 || !text_equal(parent->id, id))
        return NULL;
    return steal_ptr(id);
}

/* A message is a line. Line breaks outside of strings are blanks to JSON, and inside of them there
 * are none. */
static char *one_line(const char *json)
{
    char *copy = xstrdup(json);

    for (char *at = copy; *at; at++) {
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    }
    return copy;
}

static int inspect_step(struct image_call *call, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;

    int r = image_call_find(call, &image, err);
    if (r < 0)
        return r;
    struct api_image_details *details = xnew(struct api_image_details);
    details->id = xstrdup(image->id);
    details->names = image_list_of(image->names, &details->names_count);
    details->digests = image_list_of(image->digests, &details->digests_count);
    details->manifest_digest = xstrdup(image->manifest_digest);
    details->created_at = clock_format(image->created);
    details->author = xstrdup(image->config->author);
    details->comment = xstrdup(last_comment(image->config));
    details->architecture = xstrdup(image->config->architecture);
    details->os = xstrdup(image->config->os);
    details->size = image->size;
    details->layers = image_list_of(image->diff_ids, &details->layers_count);
    details->config = one_line(image->config_text);
    details->built_in = details->has_built_in = image->built_in;
    details->base = xstrdup(image->base);
    details->parent = image_parent(call->engine->store, image);
    call->document = details;
    return 0;
}

void engine_image_inspect(struct engine *engine, const char *image, engine_image_done done,
                          void *data)
{
    struct image_call *call =
        image_call_new(engine, inspect_step, &api_image_details_type, done, data);

    call->image = xstrdup(image);
    image_call_submit(call);
}

/* --- names ------------------------------------------------------------------------------------ */

static int tag_step(struct image_call *call, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_free_ char *name = NULL;

    int r = store_image_tag(call->engine->store, call->image, call->name, &name, err);
    if (r == 0 && store_image_find(call->engine->store, name, &image, NULL) == 0)
        image_call_news(call, "tag", image->id, name);

    if (r == -ENOENT)
        err->code = ENGINE_NO_SUCH_IMAGE;
    return r;
}

void engine_image_tag(struct engine *engine, const char *image, const char *name,
                      engine_image_done done, void *data)
{
    struct image_call *call = image_call_new(engine, tag_step, &api_empty_type, done, data);

    call->image = xstrdup(image);
    call->name = xstrdup(name);
    image_call_submit(call);
}

void image_call_removed(struct image_call *call, const char *id,
                        const struct store_removed *removed)
{
    for (char *const *name = removed->untagged; name && *name; name++)
        image_call_news(call, "untag", id, *name);
    if (strv_contains(removed->deleted, id))
        image_call_news(call, "delete", id, NULL);
}

static int remove_step(struct image_call *call, struct error *err)
{
    _cleanup_store_removed_ struct store_removed removed = {0};
    _cleanup_store_image_ struct store_image *image = NULL;

    int r = image_call_find(call, &image, err);
    if (r == 0)
        r = store_image_remove(call->engine->store, call->image,
                               (call->force ? STORE_REMOVE_FORCE : 0U) |
                                   (call->keep_parents ? STORE_REMOVE_KEEP_PARENTS : 0U),
                               &removed, err);
    if (r == -ENOENT)
        err->code = ENGINE_NO_SUCH_IMAGE;
    if (r < 0)
        return r;
    image_call_removed(call, image->id, &removed);
    struct api_image_removed *document = xnew(struct api_image_removed);
    document->untagged = image_list_of(removed.untagged, &document->untagged_count);
    document->deleted = image_list_of(removed.deleted, &document->deleted_count);
    call->document = document;
    return 0;
}

void engine_image_remove(struct engine *engine, const struct api_image_remove *how,
                         engine_image_done done, void *data)
{
    struct image_call *call =
        image_call_new(engine, remove_step, &api_image_removed_type, done, data);

    call->image = xstrdup(how->image);
    call->force = how->force;
    call->keep_parents = how->no_prune;
    image_call_submit_slow(call);
}

/* --- archives --------------------------------------------------------------------------------- */

static void fill_loaded(struct image_call *call, const struct store_loaded *loaded, size_t count)
{
    struct api_image_loaded *document = xnew(struct api_image_loaded);

    document->images = xnew_array(struct api_loaded_image *, count + 1);
    document->images_count = count;
    for (size_t i = 0; i < count; i++) {
        struct api_loaded_image *image = document->images[i] = xnew(struct api_loaded_image);
        image->id = xstrdup(loaded[i].id);
        image->names = image_list_of(loaded[i].names, &image->names_count);
        image_call_news(call, "load", image->id, image->names[0]);
    }
    call->document = document;
}

/* What this machine runs, of an archive with images for several. */
const struct image_worker_platform *image_own_platform(void)
{
    return platform_own();
}

static int load_step(struct image_call *call, struct error *err)
{
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    struct image_worker_load load = {.platform = platform_own()};
    struct image_worker_request request = {.load = &load};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_result *result = NULL;
    struct store_loaded *loaded = NULL;
    size_t count = 0;

    int r = store_staging_create(call->engine->store, &staging, err);
    if (r < 0)
        return r;
    spec.program = call->engine->image_program;
    spec.request = &request;
    spec.archive_fd = call->archive_fd;
    spec.staging_fd = store_staging_fd(staging);
    r = image_worker_run(&spec, image_progress_take, call->progress, call->cancel.fd, &result, err);
    if (r >= 0)
        r = store_staging_import(staging, result, &loaded, &count, err);
    if (r >= 0)
        fill_loaded(call, loaded, count);
    store_loaded_free(loaded, count);
    image_worker_result_free(result);
    return r;
}

static void tell_saved(struct image_call *call)
{
    for (char *const *name = call->names; name && *name; name++) {
        _cleanup_store_image_ struct store_image *image = NULL;
        if (store_image_find(call->engine->store, *name, &image, NULL) == 0)
            image_call_news(call, "save", image->id, *name);
    }
}

static int save_step(struct image_call *call, struct error *err)
{
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_request *request = NULL;
    struct image_worker_result *result = NULL;

    int r = store_save_prepare(call->engine->store, call->names, &request, err);
    if (r == -ENOENT)
        err->code = ENGINE_NO_SUCH_IMAGE;
    if (r < 0)
        return r;
    spec.program = call->engine->image_program;
    spec.request = request;
    spec.archive_fd = call->archive_fd;
    spec.content_fd = store_content_fd(call->engine->store);
    r = image_worker_run(&spec, image_progress_take, call->progress, call->cancel.fd, &result, err);
    image_worker_result_free(result);
    store_save_finish(call->engine->store, request);
    if (r >= 0)
        tell_saved(call);
    return r;
}

struct engine_cancel *image_call_submit_archive(struct image_call *call, int archive_fd)
{
    call->archive_fd = archive_fd;
    call->cancel.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (call->engine->archives >= ARCHIVES_MAX)
        call->step = refuse_archive_step;
    call->engine->archives += archive_fd >= 0;
    image_call_submit_slow(call);
    return &call->cancel;
}

struct engine_cancel *engine_image_load(struct engine *engine, int archive_fd,
                                        const struct engine_transfer_callbacks *callbacks)
{
    struct image_call *call =
        image_call_new(engine, load_step, &api_image_loaded_type, callbacks->done, callbacks->data);

    call->progress = image_progress_new(engine, callbacks->progress, callbacks->data);
    return image_call_submit_archive(call, archive_fd);
}

struct engine_cancel *engine_image_save(struct engine *engine, char *const *names, int archive_fd,
                                        const struct engine_transfer_callbacks *callbacks)
{
    struct image_call *call =
        image_call_new(engine, save_step, &api_empty_type, callbacks->done, callbacks->data);

    call->progress = image_progress_new(engine, callbacks->progress, callbacks->data);
    call->names = strv_copy(names);
    return image_call_submit_archive(call, archive_fd);
}

void engine_cancel(struct engine_cancel *cancel)
{
    if (cancel && cancel->fd >= 0)
        eventfd_write(cancel->fd, 1);
}

/* --- info ------------------------------------------------------------------------------------- */

static int count_step(struct image_call *call, struct error *err)
{
    struct api_system_info *info = call->document;
    struct store_image **images = NULL;
    size_t count = 0;

    int r = store_image_list(call->engine->store, &images, &count, err);
    if (r < 0)
        return r;
    info->images = (int64_t)count;
    store_image_list_free(images, count);
    return 0;
}

void engine_info(struct engine *engine, engine_image_done done, void *data)
{
    struct image_call *call = image_call_new(engine, count_step, &api_system_info_type, done, data);

    call->document = system_info(engine);
    image_call_submit(call);
}
