/*
 * rpc.discover for those who may not call everything.
 */
#ifndef CLOCHED_DISCOVER_H
#define CLOCHED_DISCOVER_H

#include <stdbool.h>

/* A copy of an OpenRPC document with those of its methods that may() is true for. The document is
 * one of ours: well-formed. Owned by the caller. */
char *discover_filter(const char *document, bool (*may)(const char *method, const void *data),
                      const void *data);

#endif
