/*
 * The sockets that the configuration names beside the main one: each a server of its own, with its
 * own limits, and with the methods and peers that its section allows.
 */
#ifndef CLOCHED_SOCKETS_H
#define CLOCHED_SOCKETS_H

#include <base/error.h>
#include <base/instance.h>
#include <rpc/server.h>

#include "config.h"

struct sockets;
struct rpc_loop;

struct sockets_options {
    struct rpc_loop *loop;
    const struct instance *instance;
    void *context;        /* of the methods */
    const char *document; /* OpenRPC of all methods */
    int (*add_methods)(struct rpc_server *server, struct error *err);
    /* The name of a container of ours, valid until control returns to the loop; NULL: there is
     * none. */
    const char *(*container_name)(const char *id, void *data);
    void *data;
};

/* No sockets yet. options and what they point to have to outlive it. */
struct sockets *sockets_create(const struct sockets_options *options);

/* Makes the sockets what the configuration (taken over) says: those that it does not name any more
 * are closed, with their connections; those whose limits have changed are made anew; the rest goes
 * on with what is allowed now. A socket that cannot be made is logged, and missing. -EIO: such a
 * one there was. */
int sockets_apply(struct sockets *sockets, struct config *config);

/* Closes all, and removes their files. NULL is nothing. */
void sockets_destroy(struct sockets *sockets);

/* Whether the peer of a connection of these may call the method, and may know of a container ("":
 * of one without an ID, or a name). */
bool sockets_may_call(struct sockets *sockets, const struct rpc_connection *connection,
                      const char *method);
bool sockets_sees(struct sockets *sockets, const struct rpc_connection *connection, const char *id,
                  const char *name);

/* Whether the server is one of these. */
bool sockets_has(const struct sockets *sockets, const struct rpc_server *server);

/* Answers rpc.whoami, on these sockets and on the main one. */
void sockets_whoami(struct sockets *sockets, struct rpc_request *request);

/* For config_load(): whether the pattern fits a method that there is. */
bool sockets_is_method(const char *pattern);

/* For the main server: frees what sockets_whoami() has kept of a connection. */
void sockets_connection_closed(struct rpc_connection *connection, void *context);

/* The options of a server with these limits; limits may be NULL. */
struct rpc_limits sockets_limits(const struct config_limits *limits);

#endif
