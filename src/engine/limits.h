/*
 * Limits that change while a container lives: docker's rules of `update`. Pure.
 */
#ifndef ENGINE_LIMITS_H
#define ENGINE_LIMITS_H

#include <base/buffer.h>
#include <base/error.h>
#include <schema/management.h>

/* *ret, owned by the caller: `before` (may be NULL) with what `asked` names in its place. A field
 * of asked that is absent, 0 or "" changes nothing. -EINVAL: they do not go together. */
int limits_merge(const struct api_resources *before, const struct api_resources *asked,
                 unsigned cpus, struct api_resources **ret, struct error *err);

/* The text of a config.json with other limits. -EBADMSG: one of the two is none. */
int limits_put_into_config(const char *config, size_t length, const struct buffer *limits,
                           struct buffer *out, struct error *err);

#endif
