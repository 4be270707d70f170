/*
 * What --filter takes, as docker has it: KEY=value, put into the fields of a filters document of
 * the management API. KEY!=value is a key of its own, "KEY!".
 */
#ifndef CLOCHE_FILTERS_H
#define CLOCHE_FILTERS_H

#include <stddef.h>

#include <base/error.h>

enum filter_kind {
    FILTER_TEXTS,   /* char **; further: size_t, their number */
    FILTER_NUMBERS, /* int32_t *; further: size_t, their number */
    FILTER_FLAG,    /* bool; further: bool, whether it is set */
    FILTER_TIME,    /* int64_t, nanoseconds since 1970; further: as above */
};

struct filter_key {
    const char *key; /* NULL ends a table */
    enum filter_kind kind;
    size_t offset, further; /* of the two fields in the document */
};

/* Fills the zeroed document from the texts; what is in it then is released as the document's type
 * has it. texts may be NULL. -EINVAL with docker's words. */
int filters_parse(char *const *texts, const struct filter_key *keys, void *document,
                  struct error *err);

extern const struct filter_key prune_filter_keys[]; /* of struct api_prune_filters */

#endif
