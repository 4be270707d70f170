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
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>

#include "monitor_internal.h"

/* Place of the first byte that this monitor may write: those of older files lie before it. */
#define LOG_PLACE_FIRST (UINT64_C(1) << 62)

enum { LOG_HOLE_MAX = 2 }; /* numbers that a rotation cut off may have left out */

/* ---- files ---- */

static struct log_file *log_file_new(int fd, int64_t number, uint64_t size)
{
    struct log_file *file = xnew(struct log_file);

    file->references = 1;
    file->fd = fd;
    file->number = number;
    file->size = size;
    return file;
}

struct log_file *log_file_ref(struct log_file *file)
{
    file->references++;
    return file;
}

void log_file_unref(struct log_file *file)
{
    while (file && --file->references == 0) {
        struct log_file *next = file->next;
        close_fd(file->fd);
        free(file);
        file = next;
    }
}

uint64_t container_log_end(const struct container_log *log)
{
    return log->file ? log->file->start + log->file->size : 0;
}

static int open_file(const char *path, int flags, uint64_t *ret_size)
{
    struct stat status;
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0640);

    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        close_fd(fd);
        return -EINVAL;
    }
    *ret_size = (uint64_t)status.st_size;
    return fd;
}

int container_log_open(struct container_log *log, const char *path, char *text, struct error *err)
{
    char last = '\n';
    uint64_t size;

    *log = (struct container_log){.path = path, .second = -1, .text = text, .max_files = 1};
    int fd = open_file(path, O_RDWR | O_APPEND | O_CREAT, &size);
    if (fd < 0)
        return error_errno(err, -fd, "open log %s", path);
    /* A line cut by a power failure or a full disk: end it, readers skip what they cannot read. */
    if (size && pread(fd, &last, 1, (off_t)size - 1) == 1 && last != '\n' &&
        write(fd, "\n", 1) == 1)
        size++;
    log->file = log_file_new(fd, 0, size);
    log->file->start = LOG_PLACE_FIRST;
    return 0;
}

void container_log_close(struct container_log *log)
{
    log_file_unref(steal_ptr(log->file));
}

/* ---- rotation: PATH, PATH.1, PATH.2 ..., the higher the older ---- */

static const char packed[] = ".gz"; /* behind the name of one that is packed (packing.c) */

static char *path_of(const struct container_log *log, uint32_t number)
{
    return number ? xasprintf("%s.%u", log->path, number) : xstrdup(log->path);
}

void container_log_limit(struct container_log *log, uint64_t max_size, uint32_t max_files)
{
    log->max_size = max_size;
    log->max_files = max_files;
    /* An earlier run may have kept more. */
    for (uint32_t i = max_files, missing = 0; missing < LOG_HOLE_MAX && i <= MONITOR_LOG_FILES_MAX;
         i++) {
        _cleanup_free_ char *path = path_of(log, i);
        _cleanup_free_ char *packed_path = xasprintf("%s%s", path, packed);
        bool had = unlink(packed_path) == 0;
        missing = unlink(path) < 0 && !had ? missing + 1 : 0;
    }
}

bool container_log_full(const struct container_log *log)
{
    return log->max_size && log->file->size >= log->max_size;
}

bool container_log_goes_next(const struct container_log *log, const struct log_file *file)
{
    return file->number <= log->file->number - (int64_t)log->max_files + 1;
}

bool container_log_gone(const struct container_log *log, const struct log_file *file)
{
    return file->number <= log->file->number - (int64_t)log->max_files;
}

/* Killed at any point of it, it leaves a hole in the numbers, which readers pass over. */
static void move_files(const struct container_log *log)
{
    uint32_t last = log->max_files - 1;
    _cleanup_free_ char *oldest = path_of(log, last);

    _cleanup_free_ char *oldest_packed = xasprintf("%s%s", oldest, packed);

    unlink(oldest);
    unlink(oldest_packed);
    for (uint32_t i = last; i > 0; i--) {
        _cleanup_free_ char *from = path_of(log, i - 1), *to = path_of(log, i);
        _cleanup_free_ char *from_packed = xasprintf("%s%s", from, packed);
        _cleanup_free_ char *to_packed = xasprintf("%s%s", to, packed);
        rename(from, to);
        if (i > 1)
            rename(from_packed, to_packed);
    }
}

/* When no new file can be made the one in use grows on. */
static void rotate(struct container_log *log)
{
    uint64_t size;

    _cleanup_free_ char *fresh = xasprintf("%s.new", log->path);
    unlink(fresh);
    int fd = open_file(fresh, O_RDWR | O_APPEND | O_CREAT | O_EXCL, &size);
    if (fd < 0)
        return;
    move_files(log);
    if (rename(fresh, log->path) < 0) {
        close_fd(fd);
        return;
    }
    struct log_file *file = log_file_new(fd, log->file->number + 1, 0);
    file->start = container_log_end(log);
    log->file->next = log_file_ref(file);
    log_file_unref(log->file);
    log->file = file;
    log->rotated = true;
}

static uint64_t inode_of(const struct log_file *file)
{
    struct stat status;

    return fstat(file->fd, &status) < 0 ? 0 : status.st_ino;
}

struct log_file *container_log_find(struct container_log *log, uint64_t inode)
{
    struct log_file *file = log_file_ref(log->file);
    unsigned missing = 0;

    for (uint32_t i = 1; missing < LOG_HOLE_MAX && i < MONITOR_LOG_FILES_MAX; i++) {
        _cleanup_free_ char *path = path_of(log, i);
        uint64_t size;
        if (inode && inode_of(file) == inode)
            break;
        int fd = open_file(path, O_RDONLY, &size);
        missing = fd < 0 ? missing + 1 : 0;
        if (fd < 0)
            continue;
        struct log_file *older = log_file_new(fd, log->file->number - i, size);
        older->start = file->start - size;
        older->next = file; /* the reference goes with it */
        file = older;
    }
    return file;
}

struct log_file *container_log_before(struct log_file *file, int fd)
{
    struct stat status;
    uint64_t size = fstat(fd, &status) < 0 ? 0 : (uint64_t)status.st_size;
    struct log_file *before = log_file_new(fd, file->number, size);

    before->start = file->start - size;
    before->next = file;
    return before;
}

/* ---- lines ---- */

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
    struct log_file *file = log->file;
    size_t length = log->length;
    ssize_t n;

    log->length = 0;
    do
        n = write(file->fd, log->text, length);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)length) {
        file->size += length;
        return 0;
    }
    int r = n < 0 ? -errno : -ENOSPC;
    if (n > 0 && ftruncate(file->fd, (off_t)file->size) < 0)
        file->size += (uint64_t)n;
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

/* Puts the line at *data, or a piece of it, into the text. */
static void put_piece(struct container_log *log, const char *full, const char *partial,
                      const char **data, size_t *length)
{
    size_t look = *length > LOG_LINE_MAX ? LOG_LINE_MAX + 1 : *length;
    const char *newline = memchr(*data, '\n', look);
    size_t piece = newline ? (size_t)(newline - *data) + 1 : look;

    if (!newline && piece > LOG_LINE_MAX)
        piece = LOG_LINE_MAX;
    put(log, newline ? full : partial, LOG_PREFIX_LENGTH);
    put(log, *data, piece);
    if (!newline)
        put(log, "\n", 1);
    *data += piece;
    *length -= piece;
}

/* Whether what is in the text is to be written before more is put into it. */
static bool text_is_full(const struct container_log *log)
{
    size_t room = LOG_PREFIX_LENGTH + LOG_LINE_MAX + 1;

    return log->length + room > LOG_TEXT_SIZE ||
           (log->max_size && !log->held && log->file->size + log->length >= log->max_size);
}

int container_log_append(struct container_log *log, enum stream stream, const char *data,
                         size_t length)
{
    char full[LOG_PREFIX_LENGTH + 1], partial[LOG_PREFIX_LENGTH + 1];
    int r = 0;

    format_prefix(log, stream, 'F', full);
    memcpy(partial, full, sizeof(full));
    partial[LOG_PREFIX_LENGTH - 2] = 'P';
    if (container_log_full(log) && !log->held) {
        rotate(log);
        log->held = log->watched;
    }
    struct log_file *file = log->file;
    uint64_t before = file->size;
    while (length && r == 0) {
        put_piece(log, full, partial, &data, &length);
        if (length && !text_is_full(log))
            continue;
        r = flush(log);
        if (r == 0 && length && container_log_full(log) && !log->held) {
            rotate(log);
            log->held = log->watched;
            file = log->file;
            before = file->size;
        }
    }
    if (r < 0 && file->size != before && ftruncate(file->fd, (off_t)before) == 0)
        file->size = before;
    report(log, r);
    return r;
}
