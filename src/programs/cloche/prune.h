/*
 * What the prune commands share.
 */
#ifndef CLOCHE_PRUNE_H
#define CLOCHE_PRUNE_H

#include <schema/management.h>

#include "cli.h"
#include "filters.h"

extern const char *const prune_filter_words[]; /* for completion */

/* Asks on the terminal. false: no. */
bool prune_confirmed(const char *warning);

/* Owned by the caller; NULL: they make no sense. */
struct api_prune_filters *prune_filters(char *const *texts, struct error *err);

/* Each removes what it says, tells what went as docker does, and adds to space. */
int prune_containers(struct cli *cli, struct api_prune_filters *filters, struct buffer *out,
                     uint64_t *space, struct error *err);
int prune_images(struct cli *cli, bool all, struct api_prune_filters *filters, struct buffer *out,
                 uint64_t *space, struct error *err);

int prune_builds(struct cli *cli, bool all, const struct api_prune_filters *filters,
                 struct buffer *out, uint64_t *space, struct error *err);

void prune_show_reclaimed(uint64_t bytes, struct buffer *out);

#endif
