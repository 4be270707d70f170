/*
 * The body of an HTTP/1.1 request as it comes: of a length that was said, or in chunks. No input or
 * output.
 */
#ifndef DOOR_DOCKER_BODY_H
#define DOOR_DOCKER_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "head.h"

enum {
    BODY_LINE_MAX = 256,          /* of a chunk's size and its extensions, and of a trailer */
    BODY_TRAILERS_MAX = 16 * 1024 /* bytes of all of those */
};

enum body_state {
    BODY_DATA, /* `left` bytes of it, or of a chunk */
    BODY_SIZE, /* the line with a chunk's size */
    BODY_CHUNK_END,
    BODY_TRAILERS, /* behind the last chunk */
    BODY_DONE,
    BODY_BROKEN,
};

struct body {
    enum body_state state;
    bool chunked;
    uint64_t left;
    size_t trailers;
};

void body_begin(struct body *body, const struct head *head);

/* Reads on in `length` bytes: *ret_data are those of them that are the body's (a piece of it;
 * *ret_length may be 0), and the result is how many were read. 0 read: more of them are needed, or
 * the body is done, or broken. Call it until it reads nothing. most: bytes of the body that are
 * wanted at most. */
size_t body_read(struct body *body, const char *text, size_t length, size_t most,
                 const char **ret_data, size_t *ret_length);

#endif
