/*
 * Wildcards: those of COPY and ADD (Go's filepath.Match), and .dockerignore.
 */
#ifndef DOCKERFILE_IGNORE_H
#define DOCKERFILE_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

/* Whether text has a wildcard at all. */
bool glob_has_wildcard(const char *text);

/* *, ? and [a-z] within a path's components, backslash. Whole text. A malformed pattern matches
 * nothing. Time is linear in both lengths' product. */
bool glob_match(const char *pattern, const char *text);

struct ignore;

/* The lines of a .dockerignore. -EINVAL for a pattern that is none; -EFBIG. */
int ignore_parse(const char *text, size_t length, struct ignore **ret, struct error *err);
void ignore_free(struct ignore *ignore); /* NULL allowed */
static inline void cleanup_ignore_p(struct ignore **ignore)
{
    ignore_free(*ignore);
}
#define _cleanup_ignore_ _cleanup_(cleanup_ignore_p)

/* Whether the path ("a/b", relative) is left out of the context, itself or with a folder above it.
 * ignore NULL: no. */
bool ignore_matches(const struct ignore *ignore, const char *path);

/* Whether something in a folder that is left out may be wanted all the same ("!..."). */
bool ignore_has_exceptions(const struct ignore *ignore);

#endif
