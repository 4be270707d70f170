/*
 * The context of a build as a tar: a folder without what .dockerignore leaves out, or a Dockerfile
 * alone.
 */
#ifndef CLOCHE_BUILD_CONTEXT_H
#define CLOCHE_BUILD_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

struct context {
    const char *folder; /* NULL: only the Dockerfile */
    const char
        *dockerfile;  /* its path in the folder, which goes along whatever .dockerignore says */
    const char *text; /* a Dockerfile from elsewhere, to be found as `dockerfile`; NULL: none */
    size_t text_length;
    uint64_t bytes; /* that were sent */
};

/* Writes it all and blocks meanwhile. -EPIPE: nobody reads any more. */
int context_write(struct context *context, int fd, struct error *err);

#endif
