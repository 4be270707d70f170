/*
 * Pushing: the image in push.c, one blob in push_blob.c, layers that are packed first in pack.c.
 */
#ifndef REGISTRY_PUSH_H
#define REGISTRY_PUSH_H

#include "load.h"
#include "session.h"

enum {
    PUSH_PARALLEL = 4,
    PUSH_CHUNK = 16 * 1024 * 1024, /* bytes of a request: what a break can cost */
};

struct push_file {
    const char *digest; /* of the request */
    int fd;             /* owned */
};

/* The files of the image are opened before the jail, in which there is nothing else of the store.
 */
struct push {
    const struct image_worker_push *request;
    struct session session;
    struct push_file *files; /* owned */
    size_t files_count;
};

/* Something to upload: a file with its digest. */
struct push_blob {
    int fd; /* owned; -1: not open */
    char digest[DIGEST_TEXT_SIZE];
    uint64_t size;
    char item[13]; /* for progress: of the blob as the store has it */
    bool is_layer;
};

/* Makes sure that the repository has it: it may be there, may be mounted from another repository,
 * or is uploaded. */
int push_blob(struct push *push, struct http_lane *lane, const struct push_blob *blob,
              struct error *err);

/* A plain layer becomes a gzip one in a file of the staging folder that has no name any more;
 * blob->fd, digest and size are replaced. The same content always gives the same digest. */
int pack_blob(struct push_blob *blob, struct error *err);

#endif
