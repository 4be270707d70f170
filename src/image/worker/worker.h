/* The parts of the worker. Each does one request and leaves its descriptors as they are. */
#ifndef IMAGE_WORKER_PRIVATE_H
#define IMAGE_WORKER_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/image_worker.h>

/* jail.c: stages are described there. Returns in the jailed process only; staging_fd and
 * source_fd are what IMAGE_FD_STAGING and IMAGE_FD_SOURCE became. */
struct jail {
    bool has_staging;
    bool has_source;
    const struct image_worker_tree *tree; /* NULL: none; it becomes the root (tree.h) */
    bool writes_tree;
    bool has_network;  /* keeps the network, and what finding addresses takes */
    bool has_target;   /* and IMAGE_FD_UPPER */
    bool has_programs; /* with has_network: may execute what is in the machine's /usr */
};
int jail_enter(const struct jail *jail, struct error *err);

/* message.c: on IMAGE_FD_CONTROL. Progress goes out at most every PROGRESS_INTERVAL. */
int message_read_request(struct image_worker_request **ret, struct error *err);
void message_progress(const char *step, uint64_t bytes);
/* The same of one of several items, of any thread. *last is the item's own, 0 at first. */
void message_item_progress(int64_t *last, const char *item, const char *step, uint64_t bytes,
                           uint64_t total);
/* A step that is told for certain. item NULL: of the whole. */
void message_item(const char *item, const char *step, uint64_t bytes, uint64_t total);
int message_result(const struct image_worker_result *result);
int message_failure(const struct error *err);

/* serve.c: reads the request, has it done, says what came of it. Returns the exit code. The server
 * enters a jail before it looks at anything foreign. */
typedef int (*image_server)(const struct image_worker_request *request,
                            struct image_worker_result **ret, struct error *err);
int image_serve_requests(image_server server);

int worker_load(const struct image_worker_load *request, struct image_worker_result **ret,
                struct error *err);
int worker_save(const struct image_worker_save *request, struct error *err);
int worker_verify(const struct image_worker_verify *request, struct image_worker_result **ret,
                  struct error *err);
int worker_import(const struct image_worker_import *request, struct image_worker_result **ret,
                  struct error *err);
int worker_pack(const struct image_worker_pack *request, struct image_worker_result **ret,
                struct error *err);
int worker_place(const struct image_worker_place *request, struct image_worker_result **ret,
                 struct error *err);
int worker_stat(const struct image_worker_stat *request, struct image_worker_result **ret,
                struct error *err);
int worker_populate(const struct image_worker_populate *request, struct image_worker_result **ret,
                    struct error *err);
int worker_commit(const struct image_worker_commit *request, struct image_worker_result **ret,
                  struct error *err);
/* The layer of an upper folder. own: what the runtime makes mount points of belongs to it, too.
 * *ret NULL: there is nothing in it. */
int commit_folder(int upper_fd, bool own, struct image_worker_layer **ret, struct error *err);
/* Dockerfile instructions on top of a configuration (NULL: an empty one): result->config, where
 * there are any. */
int commit_changes(char *const *changes, const struct oci_image_execution *config,
                   struct image_worker_result *result, struct error *err);

int worker_context(const struct image_worker_context *request, struct image_worker_result **ret,
                   struct error *err);
int worker_plan(const struct image_worker_plan *request, struct image_worker_result **ret,
                struct error *err);
int worker_copy(const struct image_worker_copy *request, struct image_worker_result **ret,
                struct error *err);

#endif
