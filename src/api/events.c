/*
 * events.*: the topic of what happened in the engine.
 */
#include <stdlib.h>

#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <rpc/subscription.h>

#include "handlers.h"

enum { LIST_MAX = 1000, LIST_BYTES_MAX = 4 << 20 };

static bool matches(const void *filter, const void *event)
{
    return engine_event_matches(filter, event);
}

const struct rpc_topic_options api_events_topic = {
    .event_method = "events.event",
    .lost_method = "events.lost",
    .event_type = &api_event_type,
    .filter_type = &api_event_filters_type,
    .matches = matches,
};

void api_publish(struct api_event *event, void *topic)
{
    rpc_topic_publish(topic, event, event->time);
}

void api_publish_daemon(struct rpc_topic *topic, const char *action)
{
    struct api_event *event = xnew(struct api_event);

    event->time = clock_now();
    event->type = xstrdup("daemon");
    event->action = xstrdup(action);
    event->id = xstrdup(rpc_topic_boot(topic));
    event->name = xstrdup("cloched");
    json_string_map_set(&event->attributes, "version", CLOCHE_VERSION);
    rpc_topic_publish(topic, event, event->time);
}

static struct api_event_filters *copy_filters(const struct api_event_filters *filters)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_event_filters *copy = NULL;

    if (!filters)
        return NULL;
    api_event_filters_write(filters, &text);
    return api_event_filters_parse(text.data, text.length, NULL, &copy, NULL) < 0 ? NULL : copy;
}

void api_events_subscribe(struct rpc_request *request, const struct api_events_subscribe *what,
                          void *context)
{
    struct api *api = context;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_subscribed done;
    struct rpc_subscribe how = {
        .since = what->since,
        .has_since = what->has_since,
        .boot = what->boot,
        .since_time = what->since_time,
        .has_since_time = what->has_since_time,
        .filter = copy_filters(what->filters),
    };

    if (rpc_subscribe(api->events, request, &how, &done, &err) < 0) {
        api_fail(request, &err);
        return;
    }
    struct api_events_subscribed subscribed = {
        .subscription = done.id,
        .boot = (char *)(uintptr_t)rpc_topic_boot(api->events),
        .next = done.next,
        .oldest = done.oldest,
    };
    rpc_reply(request, &subscribed, NULL, 0);
}

void api_events_unsubscribe(struct rpc_request *request, const struct api_events_unsubscribe *which,
                            void *context)
{
    struct api_events_unsubscribed done = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api *api = context;

    if (rpc_unsubscribe(api->events, rpc_request_connection(request), which->subscription,
                        &done.next, &err) < 0)
        api_fail(request, &err);
    else
        rpc_reply(request, &done, NULL, 0);
}

/* ---- events.list ---- */

struct walk {
    const struct api *api;
    const struct rpc_connection *connection;
    const struct api_events_list *what;
    struct api_events_listed *answer;
    size_t limit, bytes;
};

static bool is_wanted(const struct api_events_list *what, const struct api_event *event)
{
    return (!what->has_since_time || event->time >= what->since_time) &&
           (!what->has_until_time || event->time < what->until_time) &&
           (!what->filters || engine_event_matches(what->filters, event));
}

/* Roughly: what makes an event long is its labels. */
static size_t size_of(const struct api_event *event)
{
    size_t size = 512;

    for (size_t i = 0; i < event->attributes->count; i++)
        size += strlen(event->attributes->keys[i]) + strlen(event->attributes->values[i]) + 8;
    return size;
}

/* The answer borrows the event. */
static bool add(uint64_t sequence, const void *event, void *data)
{
    struct walk *walk = data;
    struct api_events_listed *answer = walk->answer;

    if (is_wanted(walk->what, event) && api_sees_event(walk->api, walk->connection, event)) {
        if (answer->events_count >= walk->limit || walk->bytes > LIST_BYTES_MAX) {
            answer->more = true;
            return false;
        }
        struct api_numbered_event *numbered = xnew(struct api_numbered_event);
        numbered->sequence = sequence;
        numbered->event = (struct api_event *)(uintptr_t)event;
        answer->events[answer->events_count++] = numbered;
        walk->bytes += size_of(event);
    }
    answer->next = sequence + 1;
    return true;
}

void api_events_list(struct rpc_request *request, const struct api_events_list *what, void *context)
{
    struct api *api = context;
    struct api_events_listed answer = {
        .boot = (char *)(uintptr_t)rpc_topic_boot(api->events),
        .next = what->since > rpc_topic_next(api->events) || !what->since
                    ? rpc_topic_oldest(api->events)
                    : what->since,
        .oldest = rpc_topic_oldest(api->events),
    };
    struct walk walk = {.api = api,
                        .connection = rpc_request_connection(request),
                        .what = what,
                        .answer = &answer,
                        .limit = what->has_limit ? what->limit : LIST_MAX};

    answer.events = xnew_array(struct api_numbered_event *, walk.limit + 1);
    rpc_topic_walk(api->events, what->since, add, &walk);
    rpc_reply(request, &answer, NULL, 0);
    for (size_t i = 0; i < answer.events_count; i++)
        free(answer.events[i]);
    free(answer.events);
}
