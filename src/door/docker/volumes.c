#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

void docker_write_volume(struct json_writer *writer, const struct api_volume *volume)
{
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;

    door_inspect_volume(volume, &json);
    json_writer_raw(writer, json.data);
}

static void answer_volume(struct exchange *exchange, unsigned status,
                          const struct api_volume *volume)
{
    struct buffer out = BUFFER_INIT;

    door_inspect_volume(volume, &out);
    answer_json(exchange, status, &out);
}

/* ---- list, inspect */

static void on_list(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_volumes *list = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "Volumes");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < list->volumes_count; i++)
        docker_write_volume(&writer, list->volumes[i]);
    json_writer_array_end(&writer);
    field_null(&writer, "Warnings");
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

static bool volume_filters(struct exchange *exchange, const struct filters *filters,
                           struct api_volume_filters *ret)
{
    *ret = (struct api_volume_filters){
        .name = filters_get(filters, "name"),
        .driver = filters_get(filters, "driver"),
        .label = filters_get(filters, "label"),
        .label_not = filters_get(filters, "label!"),
    };
    ret->name_count = strv_length(ret->name);
    ret->driver_count = strv_length(ret->driver);
    ret->label_count = strv_length(ret->label);
    ret->label_not_count = strv_length(ret->label_not);
    return filters_flag(exchange, filters, "dangling", &ret->dangling, &ret->has_dangling);
}

void docker_volume_list(struct exchange *exchange)
{
    static const char *const known[] = {"name", "driver", "label", "dangling", NULL};
    _cleanup_filters_ struct filters filters;
    struct api_volume_filters wanted;

    if (!filters_of(exchange, known, &filters) || !volume_filters(exchange, &filters, &wanted))
        return;
    call(exchange, "volume.list", &(struct api_volume_list){.filters = &wanted}, on_list, NULL);
}

static void on_inspect(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    answer_volume(exchange, 200, outcome->result);
}

void docker_volume_inspect(struct exchange *exchange)
{
    const struct api_volume_ref which = {.volume = exchange->words[0]};

    call(exchange, "volume.inspect", &which, on_inspect, NULL);
}

/* ---- create, remove, prune */

static void on_created(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    answer_volume(exchange, 201, outcome->result);
}

void docker_volume_create(struct exchange *exchange)
{
    _cleanup_docker_volume_create_ struct docker_volume_create *from = NULL;
    void *document;

    if (!exchange_document(exchange, &docker_volume_create_type, &document))
        return;
    from = document;
    const struct api_volume_create how = {.name = from->name,
                                          .driver = from->driver,
                                          .options = from->driver_opts,
                                          .labels = from->labels};
    call(exchange, "volume.create", &how, on_created, NULL);
}

void docker_volume_remove(struct exchange *exchange)
{
    const struct api_volume_remove which = {.volume = exchange->words[0],
                                            .force = target_flag(&exchange->target, "force"),
                                            .has_force = true};

    call(exchange, "volume.remove", &which, call_done_empty, NULL);
}

static void on_pruned(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_volumes_pruned *pruned = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_list(&writer, "VolumesDeleted", pruned->volumes_count ? pruned->volumes : NULL);
    field_unsigned(&writer, "SpaceReclaimed", pruned->space_reclaimed);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

/* Until 1.42 those with names went, too. */
void docker_volume_prune(struct exchange *exchange)
{
    static const char *const known[] = {"label", "label!", "all", NULL};
    _cleanup_filters_ struct filters filters;
    struct api_volume_filters wanted;

    if (!filters_of(exchange, known, &filters) || !volume_filters(exchange, &filters, &wanted))
        return;
    char **all = filters_get(&filters, "all");
    const struct api_volume_prune how = {
        .all = !exchange_since(exchange, 42) ||
               (all && (text_equal(all[0], "true") || text_equal(all[0], "1"))),
        .has_all = true,
        .filters = &wanted};
    call(exchange, "volume.prune", &how, on_pruned, NULL);
}
