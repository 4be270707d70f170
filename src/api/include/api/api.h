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

/* The context given to rpc_server_create(). */
struct api {
    struct engine *engine;
    /* system.shutdown was answered, or, with removed, system.remove: the daemon is to end. */
    void (*shutdown)(bool removed, void *data);
    void *data;
};

/* A handler for each method of the schema; static. *ret_count of them. */
const struct rpc_method *api_methods(size_t *ret_count);

#endif
