/*
 * Topics of include/cloche/rpc.h: subscription.c with events that are JSON objects of any kind, and
 * the two methods that go with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <rpc/subscription.h>

#include "library.h"
#include "server_internal.h"

struct cloche_rpc_topic {
    struct cloche_rpc_topic *next;
    struct rpc_topic *inner; /* NULL: the server has ended */
    char *subscribe, *unsubscribe, *event, *lost;
    struct rpc_topic_options options;
};

/* Events are told apart by whoever reads them: there are no filters. */
static bool matches(const void *filter, const void *event)
{
    return true;
}

static void fail(struct cloche_rpc_request *request, const struct error *err)
{
    cloche_rpc_fail(request, rpc_code_of_errno(err->code), error_message(err), err->hint);
}

/* Whether it is as it has to be; absent is. */
static bool read_number(struct cloche_rpc_request *request, const char *name, int64_t *ret,
                        bool *ret_has)
{
    int r = cloche_rpc_integer(request, name, ret);

    *ret_has = r == 0;
    return r == -ENOENT || (r == 0 && *ret >= 0);
}

static void on_subscribe(struct cloche_rpc_request *request, void *context)
{
    struct rpc_topic *topic = library_topic(request)->inner;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_subscribe how = {0};
    struct rpc_subscribed done;
    int64_t since = 0;

    if (!read_number(request, "since", &since, &how.has_since) ||
        !read_number(request, "sinceTime", &how.since_time, &how.has_since_time) ||
        cloche_rpc_string(request, "boot", &how.boot) == -EINVAL) {
        cloche_rpc_fail(request, CLOCHE_RPC_INVALID_PARAMS,
                        "since and sinceTime are numbers from 0 on, boot is a text", NULL);
        return;
    }
    how.since = (uint64_t)since;
    if (rpc_subscribe(topic, library_inner(request), &how, &done, &err) < 0) {
        fail(request, &err);
        return;
    }
    cloche_rpc_reply_format(request,
                            "{\"subscription\":%llu,\"boot\":\"%s\",\"next\":%llu,\"oldest\":%llu}",
                            (unsigned long long)done.id, rpc_topic_boot(topic),
                            (unsigned long long)done.next, (unsigned long long)done.oldest);
}

static void on_unsubscribe(struct cloche_rpc_request *request, void *context)
{
    struct rpc_topic *topic = library_topic(request)->inner;
    _cleanup_error_ struct error err = ERROR_INIT;
    uint64_t next;
    int64_t id;

    if (cloche_rpc_integer(request, "subscription", &id) < 0)
        cloche_rpc_fail_params(request);
    else if (rpc_unsubscribe(topic, rpc_request_connection(library_inner(request)), (uint64_t)id,
                             &next, &err) < 0)
        fail(request, &err);
    else
        cloche_rpc_reply_format(request, "{\"next\":%llu}", (unsigned long long)next);
}

static int add_methods(struct cloche_rpc_server *server, struct cloche_rpc_topic *topic)
{
    static const char *const how[] = {"since", "boot", "sinceTime", NULL};
    static const char *const which[] = {"subscription", NULL};
    const struct cloche_rpc_method subscribe = {.size = sizeof(subscribe),
                                                .name = topic->subscribe,
                                                .params = how,
                                                .handler = on_subscribe};
    const struct cloche_rpc_method unsubscribe = {.size = sizeof(unsubscribe),
                                                  .name = topic->unsubscribe,
                                                  .params = which,
                                                  .handler = on_unsubscribe};

    int r = library_add_of_topic(server, &subscribe, topic);
    return r < 0 ? r : library_add_of_topic(server, &unsubscribe, topic);
}

int cloche_rpc_topic_create(struct cloche_rpc_server *server, const char *name,
                            struct cloche_rpc_topic **ret)
{
    struct cloche_rpc_topic *topic = xnew(struct cloche_rpc_topic);

    topic->subscribe = xasprintf("%s.subscribe", name);
    topic->unsubscribe = xasprintf("%s.unsubscribe", name);
    topic->event = xasprintf("%s.event", name);
    topic->lost = xasprintf("%s.lost", name);
    topic->options = (struct rpc_topic_options){.event_method = topic->event,
                                                .lost_method = topic->lost,
                                                .event_type = &json_raw_map_type,
                                                .filter_type = &json_raw_map_type,
                                                .matches = matches};
    rpc_topic_create(rpc_server_loop(server->server), &topic->options, &topic->inner);
    /* The server's from here on: a method that is there already may have it. */
    topic->next = server->topics;
    server->topics = topic;
    int r = add_methods(server, topic);
    if (r == 0)
        *ret = topic;
    return r;
}

int64_t cloche_rpc_topic_publish(struct cloche_rpc_topic *topic, const char *event)
{
    void *value;

    if (json_parse(&json_raw_map_type, event, strlen(event), NULL, &value, NULL) < 0)
        return -EINVAL;
    return (int64_t)rpc_topic_publish(topic->inner, value, clock_now());
}

void library_end_topics(struct cloche_rpc_server *server)
{
    for (struct cloche_rpc_topic *topic = server->topics; topic; topic = topic->next) {
        rpc_topic_destroy(topic->inner);
        topic->inner = NULL;
    }
}

void library_free_topics(struct cloche_rpc_server *server)
{
    while (server->topics) {
        struct cloche_rpc_topic *topic = server->topics;
        server->topics = topic->next;
        free(topic->subscribe);
        free(topic->unsubscribe);
        free(topic->event);
        free(topic->lost);
        free(topic);
    }
}
