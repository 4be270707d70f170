/*
 * Lists of containers, of which most is as it was the last time: what a container's summary was
 * translated to is kept, beside the text that it was translated from. So there is nothing to keep
 * in step: another text is another summary. The last list is kept as a whole, by its edition: the
 * daemon says whether it is still the same.
 */
#ifndef DOOR_DOCKER_LISTING_H
#define DOOR_DOCKER_LISTING_H

#include <stdbool.h>
#include <stddef.h>

#include <base/buffer.h>
#include <base/error.h>

enum {
    LISTING_SLOTS = 1024,
    LISTING_BYTES_MAX = 2 * 1024 * 1024, /* that are kept */
};

struct listing_entry;
struct listing_whole;

struct listing {
    struct listing_entry **slots; /* by the beginning of the text; NULL until the first list */
    size_t bytes;
    struct listing_whole *last; /* a reference; NULL: none */
};

/* The last list, for a call that names its edition: a reference, which the caller gives back. NULL:
 * there is none. */
struct listing_whole *listing_hold(struct listing *listing);
void listing_release(struct listing_whole *whole);        /* NULL allowed */
char *listing_edition(const struct listing_whole *whole); /* borrowed; "" for NULL */

/* Appends docker's array for the JSON text of an api_container_summaries. known: what the call has
 * named as known to it, or NULL. */
int listing_write(struct listing *listing, const struct listing_whole *known, const char *text,
                  size_t length, struct buffer *out, struct error *err);
void listing_finish(struct listing *listing);

#endif
