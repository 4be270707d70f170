/*
 * Where an archive goes: beside the file it will become, so that a failure leaves the old one, or
 * straight to what is no regular file (a pipe, /dev/null, standard output).
 */
#ifndef CLOCHE_OUTPUT_H
#define CLOCHE_OUTPUT_H

#include <base/error.h>

struct output {
    int fd;
    const char *path; /* NULL: nothing to rename */
    char *temporary;
};

/* path NULL: standard output, but no terminal; verb is for that message. path must outlive it. */
int output_open(const char *path, const char *verb, struct output *target, struct error *err);

/* r: what came of it; returns that, or a failure of its own. Also after output_open() failed. */
int output_close(struct output *target, int r, struct error *err);

#endif
