/*
 * Topics: numbered events that a server keeps for a while and sends to those who have subscribed.
 *
 *     rpc_topic_create(loop, &options, &topic);
 *     rpc_topic_publish(topic, event, now);             whenever something happens
 *     rpc_subscribe(topic, request, &how, &done, err);  in a handler, which then answers
 *
 * The topic has one ring of its last events, bounded by number and bytes, and each subscription is
 * a place in it: replay and live events are the same walk, so that there is neither a gap nor a
 * repetition between them, and nothing is queued for anybody. A client that does not read stays
 * where it is while its connection is full; when the ring has gone over its place it is told how
 * many events it has lost, and goes on with the oldest that there is. Whoever publishes never
 * waits.
 *
 * All functions are for the loop's thread, and none blocks.
 */
#ifndef RPC_SUBSCRIPTION_H
#define RPC_SUBSCRIPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

struct json_type;
struct rpc_connection;
struct rpc_loop;
struct rpc_request;
struct rpc_topic;

enum {
    RPC_TOPIC_EVENTS_MAX = 4096,   /* kept for replay */
    RPC_TOPIC_BYTES_MAX = 8 << 20, /* that they may take; the last event is kept in any case */
    RPC_SUBSCRIPTIONS_MAX = 16,    /* of one connection to a topic */
    RPC_TOPIC_BOOT_DIGITS = 32,
};

struct rpc_topic_options {
    const char *event_method; /* notifications (runtime-spec/subscription.json); these outlive it */
    const char *lost_method;
    const struct json_type *event_type;
    const struct json_type *filter_type;
    /* Whether a subscription with this filter (never NULL) wants the event. */
    bool (*matches)(const void *filter, const void *event);
    /* Whether the peer may be told of it, asked for each event that would be sent. NULL: of all. */
    bool (*visible)(const struct rpc_connection *connection, const void *event, void *data);
    void *data;        /* for visible */
    size_t events_max; /* 0: the default above, as for the next two */
    size_t bytes_max;
    size_t subscriptions_max;
};

void rpc_topic_create(struct rpc_loop *loop, const struct rpc_topic_options *options,
                      struct rpc_topic **ret);
/* Before the loop, and after or before its servers: subscriptions end without a word. NULL is
 * nothing. */
void rpc_topic_destroy(struct rpc_topic *topic);

/* event: of event_type, taken over. time: nanoseconds since 1970. Returns its number: 1 for the
 * first, and one more for each that follows. It is sent when the loop runs next. */
uint64_t rpc_topic_publish(struct rpc_topic *topic, void *event, int64_t time);

const char *rpc_topic_boot(const struct rpc_topic *topic); /* random; of the numbers */
uint64_t rpc_topic_next(const struct rpc_topic *topic);    /* the number of the next event */
uint64_t rpc_topic_oldest(const struct rpc_topic *topic);  /* the lowest kept, or next */
size_t rpc_topic_bytes(const struct rpc_topic *topic);     /* that the ring takes */

struct rpc_subscribe {
    uint64_t since; /* first number wanted; 0: whatever is kept */
    bool has_since;
    const char *boot; /* that gave this number; NULL: this one */
    int64_t since_time;
    bool has_since_time; /* else, without since: from now on */
    void *filter;        /* of filter_type, taken over also on failure; NULL: all */
};

struct rpc_subscribed {
    uint64_t id; /* of this connection */
    uint64_t next, oldest;
};

/* Nothing is sent before the loop goes on, so that the answer of the handler that calls this comes
 * first. Ends with the connection. -ENOBUFS: the connection has too many; -EBUSY: the request is a
 * notification or part of a batch, whose answer could come behind the first events. */
int rpc_subscribe(struct rpc_topic *topic, struct rpc_request *request,
                  const struct rpc_subscribe *how, struct rpc_subscribed *ret, struct error *err);

/* *ret_next: the number to go on from. -ENOENT: the connection has no such subscription. */
int rpc_unsubscribe(struct rpc_topic *topic, struct rpc_connection *connection, uint64_t id,
                    uint64_t *ret_next, struct error *err);

/* Subscriptions to the topic, of all connections. */
size_t rpc_topic_subscriptions(const struct rpc_topic *topic);

/* The kept events from a number on (0: all), oldest first, as long as visit() returns true. */
typedef bool (*rpc_topic_visit)(uint64_t sequence, const void *event, void *data);
void rpc_topic_walk(const struct rpc_topic *topic, uint64_t since, rpc_topic_visit visit,
                    void *data);

#endif
