/*
 * The log, in the lines that Kubernetes' CRI defines:
 *     2026-11-20T10:00:00.123456789Z stdout F text
 * F ends a line of the sandbox, P is a piece of one that goes on in the next log line of the same
 * stream. Everything before the text has one length (LOG_PREFIX_LENGTH), no text is longer than
 * LOG_LINE_MAX. Lines are put together and written many at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/log.h>

#include "monitor_internal.h"

int container_log_open(struct container_log *log, const char *path, char *text, struct error *err)
{
    struct stat status;
    char last = '\n';

    *log = (struct container_log){.second = -1, .text = text};
    log->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log->fd < 0)
        return error_errno(err, errno, "open log %s", path);
    if (fstat(log->fd, &status) < 0)
        return error_errno(err, errno, "look at log %s", path);
    log->size = (uint64_t)status.st_size;
    /* A line cut by a power failure or a full disk: end it, readers skip what they cannot read. */
    if (log->size && pread(log->fd, &last, 1, (off_t)log->size - 1) == 1 && last != '\n' &&
        write(log->fd, "\n", 1) == 1)
        log->size++;
    return 0;
}

/* Days since the epoch to a date (proleptic Gregorian). gmtime_r() would do, but glibc's reads the
 * time zone's files for it, into memory that stays. */
static void format_date(int64_t second, char *ret, size_t size)
{
    int64_t days = second / 86400 + 719468, rest = second % 86400;
    int64_t era = days / 146097, day_of_era = days % 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153; /* months since March */
    int64_t day = day_of_year - (153 * shifted + 2) / 5 + 1;
    int64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2);

    snprintf(ret, size, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned)year % 10000U,
             (unsigned)month % 100U, (unsigned)day % 100U, (unsigned)(rest / 3600) % 100U,
             (unsigned)(rest / 60 % 60), (unsigned)(rest % 60));
}

static void format_prefix(struct container_log *log, enum stream stream, char tag, char *ret)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != log->second) {
        format_date(now.tv_sec, log->date, sizeof(log->date));
        log->second = now.tv_sec;
    }
    snprintf(ret, LOG_PREFIX_LENGTH + 1, "%s.%09ldZ %s %c ", log->date, now.tv_nsec,
             stream == STREAM_STDERR ? "stderr" : "stdout", tag);
}

static void put(struct container_log *log, const char *data, size_t length)
{
    memcpy(log->text + log->length, data, length);
    log->length += length;
}

/* A short write (a full disk) is taken back, so that the file never holds a part of a line. */
static int flush(struct container_log *log)
{
    size_t length = log->length;
    ssize_t n;

    log->length = 0;
    do
        n = write(log->fd, log->text, length);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)length) {
        log->size += length;
        return 0;
    }
    int r = n < 0 ? -errno : -ENOSPC;
    if (n > 0 && ftruncate(log->fd, (off_t)log->size) < 0)
        log->size += (uint64_t)n;
    return r;
}

static void report(struct container_log *log, int r)
{
    if (r < 0 && !log->failing)
        log_error("cannot write the container's log: %s; output is lost until it works again",
                  strerror(-r));
    if (r == 0 && log->failing)
        log_info("the container's log can be written again");
    log->failing = r < 0;
}

int container_log_append(struct container_log *log, enum stream stream, const char *data,
                         size_t length)
{
    char full[LOG_PREFIX_LENGTH + 1], partial[LOG_PREFIX_LENGTH + 1];
    uint64_t before = log->size;
    int r = 0;

    format_prefix(log, stream, 'F', full);
    memcpy(partial, full, sizeof(full));
    partial[LOG_PREFIX_LENGTH - 2] = 'P';
    while (length && r == 0) {
        size_t look = length > LOG_LINE_MAX ? LOG_LINE_MAX + 1 : length;
        const char *newline = memchr(data, '\n', look);
        size_t piece = newline ? (size_t)(newline - data) + 1 : look;
        if (!newline && piece > LOG_LINE_MAX)
            piece = LOG_LINE_MAX;
        put(log, newline ? full : partial, LOG_PREFIX_LENGTH);
        put(log, data, piece);
        if (!newline)
            put(log, "\n", 1);
        data += piece;
        length -= piece;
        if (length == 0 || log->length + LOG_PREFIX_LENGTH + LOG_LINE_MAX + 1 > LOG_TEXT_SIZE)
            r = flush(log);
    }
    if (r < 0 && log->size != before && ftruncate(log->fd, (off_t)before) == 0)
        log->size = before;
    report(log, r);
    return r;
}
