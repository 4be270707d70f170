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

/* The server's context. */
struct api {
    struct engine *engine;
    /* system.shutdown was answered, or, with removed, system.remove: the daemon is to end. */
    void (*shutdown)(bool removed, void *data);
    void *data;
};

/* All of the schema. The server's context is the struct api. */
int api_add_methods(struct rpc_server *server, struct error *err);

#endif
