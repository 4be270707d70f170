/*
 * Pulling: documents in pull.c, layers in pull_layers.c.
 */
#ifndef REGISTRY_PULL_H
#define REGISTRY_PULL_H

#include "load.h"
#include "session.h"

enum { PULL_TAGS_MAX = 1000, PULL_PARALLEL = 4 };

struct pull {
    const struct image_worker_pull *request;
    struct session session;
    struct http_lane *lane; /* for documents */
    struct load load;       /* staging, layers of images before, and result */
    size_t numbers;         /* of layers in staging, ever; atomic */
};

/* A document with its digest compared. */
struct fetched {
    struct document document; /* path: for messages; all owned */
    char *content_type;
};
void fetched_finish(struct fetched *fetched);
#define _cleanup_fetched_ _cleanup_(fetched_finish)

/* The manifest, index ("manifests") or blob ("blobs") of a reference: digest is what it must have,
 * NULL: whatever comes. */
int pull_document(struct pull *pull, const char *kind, const char *reference, const char *digest,
                  struct fetched *ret, struct error *err);

/* The layers of an image: layers[i] for manifest->layers[i], filled in here; path
 * and implicit of each are the caller's. Those that the store has are only noted. */
int pull_layers(struct pull *pull, const struct oci_image_manifest *manifest,
                const struct oci_image_configuration *config, struct staged_layer *layers,
                struct error *err);

/* The first 12 digits of a digest, as progress names layers. */
void pull_item(const char *digest, char ret[13]);

#endif
