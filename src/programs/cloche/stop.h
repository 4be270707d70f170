/*
 * What `stop` and `restart` share.
 */
#ifndef CLOCHE_STOP_H
#define CLOCHE_STOP_H

#include "cli.h"

struct stop_options {
    const char *signal;
    struct option_number timeout;
};

extern const struct option_group stop_groups[];

/* Blocks until it has ended; one that does not run is left alone. */
int stop_container(struct cli *cli, const char *container, const void *stop_options,
                   struct error *err);

#endif
