/*
 * GET /events: what is kept of the time since `since`, then what happens, until `until`.
 */
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>
#include <schema/subscription.h>

#include "../fields.h"
#include "filters.h"
#include "handlers.h"

enum {
    WAITING_MAX = 4 << 20, /* bytes of events that the client has not read; then it is left */
    LOOK_AGAIN_MS = 5,     /* for the daemon to send on what is kept */
};

struct events {
    int64_t until; /* 0: without end */
    uint64_t subscription, next;
    bool ending;
    char **type, **action, **container, **image, **label, **network, **volume, **daemon; /* owned */
};

static void events_free(void *data)
{
    struct events *events = data;

    strv_free(events->type);
    strv_free(events->action);
    strv_free(events->container);
    strv_free(events->image);
    strv_free(events->label);
    strv_free(events->network);
    strv_free(events->volume);
    strv_free(events->daemon);
    free(events);
}

static void end_subscription(struct exchange *exchange);

/* ---- an event in docker's words */

/* docker has an exec session's command in the name of what happened, and in no attribute. */
static const char command_key[] = "command";

static bool is_exec(const struct api_event *event)
{
    return text_equal(event->type, "container") && text_starts_with(event->action, "exec_");
}

static char *action_name(const struct api_event *event)
{
    const char *command =
        is_exec(event) ? json_string_map_get(event->attributes, command_key) : NULL;

    return command ? xasprintf("%s: %s", event->action, command) : xstrdup(event->action);
}

/* As old clients read it. */
static void write_old_fields(struct json_writer *writer, const struct api_event *event,
                             const char *action)
{
    if (!text_equal(event->type, "container") && !text_equal(event->type, "image"))
        return;
    field_text(writer, "status", action);
    field_text(writer, "id", event->id);
    const char *image = json_string_map_get(event->attributes, "image");
    if (image)
        field_text(writer, "from", image);
}

static void write_event(const struct api_event *event, struct buffer *out)
{
    struct json_writer document, *writer = &document;
    _cleanup_free_ char *action = action_name(event);

    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    write_old_fields(writer, event, action);
    field_text(writer, "Type", event->type);
    field_text(writer, "Action", action);
    field_object_begin(writer, "Actor");
    field_text(writer, "ID", event->id);
    field_object_begin(writer, "Attributes");
    for (size_t i = 0; event->attributes && i < event->attributes->count; i++)
        if (!is_exec(event) || !text_equal(event->attributes->keys[i], command_key))
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
        end_subscription(exchange);
        return;
    }
    write_event(event, &line);
    buffer_append_char(&line, '\n');
    answer_data(exchange, line.data, line.length);
    if (exchange->connection->out.length > WAITING_MAX)
        answer_break(exchange);
}

/* ---- the stream */

static void on_notified(struct exchange *exchange, const char *method, size_t method_length,
                        const char *params, size_t length)
{
    static const char name[] = "events.event";
    const struct events *events = exchange->state;
    _cleanup_subscription_event_ struct subscription_event *notice = NULL;
    _cleanup_api_event_ struct api_event *event = NULL;

    if (method_length != strlen(name) || memcmp(method, name, method_length) != 0 ||
        subscription_event_parse(params, length, NULL, &notice, NULL) < 0 ||
        notice->subscription != events->subscription ||
        api_event_parse(notice->event, strlen(notice->event), NULL, &event, NULL) < 0)
        return;
    tell(exchange, event);
}

static void on_time(struct rpc_timer *timer)
{
    end_subscription((struct exchange *)((char *)timer - offsetof(struct exchange, timer)));
}

static void set_time(struct exchange *exchange, int64_t nanoseconds)
{
    struct rpc_loop *loop = connection_loop(exchange->connection);

    exchange->timer.callback = on_time;
    rpc_loop_set_timer(loop, &exchange->timer,
                       rpc_loop_now(loop) + (uint64_t)(nanoseconds > 0 ? nanoseconds : 0));
}

static void on_subscribed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_events_subscribed *done = outcome->result;
    struct events *events = exchange->state;

    events->subscription = done->subscription;
    events->next = done->next;
    events->ending = false;
    answer_begin(exchange, 200, "application/json");
    if (events->until)
        set_time(exchange, events->until - clock_now() + LOOK_AGAIN_MS * INT64_C(1000000));
}

static void subscribe(struct exchange *exchange, struct api_events_subscribe *what)
{
    struct events *events = exchange->state;
    struct api_event_filters wanted = {
        .type = events->type,
        .type_count = strv_length(events->type),
        .action = events->action,
        .action_count = strv_length(events->action),
        .container = events->container,
        .container_count = strv_length(events->container),
        .image = events->image,
        .image_count = strv_length(events->image),
        .label = events->label,
        .label_count = strv_length(events->label),
        .network = events->network,
        .network_count = strv_length(events->network),
        .volume = events->volume,
        .volume_count = strv_length(events->volume),
        .daemon = events->daemon,
        .daemon_count = strv_length(events->daemon),
    };

    what->filters = &wanted;
    call(exchange, "events.subscribe", what, on_subscribed, NULL);
}

/* What comes of the subscription comes before this; of what was kept when it began there may be
 * more than was sent so far. */
static void on_unsubscribed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_events_unsubscribed *done = outcome->result;
    const struct events *events = exchange->state;
    struct api_events_subscribe rest = {.since = done->next, .has_since = true};

    if (done->next < events->next)
        subscribe(exchange, &rest);
    else
        answer_end(exchange);
}

static void end_subscription(struct exchange *exchange)
{
    struct events *events = exchange->state;
    const struct api_events_unsubscribe which = {.subscription = events->subscription};

    if (events->ending)
        return;
    events->ending = true;
    call(exchange, "events.unsubscribe", &which, on_unsubscribed, NULL);
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
    _cleanup_filters_ struct filters filters = {.count = 0};
    int64_t since;

    exchange_set_state(exchange, events, events_free);
    if (!time_of(exchange, "since", &since) || !time_of(exchange, "until", &events->until)) {
        answer_fail(exchange, 400, "since and until are seconds since 1970, or times of RFC 3339");
        return;
    }
    if (!filters_of(exchange, known, &filters))
        return;
    events->type = strv_copy(filters_get(&filters, "type"));
    events->action = strv_copy(filters_get(&filters, "event"));
    events->container = strv_copy(filters_get(&filters, "container"));
    events->image = strv_copy(filters_get(&filters, "image"));
    events->label = strv_copy(filters_get(&filters, "label"));
    events->network = strv_copy(filters_get(&filters, "network"));
    events->volume = strv_copy(filters_get(&filters, "volume"));
    events->daemon = strv_copy(filters_get(&filters, "daemon"));
    exchange->notified = on_notified;
    /* With either of them what is kept comes, too, as with dockerd: `since=0` is all of it. */
    const bool kept = !text_empty(target_text(&exchange->target, "since")) || events->until > 0;
    subscribe(exchange,
              &(struct api_events_subscribe){.since_time = since, .has_since_time = kept});
}
