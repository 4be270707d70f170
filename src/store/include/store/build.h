/*
 * Images that a build makes step by step, and the cache by which the next build finds them.
 *
 * A step's image is a record like any other, without a name; its layers are in place, but neither
 * its documents are blobs nor is anything flushed: that happens once, when the build seals the
 * image it was made for. What was not sealed when the machine went down is dropped at the next
 * opening; a daemon's death alone costs nothing.
 *
 * Thread-safe and blocking as all of the store.
 */
#ifndef STORE_BUILD_H
#define STORE_BUILD_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/image_worker.h>
#include <schema/oci_image.h>
#include <store/staging.h>
#include <store/store.h>

/* A build (or commit) holds the images that it stands on, has made and has found, from removal
 * until its end: its number is part of each call. The end may flush. */
int64_t store_build_begin(struct store *store);
void store_build_end(struct store *store, int64_t build);
/* -ENOENT: it is gone. */
int store_build_hold(struct store *store, int64_t build, const char *image, struct error *err);

struct store_step {
    int64_t build;
    const char *parent; /* image ID; NULL: it stands on nothing */
    const char *key; /* in the cache: sha256:HEX of all that decides the result; NULL: not kept */
    const char *os, *architecture; /* without a parent */
    const struct oci_image_execution *config;
    const char *author;                     /* NULL: the parent's */
    const char *created_by;                 /* for the history; NULL: no entry */
    const char *comment;                    /* for the history; NULL: none */
    const struct image_worker_layer *layer; /* in staging; NULL: nothing changed but the config */
};

/* staging may be NULL without a layer. *ret_id is owned: sha256:HEX. */
int store_build_step(struct store *store, struct store_staging *staging,
                     const struct store_step *step, char **ret_id, struct error *err);

/* The key of a text that says all of it: 72 bytes with NUL. */
void store_build_key(const char *text, size_t length, char ret[72]);

/* The image that a build made of the same parent by the same step. *ret_id is owned; NULL: there is
 * none. */
int store_build_find(struct store *store, int64_t build, const char *key, char **ret_id,
                     struct error *err);

/* Squashing: image `id`, which a build made of `parent` (NULL: of nothing), with all that it added
 * as one layer. First the names of the folders in ROOT/layers, highest first: *ret_layers that
 * become one, *ret_below those of the parent. Owned. Both images are held. */
int store_squash_layers(struct store *store, const char *id, const char *parent, char ***ret_layers,
                        char ***ret_below, struct error *err);
/* layer is in staging. *ret_id is owned: an image as store_build_step() makes one, whose parent no
 * inspection shows. */
int store_build_squash(struct store *store, struct store_staging *staging, int64_t build,
                       const char *id, const char *parent, const struct image_worker_layer *layer,
                       char **ret_id, struct error *err);

/* Makes the image whole and durable, and gives it names (as store_image_tag). */
int store_build_seal(struct store *store, const char *id, char *const *names, char ***ret_names,
                     struct error *err);

/* A step that no build has sealed becomes whole and durable, unless a build under way holds it,
 * which does so itself. Before something is made to stand on it. */
int store_image_settle(struct store *store, const char *id, struct error *err);
/* Whether that has something to do, for which it flushes the disk. */
bool store_image_is_loose(const struct store_image *image);
/* All steps that containers were made from in a build whose daemon was killed: a power cut would
 * take them away. The first failure is told, and the others are done. Blocks, flushes. */
int store_build_settle_left(struct store *store, struct error *err);

/* Removes images of steps that nothing stands on: no name, no child, no container, no build. */
struct store_prune {
    int64_t until;        /* made before it: nanoseconds since 1970; 0: any */
    int64_t unused_since; /* no build has used it since; 0: any */
    uint64_t keep;        /* bytes that may stay; 0: none */
    bool all;             /* also forget the keys of those that stay */
    bool steps_only;      /* leave what a build ended with, named or not */
};
struct store_pruned {
    char **deleted; /* owned; image IDs */
    uint64_t reclaimed;
};
int store_build_prune(struct store *store, const struct store_prune *how, struct store_pruned *ret,
                      struct error *err);
void store_pruned_finish(struct store_pruned *pruned);

#endif
