/*
 * How far a pull, push, load or save is, as docker shows it: a line for each layer, with a bar on a
 * terminal; elsewhere a line when a layer's state changes.
 */
#ifndef CLOCHE_TRANSFER_LINES_H
#define CLOCHE_TRANSFER_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct rpc_progress;

struct transfer_line {
    char *item;
    char *step;
    uint64_t done, total;
};

struct transfer_lines {
    FILE *out;
    bool quiet, terminal;
    uint16_t rows, columns;
    struct transfer_line *lines;
    size_t count;
};

/* out: standard output, or standard error where that has other things to show. */
void transfer_lines_start(struct transfer_lines *lines, FILE *out, bool quiet);
/* For rpc_client_on_progress(); lines is the data. */
void transfer_lines_take(const struct rpc_progress *progress, void *lines);
void transfer_lines_finish(struct transfer_lines *lines);

#endif
