/*
 * Subscriptions of a client: each on a connection of its own, in the thread that runs the loop.
 *
 *     subscriptions_take   one is new, or has been ended
 *     connect_somewhere    an endpoint that is in: TOPIC.subscribe, from where we were
 *     on_notified          events, and what was lost: handed on, and the place is kept
 *     cut                  the connection has ended, or is silent: after a while again
 *
 * The place is a number and the boot that it belongs to. Whoever answers the next time looks
 * whether he knows that boot; if not, he tells that what was in between is lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>
#include <schema/scan.h>
#include <schema/subscription.h>

#include "pool.h"

enum {
    TOPIC_MAX = 64,
    BOOT_MAX = 64,
    PING_TIMES = 10, /* an idle connection is asked for a sign of life after so many times as long
                        as connecting may take */
    DELAYS_MAX = 16,
};

struct cloche_subscription {
    struct cloche_subscription *next; /* of the client's; under the lock */
    struct cloche_client *client;
    struct cloche_subscribe_options options;
    cloche_event_callback on_event;
    cloche_lost_callback on_lost;
    void *data;
    char *topic, *method_name;
    struct json_method method;
    char *start; /* parameters of the first time; owned */
    char *rest;  /* those that do not say from where on, without braces; owned */

    bool ended, calling; /* by the caller; a callback runs. Under the lock */

    /* of the loop's thread */
    bool begun, over;
    bool homeless; /* no endpoint was in */
    struct rpc_timer timer;
    size_t at; /* the endpoint that is asked next */
    struct endpoint *endpoint;
    struct rpc_channel *channel; /* NULL: none */
    bool ready, live;
    bool heard; /* something came since the last look */
    unsigned delays;
    uint64_t id;       /* of the server's */
    bool placed;       /* the number that is wanted next is known */
    bool owes_restart; /* the server is about to tell that it has begun anew */
    uint64_t wanted;   /* the number */
    char boot[BOOT_MAX + 1];
};

/* ---- callbacks ---- */

/* None begins after the caller has ended it. */
static bool begin_telling(struct cloche_subscription *subscription)
{
    client_lock(subscription->client);
    subscription->calling = !subscription->ended;
    bool wanted = subscription->calling;
    client_unlock(subscription->client);
    return wanted;
}

static void end_telling(struct cloche_subscription *subscription)
{
    client_lock(subscription->client);
    subscription->calling = false;
    if (subscription->ended)
        pthread_cond_broadcast(&subscription->client->changed);
    client_unlock(subscription->client);
}

static void tell_state(struct cloche_subscription *subscription,
                       enum cloche_subscription_state state, const struct error *err, int fault)
{
    struct cloche_error shown = {.code = err ? err->code : 0, .fault = fault};

    if (!subscription->options.changed || !begin_telling(subscription))
        return;
    if (err) {
        shown.message = (char *)(uintptr_t)error_message(err);
        shown.hint = err->hint;
    }
    subscription->options.changed(subscription->data, state, err ? &shown : NULL);
    end_telling(subscription);
}

static void tell_lost(struct cloche_subscription *subscription, uint64_t from, uint64_t count,
                      const char *reason)
{
    const struct cloche_subscription_lost lost = {
        .from = from, .count = count, .boot = subscription->boot, .reason = reason};

    if (!subscription->on_lost || !begin_telling(subscription))
        return;
    subscription->on_lost(subscription->data, &lost);
    end_telling(subscription);
}

static void take_event(struct cloche_subscription *subscription,
                       const struct subscription_event *event)
{
    const struct cloche_subscription_event shown = {
        .sequence = event->sequence, .boot = subscription->boot, .event = event->event};

    if (subscription->placed && event->sequence < subscription->wanted)
        return;
    subscription->placed = true;
    subscription->wanted = event->sequence + 1;
    if (!begin_telling(subscription))
        return;
    subscription->on_event(subscription->data, &shown);
    end_telling(subscription);
}

static void take_lost(struct cloche_subscription *subscription,
                      const struct subscription_lost *lost)
{
    subscription->placed = true;
    subscription->wanted =
        lost->count < UINT64_MAX - lost->from ? lost->from + lost->count : UINT64_MAX;
    if (text_equal(lost->reason, "restarted"))
        subscription->owes_restart = false;
    tell_lost(subscription, lost->from, lost->count, lost->reason);
}

/* ---- again, later ---- */

/* Doubled each time, and not the same for all, like looks at endpoints. */
static void wait_a_while(struct cloche_subscription *subscription)
{
    const struct cloche_client_settings *settings = &subscription->client->settings;
    uint64_t ms = settings->probe_first_ms << subscription->delays;

    if (ms > settings->probe_most_ms)
        ms = settings->probe_most_ms;
    subscription->delays += subscription->delays < DELAYS_MAX;
    client_lock(subscription->client);
    uint64_t less = client_random(subscription->client) % (ms * NS_PER_MS / 2 + 1);
    client_unlock(subscription->client);
    rpc_loop_set_timer(subscription->client->loop, &subscription->timer,
                       monotonic_now() + ms * NS_PER_MS - less);
}

static void close_channel(struct cloche_subscription *subscription)
{
    struct cloche_client *client = subscription->client;

    if (!subscription->channel)
        return;
    rpc_channel_close(steal_ptr(subscription->channel));
    client_lock(client);
    subscription->endpoint->lanes_open--;
    client_unlock(client);
}

/* elsewhere: another endpoint is asked first, if there is one. */
static void cut(struct cloche_subscription *subscription, bool elsewhere, const struct error *why)
{
    bool live = subscription->live;

    close_channel(subscription);
    subscription->live = subscription->ready = false;
    subscription->at += elsewhere;
    wait_a_while(subscription);
    if (live)
        tell_state(subscription, CLOCHE_SUBSCRIPTION_CUT, why, 0);
}

/* The server does not want it, and will not: another time would be no different. */
static void give_up(struct cloche_subscription *subscription, const struct error *why, int fault)
{
    close_channel(subscription);
    subscription->over = true;
    rpc_loop_clear_timer(subscription->client->loop, &subscription->timer);
    tell_state(subscription, CLOCHE_SUBSCRIPTION_OVER, why, fault);
}

/* ---- looks at a connection that is silent ---- */

static void look_later(struct cloche_subscription *subscription)
{
    subscription->heard = false;
    rpc_loop_set_timer(subscription->client->loop, &subscription->timer,
                       monotonic_now() + subscription->client->settings.connect_timeout_ms *
                                             PING_TIMES * NS_PER_MS);
}

static void on_pong(void *data, const struct rpc_outcome *outcome)
{
    struct cloche_subscription *subscription = data;

    if (outcome->code == 0 || outcome->fault)
        look_later(subscription);
    else if (outcome->code == -ETIMEDOUT)
        cut(subscription, true, outcome->error);
}

static void look(struct cloche_subscription *subscription)
{
    const struct rpc_call ping = {.method = &rpc_ping_method,
                                  .timeout_ms = subscription->client->settings.connect_timeout_ms,
                                  .done = on_pong,
                                  .data = subscription};

    if (subscription->heard)
        look_later(subscription);
    else
        rpc_channel_call(subscription->channel, &ping);
}

/* ---- what comes ---- */

static bool is_named(const struct cloche_subscription *subscription, const char *method,
                     size_t length, const char *what)
{
    size_t topic = strlen(subscription->topic);

    return length == topic + 1 + strlen(what) && method[topic] == '.' &&
           memcmp(method, subscription->topic, topic) == 0 &&
           memcmp(method + topic + 1, what, strlen(what)) == 0;
}

static void on_notified(void *data, const char *method, size_t method_length, const char *params,
                        size_t params_length)
{
    struct cloche_subscription *subscription = data;
    void *value;

    subscription->heard = true;
    if (!subscription->live || !params)
        return;
    if (is_named(subscription, method, method_length, "event") &&
        json_parse(&subscription_event_type, params, params_length, NULL, &value, NULL) == 0) {
        const struct subscription_event *event = value;
        if (event->subscription == subscription->id)
            take_event(subscription, event);
        json_free(&subscription_event_type, value);
    } else if (is_named(subscription, method, method_length, "lost") &&
               json_parse(&subscription_lost_type, params, params_length, NULL, &value, NULL) ==
                   0) {
        const struct subscription_lost *lost = value;
        if (lost->subscription == subscription->id)
            take_lost(subscription, lost);
        json_free(&subscription_lost_type, value);
    }
}

/* Numbers of a boot that this server does not know mean nothing to it: it begins with 1, and tells
 * so. Were the connection to end before it does, nobody would. */
static void take_boot(struct cloche_subscription *subscription,
                      const struct api_events_subscribed *subscribed)
{
    bool other = subscription->boot[0] && !text_equal(subscription->boot, subscribed->boot);
    bool owed = subscription->owes_restart;

    snprintf(subscription->boot, sizeof(subscription->boot), "%s", subscribed->boot);
    if (owed && !other)
        tell_lost(subscription, 1, 0, "restarted");
    subscription->owes_restart = other && subscription->placed;
    if (subscription->owes_restart)
        subscription->wanted = 1;
}

static void on_subscribed(void *data, const struct rpc_outcome *outcome)
{
    struct cloche_subscription *subscription = data;
    const struct api_events_subscribed *subscribed = outcome->result;

    if (outcome->code == -ECANCELED && !outcome->fault)
        return; /* it is being closed */
    if (outcome->fault) {
        if (outcome->fault == RPC_UNAVAILABLE || outcome->fault == RPC_TOO_MANY ||
            outcome->fault == RPC_DEADLINE_EXCEEDED)
            cut(subscription, true, outcome->error);
        else
            give_up(subscription, outcome->error, outcome->fault);
        return;
    }
    if (outcome->code == -EPROTO && outcome->answered) {
        give_up(subscription, outcome->error, 0);
        return;
    }
    if (!subscribed) { /* else the connection ends now, and is told of */
        if (outcome->code == -ETIMEDOUT)
            cut(subscription, true, outcome->error);
        return;
    }
    subscription->id = subscribed->subscription;
    subscription->live = subscription->heard = true;
    subscription->delays = 0;
    take_boot(subscription, subscribed);
    if (!subscription->placed && !subscription->start[0]) {
        subscription->placed = true;
        subscription->wanted = subscribed->next;
    }
    json_free(&api_events_subscribed_type, outcome->result);
    look_later(subscription);
    tell_state(subscription, CLOCHE_SUBSCRIPTION_LIVE, NULL, 0);
}

/* ---- connecting ---- */

static void on_ready(void *data)
{
    struct cloche_subscription *subscription = data;

    subscription->ready = true;
}

/* One that ends before it was ready tells of its endpoint, as for other calls. */
static void on_ended(void *data, const struct error *why)
{
    struct cloche_subscription *subscription = data;
    struct endpoint *endpoint = subscription->endpoint;
    bool unreached = !subscription->ready && !is_exhaustion(why->code);
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, why->code, "%s: %s", endpoint->name, error_message(why));
    if (unreached)
        endpoint_unreached(endpoint, error_message(&err));
    cut(subscription, unreached, &err);
}

/* The one it was on, if that is in, else the next. */
static struct endpoint *choose(struct cloche_subscription *subscription)
{
    struct cloche_client *client = subscription->client;
    struct endpoint *endpoint = NULL;

    client_lock(client);
    for (size_t i = 0; !endpoint && i < client->endpoints_count; i++) {
        size_t index = (subscription->at + i) % client->endpoints_count;
        if (client->endpoints[index].state == CLOCHE_ENDPOINT_IN) {
            endpoint = &client->endpoints[index];
            subscription->at = index;
        }
    }
    client_unlock(client);
    return endpoint;
}

static void write_params(const struct cloche_subscription *subscription, struct buffer *out)
{
    struct json_writer writer;

    if (!subscription->placed) {
        buffer_printf(out, "{%s%s%s}", subscription->rest,
                      subscription->rest[0] && subscription->start[0] ? "," : "",
                      subscription->start);
        return;
    }
    buffer_printf(out, "{%s%s\"since\":%ju,\"boot\":", subscription->rest,
                  subscription->rest[0] ? "," : "", (uintmax_t)subscription->wanted);
    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_string(&writer, subscription->boot);
    buffer_append_char(out, '}');
}

static int open_channel(struct cloche_subscription *subscription, struct endpoint *endpoint,
                        struct error *err)
{
    struct cloche_client *client = subscription->client;
    const struct rpc_channel_events events = {.notified = on_notified,
                                              .ended = on_ended,
                                              .ready = on_ready,
                                              .data = subscription,
                                              .metrics = &client->metrics};
    bool cbor = client->settings.encoding == CLOCHE_ENCODING_CBOR;
    int r = endpoint->address.transport->connect(&endpoint->address, 0, err);

    if (r >= 0)
        r = rpc_channel_open(client->loop, r, &events, &subscription->channel, err);
    if (r < 0)
        return error_context(err, "%s", endpoint->name), r;
    subscription->endpoint = endpoint;
    subscription->ready = false;
    client_lock(client);
    endpoint->connects++;
    endpoint->lanes_open++;
    client_unlock(client);
    rpc_channel_negotiate(subscription->channel, cbor ? "cbor" : "json",
                          client->settings.connect_timeout_ms);
    return 0;
}

static void connect_somewhere(struct cloche_subscription *subscription)
{
    struct cloche_client *client = subscription->client;
    _cleanup_buffer_ struct buffer params = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct endpoint *endpoint = choose(subscription);

    subscription->homeless = !endpoint;
    if (!endpoint) {
        wait_a_while(subscription);
        return;
    }
    int64_t r = open_channel(subscription, endpoint, &err);
    if (r == 0) {
        write_params(subscription, &params);
        const struct rpc_call call = {.method = &subscription->method,
                                      .text = buffer_text(&params),
                                      .text_length = params.length,
                                      .timeout_ms = client->settings.timeout_ms,
                                      .done = on_subscribed,
                                      .data = subscription};
        r = rpc_channel_call(subscription->channel, &call);
    } else if (!is_exhaustion((int)r)) {
        endpoint_unreached(endpoint, error_message(&err));
    }
    if (r < 0)
        cut(subscription, !is_exhaustion((int)r), &err);
}

static void on_time(struct rpc_timer *timer)
{
    struct cloche_subscription *subscription =
        (struct cloche_subscription *)((char *)timer - offsetof(struct cloche_subscription, timer));

    if (subscription->live)
        look(subscription);
    else if (!subscription->channel)
        connect_somewhere(subscription);
}

/* ---- the loop's thread is woken ---- */

static void subscription_free(struct cloche_subscription *subscription)
{
    if (!subscription)
        return;
    close_channel(subscription);
    rpc_loop_clear_timer(subscription->client->loop, &subscription->timer);
    free(subscription->topic);
    free(subscription->method_name);
    free(subscription->start);
    free(subscription->rest);
    free(subscription);
}

/* One that has something to do, taken off the list if it was ended; NULL: none. */
static struct cloche_subscription *next_to_do(struct cloche_client *client)
{
    struct cloche_subscription **at = &client->subscriptions, *found = NULL;
    bool any = false;

    client_lock(client);
    for (size_t i = 0; i < client->endpoints_count; i++)
        any = any || client->endpoints[i].state == CLOCHE_ENDPOINT_IN;
    while (*at && !(*at)->ended && (*at)->begun && !((*at)->homeless && any))
        at = &(*at)->next;
    found = *at;
    if (found && found->ended)
        *at = found->next;
    client_unlock(client);
    return found;
}

void subscriptions_take(struct cloche_client *client)
{
    struct cloche_subscription *subscription;

    while ((subscription = next_to_do(client))) {
        if (subscription->ended) {
            subscription_free(subscription);
            continue;
        }
        subscription->begun = true;
        subscription->homeless = false;
        connect_somewhere(subscription);
    }
}

void subscriptions_finish(struct cloche_client *client)
{
    while (client->subscriptions) {
        struct cloche_subscription *subscription = client->subscriptions;
        client->subscriptions = subscription->next;
        subscription_free(subscription);
    }
}

/* ---- from any thread ---- */

static bool is_topic(const char *topic)
{
    size_t length = strlen(topic);

    return length > 0 && length <= TOPIC_MAX &&
           strspn(topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
               length;
}

static bool says_where(const struct json_token *key)
{
    static const char *const names[] = {"since", "sinceTime", "boot"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (key->length == strlen(names[i]) && memcmp(key->text, names[i], key->length) == 0)
            return true;
    }
    return false;
}

static void add_member(struct buffer *to, const char *text, size_t length)
{
    if (to->length)
        buffer_append_char(to, ',');
    buffer_append(to, text, length);
}

/* The members that say from where on, and the others. params is valid JSON. */
static int split_params(const char *params, struct buffer *start, struct buffer *rest)
{
    struct json_scan scan = {.at = params, .end = params + strlen(params)};
    struct json_token key, value;

    json_scan_blank(&scan);
    if (json_scan_peek(&scan) != '{')
        return -EINVAL;
    for (scan.at++, json_scan_blank(&scan); json_scan_peek(&scan) == '"'; json_scan_blank(&scan)) {
        const char *begin = scan.at;
        if (!json_scan_string(&scan, &key))
            return -EINVAL;
        json_scan_blank(&scan);
        scan.at++; /* the colon */
        json_scan_blank(&scan);
        if (!json_scan_skip(&scan, RPC_DEPTH_MAX, &value))
            return -EINVAL;
        add_member(says_where(&key) ? start : rest, begin, (size_t)(scan.at - begin));
        json_scan_blank(&scan);
        scan.at += json_scan_peek(&scan) == ',';
    }
    return 0;
}

static int take_parameters(struct cloche_subscription *subscription, const char *params,
                           struct error *err)
{
    struct buffer start = BUFFER_INIT, rest = BUFFER_INIT;
    _cleanup_free_ char *text = NULL;

    int r = check_call(subscription->client, subscription->method_name, params ? params : "{}",
                       &text, err);
    if (r == 0 && split_params(text, &start, &rest) < 0)
        r = error_set(err, -EINVAL, "the parameters of a subscription are a JSON object");
    buffer_append_char(&start, '\0');
    buffer_append_char(&rest, '\0');
    subscription->start = buffer_steal(&start);
    subscription->rest = buffer_steal(&rest);
    return r;
}

static int make(struct cloche_client *client, const char *params,
                const struct cloche_subscribe_options *options,
                struct cloche_subscription *subscription, struct error *err)
{
    subscription->client = client;
    subscription->timer.callback = on_time;
    int r = check_ours(client, err);
    if (r == 0)
        r = take_subscribe_options(options, &subscription->options, err);
    if (r < 0)
        return r;
    const char *topic = subscription->options.topic ? subscription->options.topic : "events";
    if (!is_topic(topic))
        return error_set(err, -EINVAL, "'%s' is no topic", topic);
    subscription->topic = xstrdup(topic);
    subscription->options.topic = subscription->topic;
    subscription->method_name = xasprintf("%s.subscribe", topic);
    subscription->method = (struct json_method){.name = subscription->method_name,
                                                .result = &api_events_subscribed_type};
    return take_parameters(subscription, params, err);
}

static int hand_in(struct cloche_client *client, struct cloche_subscription *subscription,
                   struct error *err)
{
    client_lock(client);
    subscription->at = client_random(client) % client->endpoints_count;
    int r = client->stopping ? -ECANCELED : client_wake(client);
    if (r == 0) {
        subscription->next = client->subscriptions;
        client->subscriptions = subscription;
    }
    client_unlock(client);
    return r < 0 ? error_errno(err, -r, "begin a subscription") : 0;
}

int cloche_client_subscribe(struct cloche_client *client, const char *params,
                            const struct cloche_subscribe_options *options,
                            cloche_event_callback on_event, cloche_lost_callback on_lost,
                            void *data, struct cloche_subscription **ret,
                            struct cloche_error *error)
{
    struct cloche_subscription *subscription = xnew(struct cloche_subscription);
    _cleanup_error_ struct error err = ERROR_INIT;

    subscription->on_event = on_event;
    subscription->on_lost = on_lost;
    subscription->data = data;
    int r = make(client, params, options, subscription, &err);
    if (r == 0 && (!on_event || !ret))
        r = error_set(&err, -EINVAL, "a subscription needs somebody to tell");
    if (r == 0)
        r = hand_in(client, subscription, &err);
    if (r < 0) {
        subscription_free(subscription);
        return error_give(error, &err, 0, NULL);
    }
    *ret = subscription;
    return 0;
}

void cloche_subscription_end(struct cloche_subscription *subscription)
{
    if (!subscription)
        return;
    struct cloche_client *client = subscription->client;
    client_lock(client);
    subscription->ended = true;
    client_wake(client);
    while (subscription->calling && !client_in_loop(client))
        pthread_cond_wait(&client->changed, &client->lock);
    client_unlock(client);
}
