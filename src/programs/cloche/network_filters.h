/*
 * --filter of the commands about networks.
 */
#ifndef CLOCHE_NETWORK_FILTERS_H
#define CLOCHE_NETWORK_FILTERS_H

#include <base/error.h>
#include <schema/management.h>

/* KEY=VALUE each; *ret is the caller's. -EINVAL: "invalid filter '...'". */
int network_filters(char *const *texts, struct api_network_filters **ret, struct error *err);

#endif
