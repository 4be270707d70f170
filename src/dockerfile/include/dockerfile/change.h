/* `commit --change` and `import --change`: instructions that are applied to a configuration. Pure.
 */
#ifndef DOCKERFILE_CHANGE_H
#define DOCKERFILE_CHANGE_H

#include <base/error.h>
#include <schema/oci_image.h>

/* The texts are the lines of a Dockerfile that has no FROM: CMD, ENTRYPOINT, ENV, EXPOSE,
 * HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR. Variables are those of the
 * configuration. -EINVAL with docker's words; the configuration may be changed in part then. */
int dockerfile_change(char *const *texts, struct oci_image_execution *config, struct error *err);

#endif
