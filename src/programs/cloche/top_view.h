/*
 * What containers use, on the whole terminal and anew every few seconds, until q is pressed. Where
 * there is no terminal: once.
 */
#ifndef CLOCHE_TOP_VIEW_H
#define CLOCHE_TOP_VIEW_H

#include "cli.h"
#include "usage.h"

struct top_options {
    bool all;
    struct option_number interval;
    const char *sort;
};

/* Returns an exit code. */
int top_view(struct cli *cli, const struct top_options *options);

enum top_order { TOP_CPU, TOP_MEMORY, TOP_NETWORK, TOP_DISK, TOP_RESTARTS, TOP_NAME };

/* Of the key or the word; TOP_CPU for what is none. For the tests. */
bool top_order_of_key(char key, enum top_order *ret);
void top_sort(struct usage *usages, size_t count, enum top_order order);

#endif
