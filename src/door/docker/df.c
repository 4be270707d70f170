/*
 * GET /system/df
 */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>

#include "../fields.h"
#include "handlers.h"

static int64_t seconds_of(const char *time)
{
    int64_t nanoseconds;

    return time && clock_parse(time, &nanoseconds) == 0 ? nanoseconds / CLOCK_SECOND : 0;
}

static void write_image(struct json_writer *writer, const struct api_image_usage *image)
{
    static char *const none[] = {NULL};

    json_writer_object_begin(writer);
    field_text(writer, "Id", image->id);
    field_text(writer, "ParentId", "");
    field_list(writer, "RepoTags", image->names ? image->names : none);
    field_null(writer, "RepoDigests");
    field_integer(writer, "Created", seconds_of(image->created_at));
    field_integer(writer, "Size", (int64_t)image->size);
    field_integer(writer, "SharedSize", (int64_t)image->shared_size);
    field_integer(writer, "VirtualSize", (int64_t)image->size);
    field_null(writer, "Labels");
    field_integer(writer, "Containers", (int64_t)image->containers);
    json_writer_object_end(writer);
}

static void write_container(struct json_writer *writer, const struct api_container_usage *container)
{
    _cleanup_free_ char *name = xasprintf("/%s", container->name);

    json_writer_object_begin(writer);
    field_text(writer, "Id", container->id);
    field_list(writer, "Names", (char *[]){name, NULL});
    field_text(writer, "Image", container->image);
    field_text(writer, "ImageID", container->image_id);
    field_text(writer, "Command", container->command);
    field_integer(writer, "Created", seconds_of(container->created_at));
    field_integer(writer, "SizeRw", (int64_t)container->size_rw);
    field_integer(writer, "SizeRootFs", (int64_t)container->size_root_fs);
    field_text(writer, "State", container->state);
    field_text(writer, "Status", container->status);
    json_writer_object_end(writer);
}

static const char *const kinds[] = {"container", "image", "volume", "build-cache"};
enum kind { CONTAINERS, IMAGES, VOLUMES, BUILD_CACHE };

/* type=image&type=volume since 1.42; without any: all. */
static bool is_wanted(const struct exchange *exchange, enum kind kind)
{
    _cleanup_strv_ char **types =
        exchange_since(exchange, 42) ? target_list(&exchange->target, "type") : NULL;

    return !types || !*types || strv_contains(types, kinds[kind]);
}

static void write_wanted(struct exchange *exchange, struct json_writer *writer,
                         const struct api_disk_usage *usage)
{
    if (is_wanted(exchange, IMAGES)) {
        field_integer(writer, "LayersSize", (int64_t)usage->layers_size);
        json_writer_key(writer, "Images");
        json_writer_array_begin(writer);
        for (size_t i = 0; i < usage->images_count; i++)
            write_image(writer, usage->images[i]);
        json_writer_array_end(writer);
    }
    if (is_wanted(exchange, CONTAINERS)) {
        json_writer_key(writer, "Containers");
        json_writer_array_begin(writer);
        for (size_t i = 0; i < usage->containers_count; i++)
            write_container(writer, usage->containers[i]);
        json_writer_array_end(writer);
    }
    if (is_wanted(exchange, VOLUMES)) {
        json_writer_key(writer, "Volumes");
        json_writer_array_begin(writer);
        for (size_t i = 0; i < usage->volumes_count; i++)
            docker_write_volume(writer, usage->volumes[i]);
        json_writer_array_end(writer);
    }
    if (is_wanted(exchange, BUILD_CACHE)) {
        json_writer_key(writer, "BuildCache");
        json_writer_array_begin(writer);
        json_writer_array_end(writer);
    }
}

static void on_usage(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    struct buffer out = BUFFER_INIT;
    struct json_writer document, *writer = &document;

    json_writer_init(writer, &out, JSON_COMPACT);
    json_writer_object_begin(writer);
    write_wanted(exchange, writer, outcome->result);
    field_integer(writer, "BuilderSize", 0);
    json_writer_object_end(writer);
    answer_json(exchange, 200, &out);
}

void docker_disk_usage(struct exchange *exchange)
{
    _cleanup_strv_ char **types = target_list(&exchange->target, "type");

    for (size_t i = 0; exchange_since(exchange, 42) && types && types[i]; i++) {
        size_t kind = 0;
        while (kind < ARRAY_SIZE(kinds) && !text_equal(kinds[kind], types[i]))
            kind++;
        if (kind == ARRAY_SIZE(kinds)) {
            answer_fail(exchange, 400, "unknown object type: %s", types[i]);
            return;
        }
    }
    call(exchange, "system.diskUsage", NULL, on_usage, NULL);
}
