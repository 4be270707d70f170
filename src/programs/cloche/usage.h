/*
 * What containers use, as rates: from two answers of container.stats.
 */
#ifndef CLOCHE_USAGE_H
#define CLOCHE_USAGE_H

#include <stdint.h>

#include <base/error.h>
#include <schema/management.h>

#include "cli.h"

struct usage {
    const struct api_container_statistics *container; /* borrowed from the newer answer */
    bool running;
    double cpu;          /* percent of one CPU */
    double memory_share; /* percent of the limit */
    uint64_t memory;     /* bytes, without cache that can be dropped */
    uint64_t received, sent;
    uint64_t read, written;
    double received_rate, sent_rate, read_rate, written_rate; /* bytes a second */
};

/* before: the answer that came earlier; NULL: none, rates are 0. */
struct usage usage_of(const struct api_statistics *before, const struct api_statistics *now,
                      size_t index);

/* Asks the daemon. names: NULL: all that run, with all: that there are. */
int usage_fetch(struct cli *cli, char *const *names, bool all, struct api_statistics **ret,
                struct error *err);

/* "1.5MiB", as docker shows memory, and "1.5kB", as it shows traffic. Owned by the caller. */
char *usage_binary_size(uint64_t bytes);
char *usage_decimal_size(double bytes);

#endif
