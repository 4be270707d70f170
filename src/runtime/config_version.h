/*
 * What older versions of the specification meant by what a configuration says.
 */
#ifndef RUNTIME_CONFIG_VERSION_H
#define RUNTIME_CONFIG_VERSION_H

#include <schema/oci_config.h>

/* Changes a configuration that was just parsed into what it would say in the version that we speak.
 */
void config_modernize(struct oci_config *config);

#endif
