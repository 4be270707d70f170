/*
 * GET /system/df, of what was asked for:
 *
 *     container.list      with sizes: docker's documents of them (listing.c)
 *     image.list          what usage does not tell of an image
 *     system.diskUsage    the rest
 */
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "../fields.h"
#include "handlers.h"

struct df {
    struct buffer containers; /* docker's array of them */
    struct api_image_summaries *images;
};

static void df_free(void *data)
{
    struct df *df = data;

    buffer_finish(&df->containers);
    api_image_summaries_free(df->images);
    free(df);
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

static void write_images(struct json_writer *writer, const struct df *df,
                         const struct api_disk_usage *usage)
{
    field_integer(writer, "LayersSize", (int64_t)usage->layers_size);
    json_writer_key(writer, "Images");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < df->images->images_count; i++) {
        const struct api_image_summary *image = df->images->images[i];
        const struct api_image_usage *found = docker_image_usage(usage, image->id);
        if (found)
            docker_write_image(writer, image, found);
    }
    json_writer_array_end(writer);
}

static void write_wanted(struct exchange *exchange, struct json_writer *writer,
                         const struct api_disk_usage *usage)
{
    const struct df *df = exchange->state;

    if (is_wanted(exchange, IMAGES))
        write_images(writer, df, usage);
    if (is_wanted(exchange, CONTAINERS)) {
        json_writer_key(writer, "Containers");
        json_writer_raw(writer, buffer_text(&df->containers));
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

static void ask_usage(struct exchange *exchange)
{
    char *types[3] = {NULL};
    struct api_disk_usage_what what = {.types = types};

    if (is_wanted(exchange, IMAGES))
        types[what.types_count++] = (char *)"image";
    if (is_wanted(exchange, VOLUMES))
        types[what.types_count++] = (char *)"volume";
    if (what.types_count)
        call(exchange, "system.diskUsage", &what, on_usage, NULL);
    else
        on_usage(exchange, &(struct rpc_outcome){0});
}

static void on_images(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct df *df = exchange->state;

    if (api_image_summaries_parse(outcome->text, outcome->text_length, NULL, &df->images, &err) < 0)
        answer_error(exchange, 500, &err);
    else
        ask_usage(exchange);
}

static void ask_images(struct exchange *exchange)
{
    if (is_wanted(exchange, IMAGES))
        call(exchange, "image.list", NULL, on_images, &(struct call_options){.raw = true});
    else
        ask_usage(exchange);
}

static void on_containers(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    struct listing *listing = connection_listing(exchange->connection);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct df *df = exchange->state;

    if (listing_write(listing, NULL, outcome->text, outcome->text_length, &df->containers, &err) <
        0)
        answer_error(exchange, 500, &err);
    else
        ask_images(exchange);
}

void docker_disk_usage(struct exchange *exchange)
{
    static const struct api_container_list all = {.all = true,
                                                  .has_all = true,
                                                  .size = true,
                                                  .has_size = true,
                                                  .details = true,
                                                  .has_details = true};
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
    exchange_set_state(exchange, xnew(struct df), df_free);
    if (is_wanted(exchange, CONTAINERS))
        call(exchange, "container.list", &all, on_containers, &(struct call_options){.raw = true});
    else
        ask_images(exchange);
}
