/*
 * Images from and to registries. As all of the engine: on the loop's thread, nothing blocks, each
 * callback comes exactly once, possibly before the call returns.
 *
 * The work is done by a process, cloche-registry; the loop only reads what it says, so that a
 * registry that hangs holds nobody else up.
 */
#ifndef ENGINE_REGISTRY_H
#define ENGINE_REGISTRY_H

#include <engine/engine.h>
#include <schema/registries.h>

/* How registries are reached. Taken over; NULL: nothing special. */
void engine_set_registries(struct engine *engine, struct registries_settings *settings);

/* done: the document, or what failed. progress: as docker's lines, item may be NULL; total 0: not
 * known; progress NULL: not told. */
typedef void (*engine_transfer_done)(const struct error *err, const void *document, void *data);
typedef void (*engine_transfer_progress)(const char *item, const char *step, uint64_t done,
                                         uint64_t total, void *data);

struct engine_transfer_callbacks {
    engine_transfer_done done;
    engine_transfer_progress progress;
    void *data;
};

struct transfer;
/* Params are copied. NULL: it is over already. */
struct transfer *engine_image_pull(struct engine *engine, const struct api_image_pull *params,
                                   const struct engine_transfer_callbacks *callbacks);
struct transfer *engine_image_push(struct engine *engine, const struct api_image_push *params,
                                   const struct engine_transfer_callbacks *callbacks);
struct transfer *engine_image_search(struct engine *engine, const struct api_image_search *params,
                                     const struct engine_transfer_callbacks *callbacks);
struct transfer *engine_image_distribution(struct engine *engine,
                                           const struct api_image_distribution *params,
                                           const struct engine_transfer_callbacks *callbacks);
struct transfer *engine_registry_login(struct engine *engine,
                                       const struct api_registry_login *params,
                                       const struct engine_transfer_callbacks *callbacks);

/* Nobody waits any more: the worker is killed and done comes with -ECANCELED. What it has got of
 * layers is kept for the next time. Not to be used after done. NULL is nothing. */
void engine_transfer_cancel(struct transfer *transfer);

#endif
