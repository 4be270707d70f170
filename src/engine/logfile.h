/*
 * Places in a container's log, which has the CRI format: "TIME STREAM TAG TEXT", a line each, where
 * TIME is RFC 3339 with nine digits and Z, and TAG is F (the line is complete) or P (the next line
 * of the stream goes on with it). Files that were rotated away may be packed by gzip.
 */
#ifndef ENGINE_LOGFILE_H
#define ENGINE_LOGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

/* Offset of the last `lines` complete lines, or 0. Blocks for reading back so far. Returns -errno.
 */
off_t logfile_tail(int fd, int64_t lines);

/* Offset of the first line not older than the time (nanoseconds since 1970), by bisection. */
off_t logfile_since(int fd, int64_t time);

/* ---- the log with what was rotated away from it: PATH.1, PATH.2 ..., the higher the older ---- */

enum { LOGFILE_FILES_MAX = 100 };

struct logfile_set {
    int fds[LOGFILE_FILES_MAX];     /* owned; oldest first, without a gap between them */
    bool packed[LOGFILE_FILES_MAX]; /* still */
    bool apart[LOGFILE_FILES_MAX];  /* it was, when the set was opened: monitors cannot read it */
    size_t count;                   /* at least one; a log that is not there is an empty file */
    const char *program;            /* cloche-logpack */
    const char *folder;             /* on whose disk files without a name are made */
};

/* A place in it. */
struct logfile_place {
    size_t file;
    off_t offset;
};

/* Blocks for a few opens. A rotation meanwhile does no harm. program and folder are used as long as
 * the set is. */
int logfile_set_open(const char *path, const char *program, const char *folder,
                     struct logfile_set *ret, struct error *err);
void logfile_set_close(struct logfile_set *set);

/* As logfile_tail() and logfile_since(), over all of it. Return 0 or -errno. Block; packed files
 * are unpacked as far as they are looked into, by another process. */
int logfile_set_tail(struct logfile_set *set, int64_t lines, struct logfile_place *ret);
int logfile_set_since(struct logfile_set *set, int64_t time, struct logfile_place *ret);

/* Everything from a place on as one file, whose offset is there: the newest of the set itself where
 * the place lies in it, else a copy without a name. Blocks for copying. Owned by the caller. */
int logfile_set_join(struct logfile_set *set, const struct logfile_place *from, struct error *err);
/* The same without the newest, in which the place must not lie. */
int logfile_set_join_older(struct logfile_set *set, const struct logfile_place *from,
                           struct error *err);

#endif
