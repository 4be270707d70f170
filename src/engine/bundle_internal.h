/*
 * The parts of config.json, each written by a file of its own.
 */
#ifndef ENGINE_BUNDLE_INTERNAL_H
#define ENGINE_BUNDLE_INTERNAL_H

#include "bundle.h"
#include "bundle_json.h"
#include "security.h"

struct bundle_context {
    const struct bundle_facts *facts;
    struct security_options security;
    char *const *capabilities;
    const struct buffer *seccomp; /* empty: the default filter */
};

/* bundle_mounts.c */
void bundle_put_mounts(struct json_writer *writer, const struct bundle_context *context);
/* bundle_linux.c */
void bundle_put_linux(struct json_writer *writer, const struct bundle_context *context);
/* bundle_resources.c: members of linux.resources, whose object is open. */
void bundle_put_limits(struct json_writer *writer, const struct api_resources *resources,
                       const struct bundle_limit *limits, size_t limits_count);

#endif
