/*
 * Structures of include/cloche/runtime.h as callers of older and newer versions of it give them
 * ("Structures" there).
 */
#ifndef RUNTIME_LIBRARY_OPTIONS_H
#define RUNTIME_LIBRARY_OPTIONS_H

#include <stddef.h>

#include <cloche/runtime.h>

#include <base/error.h>

/* Copies what the caller's version has of a structure whose first member is its size; what it does
 * not have, or all of it when given is NULL, is zero. known: sizeof(*ret). name: the structure's,
 * without cloche_runtime_ and _options. */
int library_take(void *ret, size_t known, const void *given, const char *name, struct error *err);

#endif
