/*
 * What the daemon knows of images: names, configurations, layers, and the folders they are in.
 *
 *     ROOT/state.db             records (store/db.h)
 *     ROOT/content/sha256/HEX   blobs: manifests, configurations, layers as they came
 *     ROOT/layers/NAME/         unpacked layers, in overlayfs' userxattr format
 *     ROOT/containers/ID/       upper and work folders of snapshots (store/snapshot.h)
 *     ROOT/staging/RANDOM/      what an image worker is writing (store/staging.h)
 *
 * A record appears only after its files are in place and flushed (one syncfs an image); files
 * without a record are garbage that store_open() and store_image_remove() delete.
 *
 * Every function of these headers may be called from any thread, serialises by itself and BLOCKS
 * (disk, SQLite): call them from threads other than the loop's. The store never parses archives:
 * that is the image worker's work, whose results are handed over by the engine (store/staging.h).
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/oci_image.h>
#include <store/db.h>

enum {
    STORE_DOCUMENT_MAX = 4 * 1024 * 1024, /* bytes of a manifest or configuration */
    STORE_LAYERS_MAX = 127,               /* of an image, as docker */
    STORE_ID_PREFIX_MIN = 1,              /* hex digits that may name an image */
};

#define STORE_HOST_IMAGE "host" /* shown name of the image that is always there */

struct store;

/* Opens or creates the store under root (mode 0700), removes staging folders and unreferenced files
 * that a crash left, and makes the image `host` where it is missing or outdated. One process at a
 * time per root (-EBUSY otherwise). */
int store_open(const char *root, struct store **ret, struct error *err);
void store_close(struct store *store); /* NULL allowed; no call may be running */

struct store_db *store_database(struct store *store); /* borrowed */

/* An image, as a copy that stays valid. */
struct store_image {
    char *id;              /* sha256:HEX of the configuration */
    char *manifest_digest; /* sha256:HEX; NULL for `host` */
    char **names;          /* short: shop:latest; sorted; NULL: none */
    char **digests;        /* what registries have it as: shop@sha256:HEX; NULL: none */
    char **diff_ids;       /* lowest first; NULL-terminated */
    char **layers;         /* names of folders in ROOT/layers, lowest first; NULL-terminated */
    char *base;        /* STORE_HOST_IMAGE: stands on the machine's own /usr; NULL: on nothing */
    bool built_in;     /* the image `host` itself */
    char *parent;      /* ID of the image that a build made it from; NULL: it did not */
    bool intermediate; /* a build's step without a name, that others stand on */
    uint64_t size;     /* bytes of the regular files of all layers */
    int64_t created;   /* nanoseconds since 1970, of the configuration; 0: it does not say */
    char *config_text; /* the configuration, as it came */
    struct oci_image_configuration *config; /* the same, parsed; config->config may be NULL */
};

void store_image_free(struct store_image *image); /* NULL allowed */
static inline void cleanup_store_image_p(struct store_image **image)
{
    store_image_free(*image);
}
#define _cleanup_store_image_ _cleanup_(cleanup_store_image_p)

/* All images, newest first, `host` last. The array and its elements are the caller's. */
int store_image_list(struct store *store, struct store_image ***ret, size_t *ret_count,
                     struct error *err);
void store_image_list_free(struct store_image **images, size_t count);

/* By name (any spelling), "sha256:HEX", hex ID or a unique prefix of one; names win over prefixes,
 * as in docker. -ENOENT "No such image: shop:latest"; -EEXIST when a prefix names several. */
int store_image_find(struct store *store, const char *text, struct store_image **ret,
                     struct error *err);

/* Bytes of each layer of an image, lowest first: as many as it has of its own (not the skeleton
 * that it stands on). The array is the caller's. */
int store_image_layer_sizes(struct store *store, const char *id, uint64_t **ret, size_t *ret_count,
                            struct error *err);

/* Bytes of all layers that there are, each counted once. */
int store_layers_size(struct store *store, uint64_t *ret, struct error *err);

/* Gives image `what` (as in store_image_find) the name `name` (default tag latest), taking it from
 * another image that had it. `host` and names with digests are refused. ret_name, where not NULL,
 * gets the short form, owned by the caller. */
int store_image_tag(struct store *store, const char *what, const char *name, char **ret_name,
                    struct error *err);

struct store_removed {
    char **untagged; /* short names */
    char **deleted;  /* sha256:HEX of images and of the layers (chain IDs) that went */
};
void store_removed_finish(struct store_removed *removed);
#define _cleanup_store_removed_ _cleanup_(store_removed_finish)

/* docker's rmi: a name is taken away, and with the last name the image and everything only it
 * used. By ID: refused (-EBUSY) without force when it has several names. A container that uses
 * the image makes taking the last name -EBUSY; with force the names and the record go and
 * the layers stay until the container is removed. -EPERM for `host`. */
enum store_remove {
    STORE_REMOVE_FORCE = 1,
    STORE_REMOVE_KEEP_PARENTS = 2, /* steps of builds that nothing else stands on stay, as cache */
    STORE_REMOVE_NAMES = 4,        /* by ID: with all its names, however many */
};
int store_image_remove(struct store *store, const char *what, unsigned how,
                       struct store_removed *ret, struct error *err);

/* Removes images that came here before that time (nanoseconds since 1970) and that no container is
 * made of: those without a name, with `named` all. What is in use, by a build too, keeps all its
 * names. Adds to *ret. */
int store_image_expire(struct store *store, int64_t before, bool named, struct store_removed *ret,
                       struct error *err);

/* Deletes files that no record refers to: what a removal left because a transfer needed it. */
int store_collect(struct store *store, struct error *err);

/* The machine's folders that a container of an image with base `host` needs on top of its snapshot,
 * as read-only bind mounts, parents first. Ends with {NULL, NULL}; static. */
struct store_host_mount {
    const char *source;
    const char *target;
};
const struct store_host_mount *store_host_mounts(void);

#endif
