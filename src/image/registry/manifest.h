/*
 * Manifests as registries give them: what a document is, whether it can be used, which one of an
 * index is for a platform. Nothing here touches a network.
 */
#ifndef REGISTRY_MANIFEST_H
#define REGISTRY_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>
#include <schema/image_worker.h>
#include <schema/oci_image.h>

enum {
    MANIFEST_LAYERS_MAX = 127, /* of an image, as the store has it */
    MANIFEST_DEPTH_MAX = 4,    /* indexes inside indexes */
};

/* All that we take, for the header Accept. */
extern const char manifest_types[];

/* Whether it is an index. content_type: the header; NULL: there was none. Refused: what is neither
 * (-EPROTO), schema 1 (-EOPNOTSUPP), a document that says of itself something else than its header
 * does (-EBADMSG: what is meant by it would depend on the reader). */
int manifest_is_index(const char *text, size_t length, const char *content_type, bool *ret,
                      struct error *err);

/* The manifest or index for the platform; *ret is the index's. -ENOENT: there is none. */
int manifest_choose(const struct oci_image_index *index,
                    const struct image_worker_platform *platform,
                    const struct oci_image_descriptor **ret, struct error *err);

/* That it is an image, of layers with digests and sizes that can be. */
int manifest_check(const struct oci_image_manifest *manifest, struct error *err);

#endif
