/* Which servers are asked for a registry, and how: from its name and the configuration. */
#ifndef ENGINE_ENDPOINTS_H
#define ENGINE_ENDPOINTS_H

#include <schema/image_worker.h>
#include <schema/management.h>
#include <schema/registries.h>

#define ENDPOINTS_DOCKER "docker.io"

enum endpoints_purpose { ENDPOINTS_IMAGES, ENDPOINTS_SEARCH };

/* Owned. settings and credentials may be NULL. Plain HTTP is only for loopback, and for what the
 * settings name. */
struct image_worker_registry *endpoints_of(const struct registries_settings *settings,
                                           const char *name, enum endpoints_purpose purpose,
                                           const struct api_credentials *credentials);

/* Whether HOST[:PORT] is this machine: localhost, 127.0.0.0/8, [::1]. */
bool endpoints_is_loopback(const char *name);

#endif
