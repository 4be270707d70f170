/*
 * What is done with containers that are there: rename, pause, restart, top, prune.
 */
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

void docker_container_rename(struct exchange *exchange)
{
    const char *name = target_text(&exchange->target, "name");
    const struct api_container_rename how = {.container = exchange->words[0],
                                             .name = (char *)(uintptr_t)name};

    if (text_empty(name))
        answer_fail(exchange, 400, "Neither old nor new names may be empty");
    else
        call(exchange, "container.rename", &how, call_done_empty, NULL);
}

void docker_container_pause(struct exchange *exchange)
{
    const struct api_container_pause which = {.container = exchange->words[0]};

    call(exchange, "container.pause", &which, call_done_empty, NULL);
}

void docker_container_unpause(struct exchange *exchange)
{
    const struct api_container_pause which = {.container = exchange->words[0]};

    call(exchange, "container.unpause", &which, call_done_empty, NULL);
}

void docker_container_restart(struct exchange *exchange)
{
    int64_t seconds = target_number(&exchange->target, "t", INT64_MIN);
    const char *signal = target_text(&exchange->target, "signal");
    const struct api_container_restart how = {
        .container = exchange->words[0],
        .timeout = seconds > INT32_MAX ? INT32_MAX
                   : seconds < 0       ? -1
                                       : (int32_t)seconds,
        .has_timeout = seconds != INT64_MIN,
        .signal = text_empty(signal) ? NULL : (char *)(uintptr_t)signal};

    call(exchange, "container.restart", &how, call_done_empty, NULL);
}

/* ---- top */

static void on_top(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_processes *top = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_list(&writer, "Titles", top->titles);
    json_writer_key(&writer, "Processes");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < top->processes_count; i++) {
        json_writer_array_begin(&writer);
        for (size_t j = 0; j < top->processes[i]->count; j++)
            json_writer_string(&writer, top->processes[i]->items[j]);
        json_writer_array_end(&writer);
    }
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_container_top(struct exchange *exchange)
{
    const char *text = target_text(&exchange->target, "ps_args");
    _cleanup_strv_ char **words = text_empty(text) ? NULL : strv_split(text, ' ');
    _cleanup_strv_ char **arguments = NULL;

    for (size_t i = 0; words && words[i]; i++)
        if (words[i][0])
            strv_append(&arguments, words[i]);
    const struct api_container_top how = {.container = exchange->words[0],
                                          .arguments = arguments,
                                          .arguments_count = strv_length(arguments)};
    call(exchange, "container.top", &how, on_top, NULL);
}

/* ---- prune */

/* "24h", or a moment. */
static bool parse_until(const char *text, int64_t *ret)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    int64_t total = 0;
    const char *at = text;

    if (docker_time_parse(text, ret))
        return true;
    while (*at) {
        size_t digits = strspn(at, "0123456789"), unit = 0;
        _cleanup_free_ char *number = xstrndup(at, digits);
        uint64_t value;
        while (unit < ARRAY_SIZE(units) && units[unit].unit != at[digits])
            unit++;
        if (unit == ARRAY_SIZE(units) || text_to_u64(number, 0, INT32_MAX, &value) < 0)
            return false;
        total += (int64_t)value * units[unit].seconds;
        at += digits + 1;
    }
    *ret = clock_now() - total * CLOCK_SECOND;
    return at != text;
}

bool docker_prune_filters(struct exchange *exchange, const struct filters *filters,
                          struct api_prune_filters *ret)
{
    char **until = filters_get(filters, "until");

    if (!until)
        until = filters_get(filters, "unused-for"); /* of builds */
    *ret = (struct api_prune_filters){.label = filters_get(filters, "label"),
                                      .label_not = filters_get(filters, "label!")};
    ret->label_count = strv_length(ret->label);
    ret->label_not_count = strv_length(ret->label_not);
    if (!until)
        return true;
    ret->has_until = true;
    if (parse_until(until[0], &ret->until))
        return true;
    answer_fail(exchange, 400, "invalid time '%s' for filter 'until'", until[0]);
    return false;
}

static void on_pruned(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_pruned *pruned = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_list(&writer, "ContainersDeleted", pruned->deleted_count ? pruned->deleted : NULL);
    field_unsigned(&writer, "SpaceReclaimed", pruned->space_reclaimed);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_container_prune(struct exchange *exchange)
{
    static const char *const known[] = {"until", "label", "label!", NULL};
    _cleanup_filters_ struct filters filters;
    struct api_prune_filters wanted;

    if (!filters_of(exchange, known, &filters) ||
        !docker_prune_filters(exchange, &filters, &wanted))
        return;
    call(exchange, "container.prune", &(struct api_container_prune){.filters = &wanted}, on_pruned,
         NULL);
}
