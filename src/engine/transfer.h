/*
 * A call that cloche-registry does: prepared and finished on threads, watched on the loop.
 *
 *     transfer_start -> begin (thread) -> the worker runs -> finish (thread) -> [once more] -> done
 *
 * Several that would do the same at once are one: it ends early only when the last caller has gone.
 */
#ifndef ENGINE_TRANSFER_H
#define ENGINE_TRANSFER_H

#include <engine/registry.h>
#include <image/worker.h>
#include <store/reference.h>

#include "internal.h"

struct transfer_kind {
    const struct json_type *type; /* of the document */
    /* On a thread. Fills in the request, and staging where it is needed; what it takes of the store
     * is given back by finish. */
    int (*begin)(struct transfer *transfer, struct error *err);
    /* On a thread, also after a failure (result NULL then) unless begin failed. Adds to the
     * document. */
    int (*finish)(struct transfer *transfer, const struct image_worker_result *result,
                  struct error *err);
    /* On the loop, after success: tells events, and says whether there is another round. */
    bool (*next)(struct transfer *transfer);
};

struct transfer {
    struct transfer *next; /* of the engine's */
    struct engine *engine;
    const struct transfer_kind *kind;
    struct engine_transfer_callbacks callbacks;
    uv_work_t work;
    uv_poll_t poll;
    uv_timer_t timer;           /* of a caller that goes away before the end */
    char *key;                  /* owned: two with the same do the same; NULL: this one alone */
    struct transfer *leader;    /* set: that one does it, and this is a caller of it only */
    struct transfer *followers; /* by next */
    struct image_worker_request *request; /* owned, of one round. So are the next four */
    struct store_staging *staging;
    struct image_worker *worker;
    struct image_worker_result *result;
    int content_fd; /* borrowed; -1: none */
    bool begun;     /* finish is owed */
    bool polling, cancelled;
    void *document; /* owned */
    struct error err;

    /* Arguments and state of the kinds, owned. */
    char *registry;
    struct image_worker_registry *access; /* moved into the request */
    struct store_reference reference;
    struct image_worker_platform *platform;
    uint32_t parallel;
    bool all_tags;
    char *term;
    uint32_t limit;
    char **tags; /* push: those that are left, first one is under way */
    size_t tag;
    char **news; /* action, ID, name; three for each event */
};

struct transfer *transfer_new(struct engine *engine, const struct transfer_kind *kind,
                              const struct engine_transfer_callbacks *callbacks);
/* Whether there is one of the same kind and key under way, which it then waits for. */
bool transfer_join(struct transfer *transfer);
/* Returns it, or NULL when it is over already. */
struct transfer *transfer_start(struct transfer *transfer);
/* Instead: it fails. */
void transfer_refuse(struct transfer *transfer, const struct error *err);

/* An event to be told when the round has succeeded. */
void transfer_add_news(struct transfer *transfer, const char *action, const char *id,
                       const char *name);

/* Cancels all of the engine's. */
void transfers_end(struct engine *engine);

#endif
