/*
 * A blob of a registry as a stream (image/worker/stream.h): first what an earlier attempt left of
 * it, then the rest from the network. A connection that breaks is made again and goes on where the
 * last one ended.
 *
 * Nothing here says that the content is right: whoever reads sums it up.
 */
#ifndef REGISTRY_BLOB_H
#define REGISTRY_BLOB_H

#include <schema/oci_image.h>

#include "session.h"
#include "stream.h"

struct blob_source {
    struct session *session;
    struct http_lane *lane;
    const char *repository;
    const struct oci_image_descriptor *descriptor; /* digest is valid */
    int partial_fd;                                /* its first partial_length bytes; -1: none */
    uint64_t partial_length;                       /* at most descriptor->size */
    const char *item;                              /* for progress */
    bool *ret_broken; /* set when the rest could not be had: nothing is said of what came */
};

/* Everything in source is borrowed. A body longer than the descriptor's size is -EBADMSG, one that
 * stays shorter after all attempts, too. */
struct stream *blob_stream(const struct blob_source *source);

#endif
