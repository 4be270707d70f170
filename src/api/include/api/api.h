/*
 * The management methods (runtime-spec/management.json) over the engine: each handler checks what
 * it is given, asks the engine, and answers. No state but the engine's.
 */
#ifndef API_API_H
#define API_API_H

#include <stdbool.h>

#include <base/error.h>
#include <engine/engine.h>
#include <rpc/server.h>
#include <rpc/subscription.h>

/* The server's context. */
struct api {
    struct engine *engine;
    struct rpc_topic *events; /* made with api_events_topic */
    /* Whether the peer may know of a container ("": of one that has no ID, or no name). NULL: of
     * all. */
    bool (*sees)(const struct rpc_connection *connection, const char *id, const char *name,
                 void *data);
    /* Answers rpc.whoami. */
    void (*whoami)(struct rpc_request *request, void *data);
    /* system.shutdown was answered, or, with removed, system.remove: the daemon is to end. */
    void (*shutdown)(bool removed, void *data);
    void *data;
};

extern const struct rpc_topic_options api_events_topic;

/* For engine_config.on_event; topic: such a topic. */
void api_publish(struct api_event *event, void *topic);

/* What the daemon itself does: start, reload. */
void api_publish_daemon(struct rpc_topic *topic, const char *action);

/* Whether the peer may be told of it. */
bool api_sees_event(const struct api *api, const struct rpc_connection *connection,
                    const struct api_event *event);

/* All of the schema. The server's context is the struct api. */
int api_add_methods(struct rpc_server *server, struct error *err);

#endif
