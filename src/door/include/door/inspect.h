/*
 * Containers and images as the Docker Engine API shows them: the documents of
 * GET /containers/ID/json and GET /images/NAME/json, made from ours.
 */
#ifndef DOOR_INSPECT_H
#define DOOR_INSPECT_H

#include <base/buffer.h>
#include <base/error.h>
#include <schema/management.h>

/* Appends a compact JSON object. */
void door_inspect_container(const struct api_container_details *container, struct buffer *out);

/* GET /volumes/NAME */
void door_inspect_volume(const struct api_volume *volume, struct buffer *out);

/* The same of an image. -EINVAL when its configuration is not a document of the OCI's form; out is
 * left as it was then. */
int door_inspect_image(const struct api_image_details *image, struct buffer *out,
                       struct error *err);

/* Appends a compact JSON object: GET /networks/ID. */
void door_inspect_network(const struct api_network_details *network, struct buffer *out);

#endif
