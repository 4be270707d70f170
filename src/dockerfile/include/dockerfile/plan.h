/*
 * From a Dockerfile to a plan (runtime-spec/build.json). Pure.
 */
#ifndef DOCKERFILE_PLAN_H
#define DOCKERFILE_PLAN_H

#include <stddef.h>

#include <base/error.h>
#include <schema/build.h>

/* Reads the text. options->bases NULL: the plan has stages without steps, and says which images it
 * needs to know; else a base for each of these. *ret is owned by the caller. -EINVAL with docker's
 * words and the line; -EFBIG: a limit of dockerfile/limits.h. */
int plan_make(const char *text, size_t length, const struct build_options *options,
              struct build_plan **ret, struct error *err);

#endif
