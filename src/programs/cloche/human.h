/*
 * What people read: durations, sizes, identifiers, ports, as docker words them, and what people
 * type: points in time. All results are owned by the caller.
 */
#ifndef CLOCHE_HUMAN_H
#define CLOCHE_HUMAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

/* "Less than a second", "About a minute", "3 hours", "2 weeks". */
char *human_duration(int64_t seconds);

/* RFC 3339 -> seconds since the epoch, nanoseconds beside where ret_nanoseconds is not NULL.
 * -EINVAL. */
int human_parse_time(const char *text, int64_t *ret_seconds, uint32_t *ret_nanoseconds);

/* Go's durations: "1h30m", "1.5h", "300ms". -EINVAL. */
int human_parse_duration(const char *text, double *ret_seconds);

/* What --since and --until take: RFC 3339 (zone, time and seconds may be missing), seconds since
 * the epoch with a fraction, or a duration back from now ("42m", "1h30m"). The result is RFC 3339
 * in UTC. now in seconds since the epoch. */
int human_point_in_time(const char *text, int64_t now, char **ret, struct error *err);

/* "2 minutes ago"; "N/A" when created_at cannot be read. */
char *human_age(const char *created_at, int64_t now);

/* "2026-11-20 10:00:00 +0000 UTC", as docker lists points in time; "" when it cannot be read. */
char *human_timestamp(const char *time);

/* The first 12 digits, without "sha256:". With whole, the text as it is. */
char *human_id(const char *id, bool whole);

/* At most `width` characters, the last one an ellipsis when something was left out (UTF-8). */
char *human_shorten(const char *text, size_t width);

/* "\"text\"", with quotes, backslashes and control characters escaped as Go's strconv.Quote does.
 */
char *human_quote(const char *text);

/* The repository and the tag of "host:5000/shop:1.2": the tag starts after the last colon behind
 * the last slash; "<none>" for what is missing. */
void human_split_name(const char *name, char **ret_repository, char **ret_tag);

#endif
