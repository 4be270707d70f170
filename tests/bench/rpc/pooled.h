/* The calls of calls.c through the client of several endpoints. */
#ifndef BENCH_POOLED_H
#define BENCH_POOLED_H

#include <stdbool.h>

/* payload: what is sent, and has to come back. */
void pooled_sync(const char *path, const char *payload, long count, bool cbor);
/* polled: the caller's thread runs the loop; else the client's own. */
void pooled_async(const char *path, const char *payload, long count, long width, bool polled,
                  bool cbor);

#endif
