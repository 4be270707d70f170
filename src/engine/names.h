/*
 * Names of containers: what is allowed, and inventing one.
 */
#ifndef ENGINE_NAMES_H
#define ENGINE_NAMES_H

#include <stdbool.h>

#include <base/error.h>

enum { CONTAINER_NAME_MAX = 128 };

/* [a-zA-Z0-9][a-zA-Z0-9_.-]+, at least 2 and at most CONTAINER_NAME_MAX characters, as docker has
 * it. -EINVAL with a message. */
int name_check(const char *name, struct error *err);

/* "gentle_heron" and the like; with attempt > 0 a number of that many random digits is added, for
 * when the shorter ones are taken. Owned by the caller. */
char *name_invent(unsigned attempt);

/* An image reference without its default parts for comparison is the store's business; hostnames
 * are ours: at most 63 characters of letters, digits, '.' and '-'. */
int hostname_check(const char *name, struct error *err);

#endif
