/*
 * From an image worker's staging folder into the store, and out of it. The engine joins both:
 *
 *   load:    store_staging_create -> worker (fd: store_staging_fd) -> store_staging_import
 *   commit:  store_staging_create, store_snapshot_open_upper -> worker -> store_staging_commit
 *   save:    store_save_prepare -> worker (fd: store_content_fd) -> store_save_finish
 *
 * A staging folder is locked (flock) by its creator, so that cleaning never takes a live one.
 * Thread-safe and blocking as all of the store; one staging is used by one thread at a time.
 */
#ifndef STORE_STAGING_H
#define STORE_STAGING_H

#include <stddef.h>

#include <base/error.h>
#include <schema/image_worker.h>
#include <schema/oci_image.h>
#include <store/store.h>

struct store_staging;

int store_staging_create(struct store *store, struct store_staging **ret, struct error *err);
int store_staging_fd(const struct store_staging *staging); /* borrowed; an open directory */
/* Deletes the folder with what was not imported. NULL allowed. */
void store_staging_free(struct store_staging *staging);
static inline void cleanup_store_staging_p(struct store_staging **staging)
{
    store_staging_free(*staging);
}
#define _cleanup_store_staging_ _cleanup_(cleanup_store_staging_p)

struct store_loaded {
    char *id;
    char **names; /* short; empty (NULL): the archive had none */
};
void store_loaded_free(struct store_loaded *loaded, size_t count);

/* Moves what the worker left into place and records it: all images or none. Everything in the
 * result is checked again (digests are well-formed, files are there, layers match diff IDs). Names
 * that are no references are refused; names move from older images that had them. */
int store_staging_import(struct store_staging *staging, const struct image_worker_result *result,
                         struct store_loaded **ret, size_t *ret_count, struct error *err);

struct store_commit {
    const char *parent; /* image ID the container stands on; NULL: the layer stands on nothing */
    const struct oci_image_execution *config; /* defaults of the new image; NULL: the parent's */
    const char *name;                         /* repository[:tag]; NULL or "": none */
    const char *author;                       /* NULL: none */
    const char *comment;                      /* NULL: none */
    const char *created_by;                   /* the container's command line, for the history */
    const char *os, *architecture, *variant;  /* without a parent; variant NULL: none */
    /* What docker's inspect shows of the container it came from: its ID, and how it was set up.
     * NULL: neither. */
    const char *container;
    const struct oci_image_execution *container_config;
};

/* Makes an image of the parent and the worker's layer. ret_id: sha256:HEX, owned. */
int store_staging_commit(struct store_staging *staging, const struct image_worker_result *result,
                         const struct store_commit *commit, char **ret_id, struct error *err);

/* The request to save the images that `names` (as in store_image_find) mean; an image that was
 * asked for by ID is saved without names. -ENOENT for an unknown one, -EOPNOTSUPP for an image on
 * the base `host`, whose /usr is no layer. The images' layers are kept from removal until the
 * request is given back with store_save_finish(). */
int store_save_prepare(struct store *store, char *const *names, struct image_worker_request **ret,
                       struct error *err);
void store_save_finish(struct store *store, struct image_worker_request *request);

int store_content_fd(const struct store *store); /* ROOT/content/sha256, borrowed */
int store_layers_fd(const struct store *store);  /* ROOT/layers, borrowed */

#endif
