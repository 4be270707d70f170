/*
 * Loading: what one pass over an archive collects, and how images are found in it.
 */
#ifndef IMAGE_LOAD_H
#define IMAGE_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/image_worker.h>
#include <schema/oci_image.h>

#include "stream.h"
#include "table.h"

enum { DIGEST_TEXT_SIZE = 72 };

/* A small file of the archive, kept in memory. */
struct document {
    char *path; /* clean */
    char *text;
    size_t length;
    char digest[DIGEST_TEXT_SIZE];
};

/* A large one: a layer, already unpacked in staging. */
struct staged_layer {
    char *path;
    enum compression compression;
    char blob[DIGEST_TEXT_SIZE];
    char diff_id[DIGEST_TEXT_SIZE];
    uint64_t blob_size;
    uint64_t size;
    char **implicit;
    size_t implicit_count;
    const char *media_type; /* NULL: by compression */
    bool present;           /* the store has it: nothing is in staging */
};

/* A link in the archive, by which docker-archives share layers. */
struct alias {
    char *path;
    char *target;
};

struct load {
    int staging_fd;
    const struct image_worker_platform *platform;
    struct document *documents;
    size_t documents_count;
    struct table documents_places;
    uint64_t documents_bytes; /* with the names of documents and links */
    uint64_t read_bytes;      /* of documents that were parsed, each as often as it was */
    struct staged_layer *layers;
    size_t layers_count;
    bool tells; /* of each layer by its name, instead of all of it */
    struct alias *aliases;
    size_t aliases_count;
    struct table aliases_places;
    struct image_worker_result *result;
};

/* collect.c: the pass over the archive. */
int load_collect(struct load *load, int archive_fd, struct error *err);
/* layer.c: unpacks the stream as a layer in staging: layers/HEX of its diff ID and content/HEX of
 * its blob, which appear there when both digests are known and are what was promised. May run in
 * several threads, with a number and a blob each. */
#define LAYER_WRITTEN UINT64_MAX
struct layer_job {
    int staging_fd;
    size_t number;         /* no other layer of this staging folder has it */
    const char *blob_name; /* in content/, kept when it fails; NULL: new-NUMBER */
    uint64_t written;      /* bytes of the blob that are in this file; LAYER_WRITTEN: all */
    const char *blob;      /* digests promised; NULL: none */
    const char *diff_id;
    bool quiet; /* tells no progress */
};
int layer_take(const struct layer_job *job, struct stream *stream, struct staged_layer *layer,
               struct error *err);
/* As the next layer of a load. */
int load_layer(struct load *load, const char *path, struct stream *stream, struct error *err);
/* The same for a tar that is in staging's content/new-N already, N being load->layers_count. */
int load_written_layer(struct load *load, const char *path, struct stream *stream,
                       struct error *err);
struct image_worker_layer *load_report_layer(const struct staged_layer *staged);
void load_finish(struct load *load);

/* By clean path, through aliases; NULL when there is none. */
const struct document *load_find_document(const struct load *load, const char *path);
const struct staged_layer *load_find_layer(const struct load *load, const char *path);
/* By digest ("sha256:HEX"), which also looks under blobs/sha256/. */
const struct document *load_find_blob_document(const struct load *load, const char *digest);

/* images.c: the images of manifest.json (docker-archive), of index.json (OCI layout). */
int load_docker_images(struct load *load, const struct document *manifest, struct error *err);
int load_layout_images(struct load *load, const struct document *index, struct error *err);
/* Adds an image to the result after all digests were compared; manifest NULL: one is composed.
 * *ret_image is owned by the result. */
int load_add_image(struct load *load, const struct document *config,
                   const struct document *manifest, const struct staged_layer *const *layers,
                   size_t layers_count, struct image_worker_image **ret_image, struct error *err);
/* layout.c: a manifest of the layout with this configuration and these layers, or NULL. */
const struct document *load_find_manifest(struct load *load, const char *config_digest,
                                          const struct staged_layer *const *layers, size_t count);
/* Before a document is parsed: indexes may name one any number of times. */
int load_count_reading(struct load *load, const struct document *document, struct error *err);

const char *layer_media_type(enum compression compression);
bool digest_is_valid(const char *digest);
void digest_of_text(const void *data, size_t length, char ret[DIGEST_TEXT_SIZE]);

#endif
