/*
 * `commit --change`: Dockerfile instructions applied to an image's configuration. Pure.
 */
#ifndef ENGINE_CHANGES_H
#define ENGINE_CHANGES_H

#include <base/error.h>
#include <schema/oci_image.h>

/* CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR. -EINVAL with a message.
 */
int change_apply(struct oci_image_execution *config, const char *instruction, struct error *err);

#endif
