/* Which image of an index is for a platform. */
#ifndef IMAGE_PLATFORM_H
#define IMAGE_PLATFORM_H

#include <stdbool.h>

#include <schema/image_worker.h>
#include <schema/oci_image.h>

/* 0: not for it; 1: nothing known; 2: fits; 3: fits with its variant. */
int platform_rank(const struct image_worker_platform *wanted,
                  const struct oci_image_platform *offered);

/* Whether a document of this type is an index (docker: a manifest list). */
bool platform_is_index(const char *media_type);

#endif
