#ifndef CLOCHE_VOLUME_H
#define CLOCHE_VOLUME_H

#include "cli.h"

/* As prune_containers() of prune.h; texts: what --filter says. */
int prune_volumes(struct cli *cli, bool all, char *const *texts, struct buffer *out,
                  uint64_t *space, struct error *err);

#endif
