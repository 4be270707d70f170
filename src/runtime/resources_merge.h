/*
 * linux.resources: changes on top of what is in effect.
 */
#ifndef RUNTIME_RESOURCES_MERGE_H
#define RUNTIME_RESOURCES_MERGE_H

#include <schema/oci_config.h>

/* Puts what changes has into effective. Lists are moved out of changes. */
void resources_merge(struct oci_resources *effective, struct oci_resources *changes);

/* Values that mean something only together with others (memory and swap, quota and period) are
 * taken from effective where changes has one of them. */
void resources_complete(struct oci_resources *changes, const struct oci_resources *effective);

#endif
