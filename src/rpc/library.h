/*
 * The inside of include/cloche/rpc.h: library.c has loop, server and connections, library_request.c
 * parameters and answers.
 */
#ifndef RPC_LIBRARY_H
#define RPC_LIBRARY_H

#include <cloche/rpc.h>
#include <cloche/schema.h>
#include <rpc/server.h>
#include <schema/json.h>

struct library_method {
    struct json_method type; /* first: what the server knows */
    struct cloche_rpc_method method;
    const struct cloche_schema_method *typed; /* NULL: it is one of cloche_rpc_server_add() */
    const void *handlers;                     /* of typed */
    struct cloche_rpc_topic *topic;           /* NULL: it is not a topic's */
    struct library_method *next;
};

struct cloche_rpc_server {
    struct rpc_server *server;
    struct cloche_rpc_settings settings;
    struct library_method *methods;
    struct cloche_rpc_topic *topics;
    size_t references; /* the owner, and requests */
};

void library_server_unref(struct cloche_rpc_server *server);

/* -EEXIST: there is one of that name. */
int library_add_typed(struct cloche_rpc_server *server, const struct cloche_schema_method *typed,
                      const void *handlers);

/* A method of a topic; its name is the topic's. */
int library_add_of_topic(struct cloche_rpc_server *server, const struct cloche_rpc_method *method,
                         struct cloche_rpc_topic *topic);

/* The topics have no subscriptions any more; and are gone, when no request is left. */
void library_end_topics(struct cloche_rpc_server *server);
void library_free_topics(struct cloche_rpc_server *server);

struct rpc_request *library_inner(const struct cloche_rpc_request *request);
struct cloche_rpc_topic *library_topic(const struct cloche_rpc_request *request);

/* Of every method: params are text, or of the method's type. */
void library_handle(struct rpc_request *inner, const void *params, void *context);
void library_handle_typed(struct rpc_request *inner, const void *params, void *context);

/* The text without line ends; NULL: it is not JSON. Owned by the caller. */
char *library_one_line(const char *text);

#endif
