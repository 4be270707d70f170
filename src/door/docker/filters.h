/*
 * The parameter `filters`, in both of its forms: {"label": {"a=b": true}} of the docker CLI, and
 * {"label": ["a=b"]} of older clients and docker-py.
 */
#ifndef DOOR_DOCKER_FILTERS_H
#define DOOR_DOCKER_FILTERS_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

struct exchange;

enum { FILTERS_MAX = 64 }; /* kinds of filters */

struct filter {
    char *key;     /* owned */
    char **values; /* owned */
};

struct filters {
    struct filter items[FILTERS_MAX];
    size_t count;
};

int filters_parse(const char *text, struct filters *ret, struct error *err);
void filters_finish(struct filters *filters);

/* The request's. false: it was answered that they make no sense, or that one of them is not among
 * those that are known here (ends with NULL). */
bool filters_of(struct exchange *exchange, const char *const *known, struct filters *ret);

/* Its values, or NULL. They stay the filters'. */
char **filters_get(const struct filters *filters, const char *key);

/* One that is true (1) or false (0). ret_has: whether it is there. false: it was answered that it
 * is something else. */
bool filters_flag(struct exchange *exchange, const struct filters *filters, const char *key,
                  bool *ret, bool *ret_has);

/* Of /.../prune. false: it was answered that `until` makes no sense. What is in ret stays the
 * filters'. */
struct api_prune_filters;
bool docker_prune_filters(struct exchange *exchange, const struct filters *filters,
                          struct api_prune_filters *ret);

#define _cleanup_filters_ _cleanup_(filters_finish)

#endif
