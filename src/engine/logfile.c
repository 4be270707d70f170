#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>

#include "logfile.h"
#include "status.h"

enum {
    BLOCK_SIZE = 64 * 1024,
    TIME_LENGTH = 30, /* 2026-11-20T10:00:00.123456789Z */
    STREAM_OFFSET = TIME_LENGTH + 1,
    TAG_OFFSET = STREAM_OFFSET + 6 + 1, /* both streams' names have six letters */
};

static off_t size_of(int fd)
{
    struct stat status;

    return fstat(fd, &status) < 0 ? -errno : status.st_size;
}

/* Whether the line at offset, read backwards, begins a further line of its stream: it is complete,
 * or the last one that the stream has. */
static bool begins_line(int fd, off_t offset, bool seen[2])
{
    char head[TAG_OFFSET + 1];

    if (pread(fd, head, sizeof(head), offset) != (ssize_t)sizeof(head))
        return true;
    bool *stream_seen = &seen[head[STREAM_OFFSET + 3] == 'e']; /* std-e-rr */
    bool begins = head[TAG_OFFSET] != 'P' || !*stream_seen;
    *stream_seen = true;
    return begins;
}

/* The last newline in [from, to), or -1. */
static off_t newline_before(int fd, off_t from, off_t to, char *block)
{
    while (to > from) {
        size_t length = to - from > BLOCK_SIZE ? BLOCK_SIZE : (size_t)(to - from);
        ssize_t n = pread(fd, block, length, to - (off_t)length);
        if (n != (ssize_t)length)
            return -1;
        const char *found = memrchr(block, '\n', length);
        if (found)
            return to - (off_t)length + (found - block);
        to -= (off_t)length;
    }
    return -1;
}

off_t logfile_tail(int fd, int64_t lines)
{
    _cleanup_free_ char *block = xmalloc(BLOCK_SIZE);
    off_t size = size_of(fd);
    off_t end = size; /* start of the oldest line taken so far */
    off_t at = size;
    bool seen[2] = {false, false};

    if (size <= 0 || lines <= 0)
        return size;
    /* Backwards: pieces that a later line of their stream completes belong to it. The newline that
     * ends the file begins no line. */
    for (;;) {
        off_t newline = at > 0 ? newline_before(fd, 0, at - 1, block) : -1;
        off_t start = newline + 1;
        if (begins_line(fd, start, seen) && lines-- == 0)
            return end;
        end = at = start;
        if (start == 0)
            return 0;
    }
}

/* Start of the first line at or after offset. */
static off_t line_from(int fd, off_t offset, off_t size, char *block)
{
    if (offset == 0)
        return 0;
    for (off_t at = offset - 1; at < size;) {
        ssize_t n = pread(fd, block, BLOCK_SIZE, at);
        if (n <= 0)
            break;
        const char *found = memchr(block, '\n', (size_t)n);
        if (found)
            return at + (found - block) + 1;
        at += n;
    }
    return size;
}

off_t logfile_since(int fd, int64_t time)
{
    _cleanup_free_ char *block = xmalloc(BLOCK_SIZE);
    _cleanup_free_ char *wanted = clock_format(time);
    off_t size = size_of(fd);
    off_t low = 0, high = size; /* the line searched for starts in [low, high] */

    while (low < high) {
        off_t middle = low + (high - low) / 2;
        off_t line = line_from(fd, middle, size, block);
        char stamp[TIME_LENGTH];
        if (line >= high) {
            high = middle;
            continue;
        }
        if (pread(fd, stamp, sizeof(stamp), line) != (ssize_t)sizeof(stamp))
            break;
        if (memcmp(stamp, wanted, TIME_LENGTH) < 0)
            low = line + 1;
        else
            high = middle;
    }
    return low >= size ? size : line_from(fd, low, size, block);
}
