/* The beginning and the end. */
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/memory.h>
#include <block/budget.h>

#include "server.h"

/* Doors make threads of their own. */
static void make_stacks_small(void)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
}

/* Waits are by the clock that never goes back. */
static void init(struct server *server, const struct server_options *options)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, &attributes);
    pthread_cond_init(&server->work, &attributes);
    pthread_condattr_destroy(&attributes);
    server->options = options;
    server->source = options->kind == SERVER_IMAGE ? &image_source : &stick_source;
}

enum server_end server_run(const struct server_options *options)
{
    static struct server server;
    _cleanup_error_ struct error err = ERROR_INIT;
    make_stacks_small();
    budget_set(options->kept ? options->kept : options->memory / 2);
    memory_use_one_heap();
    init(&server, options);
    int r = control_open(&server, &err);
    if (r == 0)
        r = keeper_start(&server, &err);
    if (r == 0)
        r = server.source->open(&server, &err);
    if (r != 0) {
        log_failure(LOG_ERROR, &err, "cannot start");
        return SERVER_FAILED;
    }
    control_run(&server);
    return server.end;
}
