/*
 * Is the store what its records say? What a disk that lost or changed something has done is found,
 * and repaired from what is still good: documents from the records, folders of layers from their
 * blobs.
 *
 *   store_check_records     the database, documents, folders and sizes; milliseconds
 *   store_check_layers      the layers with their blobs, for a deep check: the engine gives each
 * blob to an image worker, which sums it up and compares it with the folder store_check_blob_lost,
 * store_check_layer_replace    what is to be done with what that found
 *
 * Between store_hold() and store_release() no layer or blob is deleted. Thread-safe and blocking as
 * all of the store.
 */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/image_worker.h>
#include <store/staging.h>
#include <store/store.h>

struct store_problem {
    char *what;    /* "layer sha256:HEX of shop:latest" */
    char *problem; /* "its folder is missing" */
    char *remedy;  /* what was done, or what can be */
    bool repaired;
};

struct store_report {
    struct store_problem *problems;
    size_t problems_count;
    uint64_t images, layers, blobs, containers; /* looked at */
};

void store_report_finish(struct store_report *report);
#define _cleanup_store_report_ _cleanup_(store_report_finish)

/* Texts are copied. */
void store_report_add(struct store_report *report, const char *what, const char *problem,
                      const char *remedy, bool repaired);

/* holder: any pointer that is its own while it holds. */
void store_hold(struct store *store, const void *holder);
void store_release(struct store *store, const void *holder);

/* Everything that can be seen without reading layers. repair: documents that are missing or damaged
 * are written again where the record has them; blobs of another size than recorded are thrown away
 * (loading or pulling the image brings them back); files without a record are deleted. deep: what
 * the deep check will find out about layers that have their blob is left to it. Fails only where
 * the check itself could not be made. */
int store_check_records(struct store *store, bool deep, bool repair, struct store_report *report,
                        struct error *err);

/* A layer with one of its blobs. */
struct store_checked_layer {
    int64_t number; /* its folder in ROOT/layers */
    char *diff_id;
    char *blob;
    char *what; /* for people */
};

/* Those whose blob is there. */
int store_check_layers(struct store *store, struct store_checked_layer **ret, size_t *ret_count,
                       struct error *err);
void store_checked_layers_free(struct store_checked_layer *layers, size_t count);

/* The caller's descriptors. *ret_folder is -1 when the folder is missing. */
int store_check_open(struct store *store, const struct store_checked_layer *layer, int *ret_blob,
                     int *ret_folder, struct error *err);

/* The blob is not what its name says: it is thrown away. */
int store_check_blob_lost(struct store *store, const struct store_checked_layer *layer,
                          struct error *err);

/* The first of these containers that stands on the layer, owned; NULL: none. */
int store_check_layer_user(struct store *store, const struct store_checked_layer *layer,
                           char *const *containers, char **ret, struct error *err);

/* Puts the layer that a worker unpacked into staging in the place of its folder, which nothing may
 * have mounted. */
int store_check_layer_replace(struct store *store, struct store_staging *staging,
                              const struct store_checked_layer *layer,
                              const struct image_worker_layer *unpacked, struct error *err);

#endif
