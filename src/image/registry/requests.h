/* The requests of cloche-registry. Each enters the jail by itself, since they keep different
 * folders. */
#ifndef REGISTRY_REQUESTS_H
#define REGISTRY_REQUESTS_H

#include <base/error.h>
#include <schema/image_worker.h>

int registry_pull(const struct image_worker_pull *request, struct image_worker_result **ret,
                  struct error *err);
int registry_push(const struct image_worker_push *request, struct image_worker_result **ret,
                  struct error *err);
int registry_search(const struct image_worker_search *request, struct image_worker_result **ret,
                    struct error *err);
int registry_login(const struct image_worker_login *request, struct image_worker_result **ret,
                   struct error *err);
int registry_describe(const struct image_worker_describe *request, struct image_worker_result **ret,
                      struct error *err);
int registry_fetch(const struct image_worker_fetch *request, struct image_worker_result **ret,
                   struct error *err);
/* git.c: by the machine's git, which -ENOENT says is missing. */
int registry_clone(const struct image_worker_clone *request, struct image_worker_result **ret,
                   struct error *err);

#endif
