/*
 * What a pull and a push need of the store. The engine joins both:
 *
 *   pull:  store_staging_create, store_pull_begin -> worker -> store_staging_import ->
 *          store_pull_end
 *   push:  store_push_prepare -> worker (fd: store_content_fd) -> store_push_finish
 *
 * Thread-safe and blocking as all of the store.
 */
#ifndef STORE_PULL_H
#define STORE_PULL_H

#include <store/reference.h>
#include <store/staging.h>

enum {
    STORE_PARTIAL_DAYS = 7,   /* the beginning of a layer is kept so long */
    STORE_PARTIALS_MAX = 256, /* of them; the newest */
};
#define STORE_PARTIAL_MIN (256ULL << 10) /* bytes worth keeping */
#define STORE_PARTIAL_TOTAL (8ULL << 30) /* bytes of all of them; the newest are kept */

/* The layers that the store has, for the worker not to fetch them again; they are kept from removal
 * until store_pull_end(), for half an hour at most. What earlier pulls left of layers moves into
 * the staging folder, which gives such beginnings back to the store when it is freed. */
int store_pull_begin(struct store_staging *staging, struct image_worker_pull *request,
                     struct error *err);
void store_pull_end(struct store *store, const struct image_worker_pull *request);

/* Whether `name` (full) stands for the image with this ID. */
bool store_name_is(struct store *store, const char *name, const char *id);

/* The request to push the image that has exactly this name: image, repository, tag and mounts are
 * filled in. -ENOENT, -EOPNOTSUPP as store_save_prepare(). */
int store_push_prepare(struct store *store, const struct store_reference *name,
                       struct image_worker_push *request, struct error *err);
void store_push_finish(struct store *store, const struct image_worker_push *request);

/* Tags that the repository has here, owned list. */
int store_tags(struct store *store, const struct store_reference *repository, char ***ret,
               struct error *err);

/* Records that the image is what the registry has as NAME@DIGEST (full). */
int store_note_digest(struct store *store, const char *id, const char *name_and_digest,
                      struct error *err);

#endif
