/*
 * The environment of the container's program: the configured one with each name once.
 */
#ifndef RUNTIME_ENVIRONMENT_H
#define RUNTIME_ENVIRONMENT_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

/* Every variable has a name and a '='. field for messages. */
int environment_check(const char *field, char *const *list, size_t count, struct error *err);

/* first and then second (both may be NULL), of which the last one of a name counts; with HOME of
 * uid from the /etc/passwd of the root that the caller is in when there is none or an empty one.
 * Owned by the caller as an array (free); its strings are borrowed but for HOME, which lives as
 * long as the process. Never NULL. */
char **environment_build(char *const *first, char *const *second, uint32_t uid);

#endif
