/*
 * Places in a container's log, which has the CRI format: "TIME STREAM TAG TEXT", a line each, where
 * TIME is RFC 3339 with nine digits and Z, and TAG is F (the line is complete) or P (the next line
 * of the stream goes on with it).
 */
#ifndef ENGINE_LOGFILE_H
#define ENGINE_LOGFILE_H

#include <stdint.h>
#include <sys/types.h>

/* Offset of the last `lines` complete lines, or 0. Blocks for reading back so far. Returns -errno.
 */
off_t logfile_tail(int fd, int64_t lines);

/* Offset of the first line not older than the time (nanoseconds since 1970), by bisection. */
off_t logfile_since(int fd, int64_t time);

#endif
