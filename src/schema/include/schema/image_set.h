/* The sets of an image's configuration: its ports and volumes. */
#ifndef SCHEMA_IMAGE_SET_H
#define SCHEMA_IMAGE_SET_H

#include <schema/oci_image.h>

/* Adds the name unless it is there. *set is made where it is NULL. */
void oci_image_set_add(struct oci_image_set **set, const char *name);

#endif
