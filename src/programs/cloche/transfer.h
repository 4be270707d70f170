/* What pull, push, load, save and run have in common. */
#ifndef CLOCHE_TRANSFER_H
#define CLOCHE_TRANSFER_H

#include <stdbool.h>
#include <stdio.h>

#include "cli.h"

struct json_type;

/* A call that tells how far it is: on out, unless quiet. Progress of later calls is not asked for.
 */
int transfer_call(struct cli *cli, const char *method, const void *params, void *ret_result,
                  FILE *out, bool quiet, struct error *err);
/* The same with a descriptor (-1: none), which stays the caller's. */
int transfer_call_with_fd(struct cli *cli, const char *method, const void *params, void *ret_result,
                          int fd, FILE *out, bool quiet, struct error *err);

/* Pulls an image with the credentials that the user has for its registry, as `cloche pull` does. */
int transfer_pull_missing(struct cli *cli, const char *image, const char *platform, bool quiet,
                          struct error *err);

#endif
