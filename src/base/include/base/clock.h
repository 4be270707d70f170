/*
 * Time: the clocks, and RFC 3339 texts. Points in time are nanoseconds since 1970, UTC, as int64_t:
 * the years 1970 to 2261. Nothing here blocks; everything may be called from any thread.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_SECOND INT64_C(1000000000) /* nanoseconds */

int64_t clock_now(void);          /* nanoseconds since 1970 (CLOCK_REALTIME) */
int64_t clock_milliseconds(void); /* CLOCK_MONOTONIC, for deadlines */
/* The same, behind it by up to a tick (10 ms): for time-outs that are looked at again and again. It
 * is read from memory also where the other one is a system call that asks hardware. */
int64_t clock_ticks(void);

/* "2026-11-20T10:00:00.123456789Z". Owned by the caller. */
char *clock_format(int64_t nanoseconds);

/* Every RFC 3339 time within the years above: with or without a fraction, "Z" or a zone. -EINVAL
 * for anything else, NULL included. */
int clock_parse(const char *text, int64_t *ret);

#endif
