/*
 * Filters of lists, as docker's --filter has them. Pure, but for container_filter_check(), which
 * looks names of containers up.
 */
#ifndef ENGINE_FILTERS_H
#define ENGINE_FILTERS_H

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>
#include <schema/management.h>

struct container;
struct engine;

enum { PATTERN_MAX = 256 /* characters of a regular expression */ };

/* KEY or KEY=value. labels may be NULL. */
bool filter_has_label(const struct json_string_map *labels, const char *wanted);
bool filter_has_labels(const struct json_string_map *labels, char *const *wanted); /* all */
bool filter_has_any_label(const struct json_string_map *labels, char *const *wanted);

bool filter_prune(const struct api_prune_filters *filters, const struct json_string_map *labels,
                  int64_t created);

/* Extended regular expressions that cannot cost the daemon more than their length lets expect: no
 * counted repetitions, no references back. -EINVAL with a message. */
int pattern_compile(const char *text, regex_t *ret, struct error *err);

/* "80", "80-90/udp" -> first, last, protocol (static; NULL: any). -EINVAL. */
int port_filter_parse(const char *text, uint16_t *ret_first, uint16_t *ret_last,
                      const char **ret_protocol);

/* A filter that is ready to be asked: what it needs of other containers is looked up, expressions
 * are compiled. */
struct container_filter;

/* images: the IDs that `ancestor` stands for (string list, borrowed while the filter lives); not
 * looked at without it. -EINVAL, -ENOENT. filters may be NULL: all fit. */
int container_filter_create(struct engine *engine, const struct api_container_filters *filters,
                            char *const *images, struct container_filter **ret, struct error *err);
void container_filter_free(struct container_filter *filter); /* NULL allowed */
static inline void cleanup_container_filter_p(struct container_filter **filter)
{
    container_filter_free(*filter);
}
#define _cleanup_container_filter_ _cleanup_(cleanup_container_filter_p)

bool container_filter_matches(const struct container_filter *filter,
                              const struct container *container, const char *state);

/* Whether it says which states are wanted: then those that do not run are looked at too. */
bool container_filter_has_status(const struct api_container_filters *filters);

#endif
