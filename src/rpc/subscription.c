#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <rpc/subscription.h>
#include <schema/json.h>
#include <schema/subscription.h>

/* An event as it is sent and as filters look at it. */
struct kept {
    char *text; /* owned; JSON */
    void *event;
    size_t bytes;
    int64_t time;
};

struct rpc_topic {
    struct rpc_loop *loop;
    struct rpc_topic_options options;
    char boot[RPC_TOPIC_BOOT_DIGITS + 1];
    struct kept *ring; /* of events_max; number n is at n % events_max */
    uint64_t oldest, next;
    int64_t dropped; /* the time of the youngest that is not kept any more */
    size_t bytes;
    struct rpc_task pump;
    struct subscriber *subscribers;
    size_t subscriptions;
};

/* A connection with its subscriptions. */
struct subscriber {
    struct subscriber *next;
    struct rpc_topic *topic;
    struct rpc_connection *connection;
    struct rpc_connection_watch watch;
    struct subscription *subscriptions; /* the one that waited longest first */
    size_t count;
    uint64_t last_id;
    bool full; /* the connection says when it takes more */
};

struct subscription {
    struct subscription *next;
    uint64_t id;
    uint64_t at; /* the number that is looked at next */
    void *filter;
    size_t charged;     /* to the connection, for the filter */
    const char *reason; /* why what is missing at `at` is missing */
    bool told_anyway;   /* of a loss, whether or not it is known what is missing */
};

/* ---- the ring ---- */

static struct kept *kept_at(const struct rpc_topic *topic, uint64_t sequence)
{
    return &topic->ring[sequence % topic->options.events_max];
}

static void drop_oldest(struct rpc_topic *topic)
{
    struct kept *kept = kept_at(topic, topic->oldest++);

    topic->bytes -= kept->bytes;
    if (kept->time > topic->dropped)
        topic->dropped = kept->time;
    json_free(topic->options.event_type, kept->event);
    free(kept->text);
    *kept = (struct kept){0};
}

static void make_room(struct rpc_topic *topic, size_t bytes)
{
    while (topic->oldest < topic->next &&
           (topic->next - topic->oldest >= topic->options.events_max ||
            topic->bytes + bytes > topic->options.bytes_max))
        drop_oldest(topic);
}

uint64_t rpc_topic_publish(struct rpc_topic *topic, void *event, int64_t time)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    json_write(topic->options.event_type, event, &text);
    /* The struct has the same strings again, and not much else. */
    size_t bytes = sizeof(struct kept) + 2 * (text.length + 1);
    make_room(topic, bytes);
    *kept_at(topic, topic->next) = (struct kept){
        .text = xstrndup(buffer_text(&text), text.length),
        .event = event,
        .bytes = bytes,
        .time = time,
    };
    topic->bytes += bytes;
    if (topic->subscribers)
        rpc_loop_queue_later(topic->loop, &topic->pump);
    return topic->next++;
}

/* The first that is as young, whatever the clock did since. */
static uint64_t find_time(const struct rpc_topic *topic, int64_t time)
{
    uint64_t at = topic->oldest;

    while (at < topic->next && kept_at(topic, at)->time < time)
        at++;
    return at;
}

void rpc_topic_walk(const struct rpc_topic *topic, uint64_t since, rpc_topic_visit visit,
                    void *data)
{
    for (uint64_t at = since > topic->oldest ? since : topic->oldest; at < topic->next; at++) {
        if (!visit(at, kept_at(topic, at)->event, data))
            return;
    }
}

/* ---- sending ---- */

/* -ENOBUFS: the connection says when it takes more. -ENOTCONN: it has ended, maybe just now, and
 * the subscriber is gone with it. */
static int notify(struct rpc_connection *connection, const char *method,
                  const struct json_type *type, const void *params)
{
    int r = rpc_connection_notify(connection, method, type, params);

    return r >= 0 && rpc_connection_closed(connection) ? -ENOTCONN : r;
}

static int tell_lost(const struct subscriber *subscriber, struct subscription *subscription)
{
    const struct rpc_topic *topic = subscriber->topic;
    uint64_t missing = topic->oldest > subscription->at ? topic->oldest - subscription->at : 0;
    struct subscription_lost lost = {.subscription = subscription->id,
                                     .from = subscription->at,
                                     .count = missing,
                                     .reason = (char *)(uintptr_t)subscription->reason};

    if (!missing && !subscription->told_anyway)
        return 0;
    int r =
        notify(subscriber->connection, topic->options.lost_method, &subscription_lost_type, &lost);
    if (r < 0)
        return r;
    subscription->at += missing;
    subscription->told_anyway = false;
    return 0;
}

static bool is_wanted(const struct subscriber *subscriber, const struct subscription *subscription,
                      const void *event)
{
    const struct rpc_topic_options *options = &subscriber->topic->options;

    return (!subscription->filter || options->matches(subscription->filter, event)) &&
           (!options->visible || options->visible(subscriber->connection, event, options->data));
}

static int tell_event(const struct subscriber *subscriber, struct subscription *subscription)
{
    const struct rpc_topic *topic = subscriber->topic;
    const struct kept *kept = kept_at(topic, subscription->at);
    struct subscription_event event = {
        .subscription = subscription->id, .sequence = subscription->at, .event = kept->text};
    int r = 0;

    if (is_wanted(subscriber, subscription, kept->event))
        r = notify(subscriber->connection, topic->options.event_method, &subscription_event_type,
                   &event);
    if (r >= 0)
        subscription->at++;
    return r;
}

static int advance(const struct subscriber *subscriber, struct subscription *subscription)
{
    int r = tell_lost(subscriber, subscription);

    /* From here on only slowness loses something. */
    if (r >= 0)
        subscription->reason = "slow";
    while (r >= 0 && subscription->at < subscriber->topic->next)
        r = tell_event(subscriber, subscription);
    return r;
}

/* The one that filled the connection is the last to be served when there is room again. */
static void move_to_end(struct subscriber *subscriber, struct subscription *subscription)
{
    struct subscription **at = &subscriber->subscriptions;

    while (*at != subscription)
        at = &(*at)->next;
    *at = subscription->next;
    while (*at)
        at = &(*at)->next;
    *at = subscription;
    subscription->next = NULL;
}

static void serve(struct subscriber *subscriber)
{
    int r = 0;

    for (struct subscription *at = subscriber->subscriptions; at; at = at->next) {
        r = advance(subscriber, at);
        if (r == -ENOTCONN)
            return;
        if (r < 0) {
            subscriber->full = r == -ENOBUFS;
            move_to_end(subscriber, at);
            return;
        }
    }
}

/* A notification that cannot be sent at all may end the connection, and with it the subscriber. */
static void on_pump(struct rpc_task *task)
{
    struct rpc_topic *topic = (struct rpc_topic *)((char *)task - offsetof(struct rpc_topic, pump));
    struct subscriber *next;

    for (struct subscriber *at = topic->subscribers; at; at = next) {
        struct rpc_connection *connection = at->connection;
        next = at->next;
        if (at->full)
            continue;
        rpc_connection_hold(connection);
        serve(at);
        rpc_connection_release(connection);
    }
}

static void on_drained(struct rpc_connection_watch *watch)
{
    struct subscriber *subscriber =
        (struct subscriber *)((char *)watch - offsetof(struct subscriber, watch));

    subscriber->full = false;
    rpc_loop_queue_later(subscriber->topic->loop, &subscriber->topic->pump);
}

/* ---- who has subscribed ---- */

static void subscription_free(struct subscriber *subscriber, struct subscription *subscription)
{
    struct rpc_topic *topic = subscriber->topic;

    if (!rpc_connection_closed(subscriber->connection))
        rpc_connection_discharge(subscriber->connection, subscription->charged);
    json_free(topic->options.filter_type, subscription->filter);
    free(subscription);
    topic->subscriptions--;
}

static void subscriber_free(struct subscriber *subscriber)
{
    struct rpc_topic *topic = subscriber->topic;
    struct subscriber **at = &topic->subscribers;

    while (*at != subscriber)
        at = &(*at)->next;
    *at = subscriber->next;
    while (subscriber->subscriptions) {
        struct subscription *subscription = subscriber->subscriptions;
        subscriber->subscriptions = subscription->next;
        subscription_free(subscriber, subscription);
    }
    free(subscriber);
}

static void on_closed(struct rpc_connection_watch *watch)
{
    subscriber_free((struct subscriber *)((char *)watch - offsetof(struct subscriber, watch)));
}

static struct subscriber *find_subscriber(const struct rpc_topic *topic,
                                          const struct rpc_connection *connection)
{
    struct subscriber *at = topic->subscribers;

    while (at && at->connection != connection)
        at = at->next;
    return at;
}

static struct subscriber *find_or_add(struct rpc_topic *topic, struct rpc_connection *connection)
{
    struct subscriber *subscriber = find_subscriber(topic, connection);

    if (subscriber)
        return subscriber;
    subscriber = xnew(struct subscriber);
    subscriber->topic = topic;
    subscriber->connection = connection;
    subscriber->watch.drained = on_drained;
    subscriber->watch.closed = on_closed;
    rpc_connection_watch(connection, &subscriber->watch);
    subscriber->next = topic->subscribers;
    topic->subscribers = subscriber;
    return subscriber;
}

/* Where a subscription begins, and why what is missing there is missing. */
static void place(const struct rpc_topic *topic, const struct rpc_subscribe *how,
                  struct subscription *subscription)
{
    subscription->reason = "gone";
    if (!how->has_since && how->has_since_time) {
        subscription->at = find_time(topic, how->since_time);
        /* Some of that time are gone, nobody knows how many. */
        if (topic->oldest > 1 && how->since_time <= topic->dropped)
            subscription->told_anyway = true;
    } else if (!how->has_since) {
        subscription->at = topic->next;
    } else if (how->since > topic->next || (how->boot && !text_equal(how->boot, topic->boot))) {
        subscription->reason = "restarted";
        subscription->told_anyway = true;
        subscription->at = 1;
    } else {
        subscription->at = how->since ? how->since : topic->oldest;
    }
}

static int check_subscribe(const struct rpc_topic *topic, const struct rpc_request *request,
                           struct error *err)
{
    const struct rpc_connection *connection = rpc_request_connection(request);
    const struct subscriber *subscriber = find_subscriber(topic, connection);

    if (rpc_connection_closed(connection))
        return error_set(err, -ENOTCONN, "the connection has ended");
    if (!rpc_request_is_alone(request)) {
        error_set(err, -EBUSY, "a subscription in a batch would begin before its answer");
        error_hint(err, "Send the call by itself, with an id.");
        return -EBUSY;
    }
    if (subscriber && subscriber->count >= topic->options.subscriptions_max) {
        error_set(err, -ENOBUFS, "the connection has %zu subscriptions already", subscriber->count);
        error_hint(err, "End one of them, or make another connection.");
        return -ENOBUFS;
    }
    return 0;
}

/* What it takes in memory, roughly. */
static size_t size_of_filter(const struct rpc_topic *topic, const void *filter)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!filter)
        return 0;
    json_write(topic->options.filter_type, filter, &text);
    return 1024 + 2 * text.length;
}

int rpc_subscribe(struct rpc_topic *topic, struct rpc_request *request,
                  const struct rpc_subscribe *how, struct rpc_subscribed *ret, struct error *err)
{
    int r = check_subscribe(topic, request, err);

    if (r < 0) {
        json_free(topic->options.filter_type, how->filter);
        return r;
    }
    size_t bytes = sizeof(struct subscription) + size_of_filter(topic, how->filter);
    r = rpc_connection_charge(rpc_request_connection(request), bytes);
    if (r < 0) {
        json_free(topic->options.filter_type, how->filter);
        error_set(err, r, "too much is kept for this user already");
        error_hint(err, "End other subscriptions, or filter by less.");
        return r;
    }
    struct subscriber *subscriber = find_or_add(topic, rpc_request_connection(request));
    struct subscription *subscription = xnew(struct subscription);
    subscription->charged = bytes;
    subscription->id = ++subscriber->last_id;
    subscription->filter = how->filter;
    place(topic, how, subscription);
    subscription->next = subscriber->subscriptions;
    subscriber->subscriptions = subscription;
    subscriber->count++;
    topic->subscriptions++;
    *ret = (struct rpc_subscribed){subscription->id, topic->next, topic->oldest};
    rpc_loop_queue_later(topic->loop, &topic->pump);
    return 0;
}

int rpc_unsubscribe(struct rpc_topic *topic, struct rpc_connection *connection, uint64_t id,
                    uint64_t *ret_next, struct error *err)
{
    struct subscriber *subscriber = find_subscriber(topic, connection);
    struct subscription **at = subscriber ? &subscriber->subscriptions : NULL;

    while (at && *at && (*at)->id != id)
        at = &(*at)->next;
    if (!at || !*at)
        return error_set(err, -ENOENT, "the connection has no subscription %ju", (uintmax_t)id);
    struct subscription *subscription = *at;
    *at = subscription->next;
    *ret_next = subscription->at;
    subscription_free(subscriber, subscription);
    subscriber->count--;
    /* The subscriber stays for its numbers: an old one never means a new subscription. */
    return 0;
}

/* ---- the topic itself ---- */

void rpc_topic_create(struct rpc_loop *loop, const struct rpc_topic_options *options,
                      struct rpc_topic **ret)
{
    struct rpc_topic *topic = xnew(struct rpc_topic);

    topic->loop = loop;
    topic->options = *options;
    if (!topic->options.events_max)
        topic->options.events_max = RPC_TOPIC_EVENTS_MAX;
    if (!topic->options.bytes_max)
        topic->options.bytes_max = RPC_TOPIC_BYTES_MAX;
    if (!topic->options.subscriptions_max)
        topic->options.subscriptions_max = RPC_SUBSCRIPTIONS_MAX;
    topic->ring = xnew_array(struct kept, topic->options.events_max);
    topic->oldest = topic->next = 1;
    topic->pump.callback = on_pump;
    text_random_hex(topic->boot, RPC_TOPIC_BOOT_DIGITS);
    *ret = topic;
}

void rpc_topic_destroy(struct rpc_topic *topic)
{
    if (!topic)
        return;
    while (topic->subscribers) {
        rpc_connection_unwatch(&topic->subscribers->watch);
        subscriber_free(topic->subscribers);
    }
    rpc_loop_unqueue(topic->loop, &topic->pump);
    while (topic->oldest < topic->next)
        drop_oldest(topic);
    free(topic->ring);
    free(topic);
}

const char *rpc_topic_boot(const struct rpc_topic *topic)
{
    return topic->boot;
}

uint64_t rpc_topic_next(const struct rpc_topic *topic)
{
    return topic->next;
}

uint64_t rpc_topic_oldest(const struct rpc_topic *topic)
{
    return topic->oldest;
}

size_t rpc_topic_bytes(const struct rpc_topic *topic)
{
    return topic->bytes;
}

size_t rpc_topic_subscriptions(const struct rpc_topic *topic)
{
    return topic->subscriptions;
}
