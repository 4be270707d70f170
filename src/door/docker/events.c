/*
 * GET /events: what is kept of the time since `since`, then what happens, until `until`.
 */
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>
#include <schema/subscription.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

struct events {
    int64_t until; /* 0: without end */
};

/* ---- an event in docker's words */

/* As old clients read it. */
static void write_old_fields(struct json_writer *writer, const struct api_event *event)
{
    if (!text_equal(event->type, "container") && !text_equal(event->type, "image"))
        return;
    field_text(writer, "status", event->action);
    field_text(writer, "id", event->id);
    const char *image = json_string_map_get(event->attributes, "image");
    if (image)
        field_text(writer, "from", image);
}

static void write_event(const struct api_event *event, struct buffer *out)
{
    struct json_writer document, *writer = &document;

    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    write_old_fields(writer, event);
    field_text(writer, "Type", event->type);
    field_text(writer, "Action", event->action);
    field_object_begin(writer, "Actor");
    field_text(writer, "ID", event->id);
    field_object_begin(writer, "Attributes");
    for (size_t i = 0; event->attributes && i < event->attributes->count; i++)
        field_text(writer, event->attributes->keys[i], event->attributes->values[i]);
    if (event->name && !json_string_map_get(event->attributes, "name"))
        field_text(writer, "name", event->name);
    json_writer_object_end(writer);
    json_writer_object_end(writer);
    field_text(writer, "scope", "local");
    field_integer(writer, "time", event->time / CLOCK_SECOND);
    field_integer(writer, "timeNano", event->time);
    json_writer_object_end(writer);
}

static void tell(struct exchange *exchange, const struct api_event *event)
{
    const struct events *events = exchange->state;
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    if (events->until && event->time > events->until) {
        answer_end(exchange);
        return;
    }
    write_event(event, &line);
    buffer_append_char(&line, '\n');
    answer_data(exchange, line.data, line.length);
}

/* ---- the stream */

static void on_notified(struct exchange *exchange, const char *method, size_t method_length,
                        const char *params, size_t length)
{
    static const char name[] = "events.event";
    _cleanup_subscription_event_ struct subscription_event *notice = NULL;
    _cleanup_api_event_ struct api_event *event = NULL;

    if (method_length != strlen(name) || memcmp(method, name, method_length) != 0 ||
        subscription_event_parse(params, length, NULL, &notice, NULL) < 0 ||
        api_event_parse(notice->event, strlen(notice->event), NULL, &event, NULL) < 0)
        return;
    tell(exchange, event);
}

static void on_time(struct rpc_timer *timer)
{
    answer_end((struct exchange *)((char *)timer - offsetof(struct exchange, timer)));
}

static void on_subscribed(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    const struct events *events = exchange->state;
    struct rpc_loop *loop = connection_loop(exchange->connection);

    answer_begin(exchange, 200, "application/json");
    if (!events->until)
        return;
    /* Replayed ones come right behind this answer: a moment for them. */
    int64_t left = events->until - clock_now();
    exchange->timer.callback = on_time;
    rpc_loop_set_timer(loop, &exchange->timer,
                       rpc_loop_now(loop) + (uint64_t)(left > 0 ? left : 0) + 50000000);
}

/* Unix time with or without a fraction, or RFC 3339. 0 when there is none. */
static bool time_of(const struct exchange *exchange, const char *key, int64_t *ret)
{
    const char *text = target_text(&exchange->target, key);

    *ret = 0;
    return text_empty(text) || text_equal(text, "0") || docker_time_parse(text, ret);
}

void docker_events(struct exchange *exchange)
{
    static const char *const known[] = {"type",    "event",  "container", "image", "label",
                                        "network", "volume", "daemon",    "scope", NULL};
    struct events *events = xnew(struct events);
    _cleanup_filters_ struct filters filters;
    int64_t since;

    exchange_set_state(exchange, events, free);
    if (!time_of(exchange, "since", &since) || !time_of(exchange, "until", &events->until)) {
        answer_fail(exchange, 400, "since and until are seconds since 1970, or times of RFC 3339");
        return;
    }
    if (!filters_of(exchange, known, &filters))
        return;
    struct api_event_filters wanted = {
        .type = filters_get(&filters, "type"),
        .action = filters_get(&filters, "event"),
        .container = filters_get(&filters, "container"),
        .image = filters_get(&filters, "image"),
        .label = filters_get(&filters, "label"),
    };
    wanted.type_count = strv_length(wanted.type);
    wanted.action_count = strv_length(wanted.action);
    wanted.container_count = strv_length(wanted.container);
    wanted.image_count = strv_length(wanted.image);
    wanted.label_count = strv_length(wanted.label);
    const struct api_events_subscribe what = {
        .since_time = since, .has_since_time = since > 0, .filters = &wanted};
    exchange->notified = on_notified;
    call(exchange, "events.subscribe", &what, on_subscribed, NULL);
}
