/* The configuration of an image that is made of a container. Pure. */
#ifndef ENGINE_COMMIT_CONFIG_H
#define ENGINE_COMMIT_CONFIG_H

#include <schema/management.h>
#include <schema/oci_image.h>

/* Also of NULL. Owned by the caller. */
struct oci_image_execution *commit_config_copy(const struct oci_image_execution *config);

/* What docker calls the container's configuration: the image's (NULL: it has none), and what the
 * container was asked for (spec, as it came), in the merged form (effective). Owned. */
struct oci_image_execution *commit_config_of(const struct oci_image_execution *image,
                                             const struct api_container_spec *spec,
                                             const struct api_container_spec *effective);

/* Fills in what config leaves open from the container's own. An entrypoint without a command drops
 * the container's command (moby, daemon/commit.go). */
void commit_config_merge(struct oci_image_execution *config, const struct oci_image_execution *own);

#endif
