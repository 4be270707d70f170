/* Shared by the files of the store; nobody else includes it. */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <store/db.h>
#include <store/store.h>

/* Full form of the name of the built-in image. */
#define STORE_HOST_NAME "docker.io/library/" STORE_HOST_IMAGE ":latest"

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
    int saves;             /* requests of store_save_prepare() in flight; under files */
    bool collect_deferred; /* a removal left files to the end of those saves; under files */
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

/* host.c: makes or renews the image `host`. */
int host_refresh(struct store *store, struct error *err);
/* Number of the skeleton layer that snapshots of base `host` stand on. */
int host_layer(struct store *store, int64_t *ret, struct error *err);

/* images.c */
int image_read(struct store *store, const char *id, struct store_image **ret, struct error *err);
int image_find_id(struct store *store, const char *text, char **ret_id, bool *ret_by_name,
                  struct error *err);

/* time.c: RFC 3339 time of a document in nanoseconds since 1970, 0 when it cannot be read. */
int64_t parse_time(const char *text);
char *format_time(int64_t nanoseconds); /* owned */
int64_t now_nanoseconds(void);

/* names.c: gives the image a name, inside the caller's transaction. */
int name_assign(struct store *store, const char *id, const char *name, char **ret_short,
                struct error *err);

/* overlay.c: a detached overlay mount. layers: folder names under ROOT/layers, highest first. */
int overlay_mount(struct store *store, char *const *layers, const char *container, int *ret_fd,
                  struct error *err);

#endif
