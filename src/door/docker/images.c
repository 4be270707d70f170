#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <door/inspect.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

/* ---- list */

static int64_t seconds_of(const char *time)
{
    int64_t nanoseconds;

    return time && clock_parse(time, &nanoseconds) == 0 ? nanoseconds / CLOCK_SECOND : 0;
}

/* A list that is there, be it empty. */
static void write_list(struct json_writer *writer, const char *key, char *const *items)
{
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
    for (; items && *items; items++)
        json_writer_string(writer, *items);
    json_writer_array_end(writer);
}

void docker_write_image(struct json_writer *writer, const struct api_image_summary *image,
                        const struct api_image_usage *usage)
{
    json_writer_object_begin(writer);
    field_text(writer, "Id", image->id);
    field_text(writer, "ParentId", "");
    write_list(writer, "RepoTags", image->names);
    write_list(writer, "RepoDigests", image->digests);
    field_integer(writer, "Created", seconds_of(image->created_at));
    field_unsigned(writer, "Size", image->size);
    field_integer(writer, "SharedSize", usage ? (int64_t)usage->shared_size : -1);
    field_unsigned(writer, "VirtualSize", image->size);
    if (image->labels)
        field_map(writer, "Labels", image->labels);
    else
        field_null(writer, "Labels");
    field_integer(writer, "Containers",
                  usage                   ? (int64_t)usage->containers
                  : image->has_containers ? image->containers
                                          : -1);
    json_writer_object_end(writer);
}

const struct api_image_usage *docker_image_usage(const struct api_disk_usage *usage, const char *id)
{
    for (size_t i = 0; usage && i < usage->images_count; i++)
        if (text_equal(usage->images[i]->id, id))
            return usage->images[i];
    return NULL;
}

static void on_list(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_summaries *list = outcome->result;
    const struct api_disk_usage *usage = exchange->state;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < list->images_count; i++)
        docker_write_image(&writer, list->images[i],
                           docker_image_usage(usage, list->images[i]->id));
    json_writer_array_end(&writer);
    answer_json(exchange, 200, &out);
}

static bool image_filters(struct exchange *exchange, const struct filters *filters,
                          struct api_image_filters *ret)
{
    char **until = filters_get(filters, "until");

    *ret = (struct api_image_filters){.before = filters_get(filters, "before"),
                                      .since = filters_get(filters, "since"),
                                      .label = filters_get(filters, "label"),
                                      .reference = filters_get(filters, "reference")};
    ret->before_count = strv_length(ret->before);
    ret->since_count = strv_length(ret->since);
    ret->label_count = strv_length(ret->label);
    ret->reference_count = strv_length(ret->reference);
    ret->has_until = until != NULL;
    if (filters_flag(exchange, filters, "dangling", &ret->dangling, &ret->has_dangling) && until &&
        !docker_time_parse(until[0], &ret->until))
        answer_fail(exchange, 400, "invalid time '%s' for filter 'until'", until[0]);
    return !exchange->ended;
}

static void list_images(struct exchange *exchange)
{
    static const char *const known[] = {"reference", "dangling", "label", "before",
                                        "since",     "until",    NULL};
    _cleanup_filters_ struct filters filters;
    struct api_image_list which = {.all = target_flag(&exchange->target, "all"), .has_all = true};

    struct api_image_filters wanted;
    if (!filters_of(exchange, known, &filters) || !image_filters(exchange, &filters, &wanted))
        return;
    which.filters = &wanted;
    if (!wanted.reference) /* of old clients */
        which.reference = (char *)(uintptr_t)target_text(&exchange->target, "filter");
    call(exchange, "image.list", &which, on_list, NULL);
}

static void free_usage(void *usage)
{
    api_disk_usage_free(usage);
}

static void on_usage(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_disk_usage *usage;

    if (api_disk_usage_parse(outcome->text, outcome->text_length, NULL, &usage, &err) < 0) {
        answer_error(exchange, 500, &err);
        return;
    }
    exchange_set_state(exchange, usage, free_usage);
    list_images(exchange);
}

/* shared-size, of 1.42, takes longer: each image's layers are looked up. */
void docker_image_list(struct exchange *exchange)
{
    const struct api_disk_usage_what images = {.types = (char *[]){(char *)"image", NULL},
                                               .types_count = 1};

    if (exchange_since(exchange, 42) && target_flag(&exchange->target, "shared-size"))
        call(exchange, "system.diskUsage", &images, on_usage, &(struct call_options){.raw = true});
    else
        list_images(exchange);
}

/* ---- inspect, history */

static void on_inspect(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct buffer out = BUFFER_INIT;

    if (door_inspect_image(outcome->result, &out, &err) < 0)
        answer_error(exchange, 500, &err);
    else
        answer_json(exchange, 200, &out);
    buffer_finish(&out);
}

void docker_image_inspect(struct exchange *exchange)
{
    const struct api_image_ref which = {.image = exchange->words[0]};

    call(exchange, "image.inspect", &which, on_inspect, NULL);
}

static void write_step(struct json_writer *writer, const struct api_image_step *step)
{
    json_writer_object_begin(writer);
    field_text(writer, "Id", text_empty(step->id) ? "<missing>" : step->id);
    field_integer(writer, "Created", seconds_of(step->created_at));
    field_text(writer, "CreatedBy", step->created_by);
    field_list(writer, "Tags", step->names_count ? step->names : NULL);
    field_unsigned(writer, "Size", step->size);
    field_text(writer, "Comment", step->comment);
    json_writer_object_end(writer);
}

static void on_history(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_history_list *history = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < history->steps_count; i++)
        write_step(&writer, history->steps[i]);
    json_writer_array_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_image_history(struct exchange *exchange)
{
    const struct api_image_history which = {.image = exchange->words[0]};

    call(exchange, "image.history", &which, on_history, NULL);
}

/* ---- prune */

static void write_removed(struct json_writer *writer, const char *key, char *const *items)
{
    for (; items && *items; items++) {
        json_writer_object_begin(writer);
        field_text(writer, key, *items);
        json_writer_object_end(writer);
    }
}

static void on_pruned(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_pruned *pruned = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "ImagesDeleted");
    if (pruned->untagged_count || pruned->deleted_count) {
        json_writer_array_begin(&writer);
        write_removed(&writer, "Untagged", pruned->untagged);
        write_removed(&writer, "Deleted", pruned->deleted);
        json_writer_array_end(&writer);
    } else {
        json_writer_null(&writer);
    }
    field_unsigned(&writer, "SpaceReclaimed", pruned->space_reclaimed);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_image_prune(struct exchange *exchange)
{
    static const char *const known[] = {"dangling", "until", "label", "label!", NULL};
    _cleanup_filters_ struct filters filters;
    struct api_prune_filters wanted;
    bool dangling, has_dangling;

    if (!filters_of(exchange, known, &filters) ||
        !docker_prune_filters(exchange, &filters, &wanted) ||
        !filters_flag(exchange, &filters, "dangling", &dangling, &has_dangling))
        return;
    call(exchange, "image.prune",
         &(struct api_image_prune){
             .all = has_dangling && !dangling, .has_all = true, .filters = &wanted},
         on_pruned, NULL);
}

/* ---- tag, remove */

static void on_tagged(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    answer_empty(exchange, 201);
}

void docker_image_tag(struct exchange *exchange)
{
    const char *repository = target_text(&exchange->target, "repo");
    const char *tag = target_text(&exchange->target, "tag");
    _cleanup_free_ char *name = xasprintf("%s%s%s", repository ? repository : "",
                                          text_empty(tag) ? "" : ":", text_empty(tag) ? "" : tag);
    const struct api_image_tag how = {.image = exchange->words[0], .name = name};

    call(exchange, "image.tag", &how, on_tagged, NULL);
}

static void on_removed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_removed *removed = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_array_begin(&writer);
    write_removed(&writer, "Untagged", removed->untagged);
    write_removed(&writer, "Deleted", removed->deleted);
    json_writer_array_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_image_remove(struct exchange *exchange)
{
    const struct api_image_remove how = {.image = exchange->words[0],
                                         .force = target_flag(&exchange->target, "force"),
                                         .has_force = true,
                                         .no_prune = target_flag(&exchange->target, "noprune"),
                                         .has_no_prune = true};

    call(exchange, "image.remove", &how, on_removed, NULL);
}

/* ---- load */

static void write_stream_line(struct exchange *exchange, const char *text)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &line, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "stream", text);
    json_writer_object_end(&writer);
    answer_line(exchange, &line);
}

static void on_loaded(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_loaded *loaded = outcome->result;

    /* dockerd has begun its answer by then: clients look for the last line of it. */
    answer_begin(exchange, 200, "application/json");
    if (outcome->code < 0) {
        answer_error(exchange, call_status(outcome), outcome->error);
        return;
    }
    for (size_t i = 0; i < loaded->images_count; i++) {
        const struct api_loaded_image *image = loaded->images[i];
        for (size_t j = 0; j < image->names_count; j++) {
            _cleanup_free_ char *text = xasprintf("Loaded image: %s\n", image->names[j]);
            write_stream_line(exchange, text);
        }
        if (!image->names_count) {
            _cleanup_free_ char *text = xasprintf("Loaded image ID: %s\n", image->id);
            write_stream_line(exchange, text);
        }
    }
    answer_end(exchange);
}

void docker_image_load(struct exchange *exchange)
{
    const struct api_image_load how = {.quiet = target_flag(&exchange->target, "quiet"),
                                       .has_quiet = true};
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int fd = exchange_take_body(exchange, &err);

    if (fd < 0) {
        answer_error(exchange, 503, &err);
        return;
    }
    call(exchange, "image.load", &how, on_loaded,
         &(struct call_options){.fds = &fd,
                                .fds_count = 1,
                                .errors = true,
                                .progress = how.quiet ? NULL : docker_tell_progress});
}

/* ---- save */

/* names=A&names=B, or names=A,B, or a name in the path. */
static char **saved_names(const struct exchange *exchange)
{
    _cleanup_strv_ char **texts = target_list(&exchange->target, "names");
    char **names = NULL;

    if (exchange->words[0])
        strv_append(&names, exchange->words[0]);
    for (size_t i = 0; texts && texts[i]; i++) {
        _cleanup_strv_ char **parts = strv_split(texts[i], ',');
        for (size_t j = 0; parts && parts[j]; j++)
            strv_append(&names, parts[j]);
    }
    return names;
}

void docker_image_save(struct exchange *exchange)
{
    _cleanup_strv_ char **names = saved_names(exchange);
    const struct api_image_save how = {.names = names, .names_count = strv_length(names)};

    if (!names)
        answer_fail(exchange, 400, "no image is named");
    else
        docker_download(exchange, "image.save", &how);
}
