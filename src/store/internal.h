/* Shared by the files of the store; nobody else includes it. */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/image_worker.h>
#include <store/build.h>
#include <store/db.h>
#include <store/snapshot.h>
#include <store/store.h>

/* Full form of the name of the built-in image. */
#define STORE_HOST_NAME "docker.io/library/" STORE_HOST_IMAGE ":latest"

/* An empty folder in ROOT/layers, for images without layers: overlay wants at least one. */
#define STORE_EMPTY_LAYER "0"

/* One in ROOT/layers that containers have over their image's. */
#define STORE_ENGINE_LAYER "engine"

enum { DIGEST_TEXT_SIZE = 7 + 64 + 1 }; /* "sha256:" HEX NUL */

struct store {
    char *root;
    struct store_db *db;
    int root_fd;
    int lock_fd; /* ROOT/lock, flocked for the life of the store */
    int content_fd;
    int layers_fd;
    int containers_fd;
    int staging_fd;
    /* Guards files against records: held from the first rename of an import to its record, and from
     * the record's end to the last rename of a removal. Taken before the database's mutex. */
    pthread_mutex_t files;
    bool collect_deferred; /* a removal left files to the end of a hold; under files */
    int64_t build_number;  /* of the last build; under files */
};

/* digest.c */
void digest_of(const void *data, size_t length, char ret[DIGEST_TEXT_SIZE]);
bool digest_valid(const char *digest);      /* "sha256:" and 64 lowercase hex digits */
const char *digest_hex(const char *digest); /* the HEX of a valid one */
void digest_chain(const char *parent, const char *diff_id, char ret[DIGEST_TEXT_SIZE]);

/* garbage.c: deletes layers and blobs without a record; at open also folders of containers without
 * one and staging folders nobody holds. What cannot be deleted is left for the next time. */
int garbage_collect(struct store *store, struct error *err);
int garbage_collect_at_open(struct store *store, struct error *err);

/* hold.c. Of holders that are pointers each has one of its own while it holds. */
int holds_open(struct store *store, struct error *err);
int build_is_held(struct store *store, const char *image, struct error *err);
int hold_blob(struct store *store, const void *holder, const char *blob, struct error *err);
int hold_image_blobs(struct store *store, const void *holder,
                     const struct image_worker_saved_image *image, struct error *err);
/* Everything that is there; 0: until the release, else at most so long. */
int hold_all(struct store *store, const void *holder, int64_t nanoseconds, struct error *err);
int holds_all(struct store *store, struct error *err);
int holds_any(struct store *store, struct error *err);      /* of content */
void hold_release(struct store *store, const void *holder); /* not under a lock */

/* staging.c: where one worker writes. */
struct store_staging {
    struct store *store;
    char name[16 + 1];
    int fd;         /* locked */
    bool unflushed; /* a layer was found that only builds have, which flush at their end */
};

/* partial.c: what the staging folder of this name has of blobs' beginnings goes to ROOT/partial;
 * all that is there goes into a staging folder. */
void partials_keep(struct store *store, const char *staging_name);
int partials_take(struct store_staging *staging, struct error *err);

/* install.c. Inside the caller's transaction and with store->files held: moves the staged folder
 * `source` to ROOT/layers and records it, or finds the layer that has this key already. */
int layer_find(struct store *store, const char *key, int64_t *ret,
               struct error *err); /* 1: found */
int layer_install(struct store_staging *staging, const char *source, const char *key,
                  const char *diff_id, uint64_t size, int64_t *ret_layer, struct error *err);
/* Takes what was written so far to the disk; not under a lock, since it may take long. */
int staging_flush(struct store_staging *staging, struct error *err);
/* The renames of layer_install() and of blobs; before the commit. */
int install_flush(struct store_staging *staging, struct error *err);
int blob_install(struct store_staging *staging, const char *digest, struct error *err);
/* All of an image but its names. Configuration and manifest are in the staged content too; a layer
 * with implicit folders needs all layers below it in `layers`. */
struct image_install {
    const char *id;
    const char *manifest; /* NULL: a step of a build; neither it nor the configuration is a blob */
    const char *base;     /* NULL: none */
    const char *parent;   /* image whose layers come first, already installed; NULL: none */
    const char *config_text;
    int64_t created;
    struct image_worker_layer *const *layers;
    size_t layers_count;
};
int image_install(struct store_staging *staging, const struct image_install *image,
                  struct error *err);

/* commit.c: what builds share with it. */
void config_drop_origin(struct oci_image_configuration *config);
/* Unless the history does not match the layers as it is; before a layer is added. */
void config_add_history(struct oci_image_configuration *config, int64_t created,
                        const char *created_by, const char *author, const char *comment,
                        bool empty_layer);
int stage_document(struct store_staging *staging, const char *digest, const struct buffer *text,
                   struct error *err);
/* The manifest of an image whose layers are recorded, and whose configuration has this length. */
int manifest_compose(struct store *store, const char *id, size_t config_length, struct buffer *out,
                     struct error *err);

/* build.c. build_open(): its tables; drops what was not flushed in an earlier boot. */
int build_open(struct store *store, struct error *err);
/* What is named so becomes durable, if it is a step that is not. -ENOENT: there is none. Not under
 * a lock. */
int build_seal_named(struct store *store, const char *name, struct error *err);
/* Inside a transaction: of an image that was installed without documents. */
int build_record_step(struct store *store, const struct store_step *step, const char *id,
                      struct error *err);
int build_parent(struct store *store, const char *id, char **ret, struct error *err);
int build_has_children(struct store *store, const char *id, struct error *err);
/* Inside a transaction: the step `parent`, and those it stands on, as long as nothing else does. */
int build_remove_line(struct store *store, const char *parent, char ***deleted, struct error *err);

/* save.c: the layers of an image as its manifest names them; append to *layers. */
int layers_read(struct store *store, const char *image, struct image_worker_layer ***layers,
                size_t *count, struct error *err);

/* host.c: makes or renews the image `host`. */
int host_refresh(struct store *store, struct error *err);
/* Number of the skeleton layer that snapshots of base `host` stand on. */
int host_layer(struct store *store, int64_t *ret, struct error *err);

/* images.c */
int image_read(struct store *store, const char *id, struct store_image **ret, struct error *err);
int image_find_id(struct store *store, const char *text, char **ret_id, bool *ret_by_name,
                  struct error *err);

/* names.c: gives the image a name, inside the caller's transaction. */
int name_assign(struct store *store, const char *id, const char *name, char **ret_short,
                struct error *err);

/* names.c: store_image_remove() inside the caller's transaction. Files stay for garbage_collect().
 */
int image_remove(struct store *store, const char *what, unsigned how, struct store_removed *removed,
                 struct error *err);

/* disk.c: a limited writable layer. Not under a lock: one thread at a time per container. */
int disk_limit(struct store *store, const char *container, uint64_t bytes, struct error *err);
bool disk_is_limited(const struct store *store, const char *container);
/* At ROOT/containers/ID/limited, with upper/ and work/ in it. */
int disk_mount(struct store *store, const char *container, struct error *err);
void disk_unmount(struct store *store,
                  const char *container); /* does nothing where there is none */
void disk_unmount_all(struct store *store);

/* snapshot.c: names of the folders of the image's layers, highest first; appends to *ret. */
int snapshot_layers(struct store *store, const char *container, char ***ret, struct error *err);

/* engine_layer.c: makes what is missing of the layer that containers have over their image's; its
 * name, relative to ROOT/layers, for an image with these layers, highest first. Owned. */
int engine_layer_open(struct store *store, struct error *err);
int engine_layer_for(struct store *store, char *const *layers, const char *container, char **ret,
                     struct error *err);

/* overlay.c: a detached overlay mount. layers: folder names under ROOT/layers, highest first;
 * container: the folder under ROOT/containers with upper/ and work/; users: as of
 * store_snapshot_mount(). */
int overlay_mount(struct store *store, char *const *layers, const char *container, bool passing,
                  const struct store_users *users, int *ret_fd, struct error *err);

#endif
