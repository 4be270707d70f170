/*
 * The log format of cloche-monitor, which is the one Kubernetes' CRI has:
 *
 *     2026-11-20T10:00:00.123456789Z stdout F text
 *
 * F: a whole line, or the end of one; P: a part of a line, the same stream's next entry goes on.
 */
#ifndef CLOCHE_LOG_LINES_H
#define CLOCHE_LOG_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include <base/buffer.h>

struct log_reader {
    bool timestamps;
    const char *details;       /* before each line, and a blank; NULL: neither */
    const char *since, *until; /* RFC 3339 UTC with 9 digits of fraction; NULL: no bound */
    struct buffer rest;        /* an entry that has not come whole */
    bool in_line[2];           /* the last entry of stdout, stderr was a part */
    bool ended;                /* an entry after `until` was seen: nothing more will come */
};

/* Sorts the text of what is in data into the two buffers, as far as entries are whole. What is not
 * an entry (a damaged file) goes to out as it is. */
void log_reader_feed(struct log_reader *reader, const char *data, size_t length, struct buffer *out,
                     struct buffer *err_out);

void log_reader_finish(struct log_reader *reader);

#endif
