/*
 * What a configuration may ask for: everything else is refused by name, before anything is made.
 */
#ifndef RUNTIME_CONFIG_CHECK_H
#define RUNTIME_CONFIG_CHECK_H

#include <schema/oci_config.h>

#include <base/error.h>

int config_check(const struct oci_config *config, struct error *err);

/* The part that exec --process shares. */
int config_check_process(const struct oci_process *process, struct error *err);

/* linux.resources, shared with update. */
int config_check_resources(const struct oci_resources *resources, struct error *err);

#endif
