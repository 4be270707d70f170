#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/process.h>

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

/* What is still wanted when a file has been read back to its start. */
struct tail {
    int64_t lines; /* < 0: everything is found */
    bool seen[2];  /* streams whose last line was met */
};

static off_t find_tail(int fd, struct tail *tail)
{
    _cleanup_free_ char *block = xmalloc(BLOCK_SIZE);
    off_t size = size_of(fd);
    off_t end = size; /* start of the oldest line taken so far */
    off_t at = size;

    if (size <= 0)
        return size;
    /* Backwards: pieces that a later line of their stream completes belong to it. The newline that
     * ends the file begins no line. */
    for (;;) {
        off_t newline = at > 0 ? newline_before(fd, 0, at - 1, block) : -1;
        off_t start = newline + 1;
        if (begins_line(fd, start, tail->seen) && tail->lines-- == 0)
            return end;
        end = at = start;
        if (start == 0)
            return 0;
    }
}

off_t logfile_tail(int fd, int64_t lines)
{
    struct tail tail = {.lines = lines};

    return lines <= 0 ? size_of(fd) : find_tail(fd, &tail);
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

/* --- several files ---------------------------------------------------------------------------- */

enum {
    OPEN_TRIES = 8,
    HOLE_MAX = 2, /* numbers that a rotation cut off may have left out */
};

void logfile_set_close(struct logfile_set *set)
{
    while (set->count)
        close_fd(set->fds[--set->count]);
}

static bool has_file(const struct logfile_set *set, const struct stat *status)
{
    struct stat other;

    for (size_t i = 0; i < set->count; i++) {
        if (fstat(set->fds[i], &other) == 0 && other.st_ino == status->st_ino)
            return true;
    }
    return false;
}

/* 0: there is none, or it is in the set already: a rotation has moved it on. */
static int add_file(struct logfile_set *set, const char *path, bool packed, struct error *err)
{
    struct stat status;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open %s", path);
    if (has_file(set, &status))
        return 0;
    set->packed[set->count] = packed;
    set->fds[set->count++] = steal_fd(&fd);
    return 1;
}

/* Where there are both, the packing of one was cut off. */
static int add_older(struct logfile_set *set, const char *path, unsigned number, struct error *err)
{
    _cleanup_free_ char *older = xasprintf("%s.%u", path, number);
    _cleanup_free_ char *packed = xasprintf("%s.gz", older);
    int r = add_file(set, older, false, err);

    return r == 0 ? add_file(set, packed, true, err) : r;
}

/* Newest first. */
static int open_files(const char *path, struct logfile_set *set, struct error *err)
{
    int missing = 0, r = add_file(set, path, false, err);

    for (unsigned i = 1; r >= 0 && missing < HOLE_MAX && set->count < LOGFILE_FILES_MAX; i++) {
        r = add_older(set, path, i, err);
        missing = r == 0 ? missing + 1 : 0;
    }
    return r < 0 ? r : 0;
}

/* Whether the one in use is still what it was: nothing newer lies among the older ones then. */
static bool is_current(const struct logfile_set *set, const char *path)
{
    struct stat now, then;

    if (set->count == 0)
        return access(path, F_OK) < 0;
    return stat(path, &now) == 0 && fstat(set->fds[0], &then) == 0 && now.st_ino == then.st_ino;
}

static void reverse(const struct logfile_set *set, struct logfile_set *ret)
{
    ret->count = set->count;
    for (size_t i = 0; i < set->count; i++) {
        ret->fds[i] = set->fds[set->count - 1 - i];
        ret->packed[i] = ret->apart[i] = set->packed[set->count - 1 - i];
    }
}

int logfile_set_open(const char *path, const char *program, const char *folder,
                     struct logfile_set *ret, struct error *err)
{
    struct logfile_set set = {.count = 0};
    int r = 0;

    for (int i = 0; i < OPEN_TRIES; i++) {
        r = open_files(path, &set, err);
        if (r < 0 || is_current(&set, path))
            break;
        logfile_set_close(&set);
    }
    if (r == 0 && set.count == 0) {
        /* A container that never ran has an empty log. */
        set.fds[0] = memfd_create("empty log", MFD_CLOEXEC);
        if (set.fds[0] < 0)
            r = error_errno(err, errno, "make an empty file");
        else
            set.count = 1;
    }
    if (r < 0) {
        logfile_set_close(&set);
        return r;
    }
    reverse(&set, ret);
    ret->program = program;
    ret->folder = folder;
    return 0;
}

/* --- packed ones ------------------------------------------------------------------------------ */

static int make_file(const struct logfile_set *set, struct error *err)
{
    int fd = open(set->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    return fd < 0 ? error_errno(err, errno, "make a file in %s", set->folder) : fd;
}

static int run_unpacker(const char *program, int from, int to, struct error *err)
{
    char name[] = "cloche-logpack", verb[] = "unpack";
    char *const argv[] = {name, verb, NULL};
    const int fds[] = {from, to, STDERR_FILENO};
    const struct process_spec spec = {
        .path = program, .argv = argv, .fds = fds, .fds_count = ARRAY_SIZE(fds), .directory = "/"};
    struct process process;
    int status, r = process_spawn(&spec, &process, err);

    if (r == 0)
        r = process_wait(&process, &status, err);
    if (r == 0 && process_exit_code(status) != 0)
        r = error_set(err, -EIO, "an older part of the log cannot be unpacked");
    return r;
}

/* The file with this number as it was before it was packed; the set's. */
static int file_of(struct logfile_set *set, size_t number, struct error *err)
{
    if (!set->packed[number])
        return set->fds[number];
    _cleanup_close_ int fd = make_file(set, err);
    int r = fd < 0 ? fd : run_unpacker(set->program, set->fds[number], fd, err);
    if (r < 0)
        return r;
    close_fd(set->fds[number]);
    set->packed[number] = false;
    return set->fds[number] = steal_fd(&fd);
}

/* --- places in several files ------------------------------------------------------------------ */

int logfile_set_tail(struct logfile_set *set, int64_t lines, struct logfile_place *ret)
{
    struct tail tail = {.lines = lines};

    *ret = (struct logfile_place){set->count - 1, size_of(set->fds[set->count - 1])};
    for (size_t i = set->count; lines > 0 && tail.lines >= 0 && i > 0; i--) {
        int fd = file_of(set, i - 1, NULL);
        off_t offset = fd < 0 ? fd : find_tail(fd, &tail);
        if (offset < 0)
            return (int)offset;
        /* Nothing of this file: the place found before stays. */
        if (tail.lines >= 0 || offset < size_of(fd))
            *ret = (struct logfile_place){i - 1, offset};
    }
    return ret->offset < 0 ? (int)ret->offset : 0;
}

/* From the newest on, so that nothing is unpacked that is too old. */
int logfile_set_since(struct logfile_set *set, int64_t time, struct logfile_place *ret)
{
    for (size_t i = set->count; i > 0; i--) {
        int fd = file_of(set, i - 1, NULL);
        off_t offset = fd < 0 ? fd : logfile_since(fd, time), size = fd < 0 ? 0 : size_of(fd);
        if (offset < 0 || size < 0)
            return offset < 0 ? (int)offset : (int)size;
        if (i == set->count || offset < size)
            *ret = (struct logfile_place){i - 1, offset};
        if (offset > 0)
            return 0;
    }
    return 0;
}

static int copy_rest(int from, off_t offset, int to, struct error *err)
{
    ssize_t n;

    do
        n = copy_file_range(from, &offset, to, NULL, INT32_MAX, 0);
    while (n > 0 || (n < 0 && errno == EINTR));
    return n < 0 ? error_errno(err, errno, "copy a part of the log") : 0;
}

/* All files from the place on, before the one of number end. */
static int join(struct logfile_set *set, const struct logfile_place *from, size_t end,
                struct error *err)
{
    _cleanup_close_ int fd = make_file(set, err);
    int r = fd < 0 ? fd : 0;

    for (size_t i = from->file; r == 0 && i < end; i++) {
        int part = file_of(set, i, err);
        r = part < 0 ? part : copy_rest(part, i == from->file ? from->offset : 0, fd, err);
    }
    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = error_errno(err, errno, "read the log");
    return r < 0 ? r : steal_fd(&fd);
}

int logfile_set_join(struct logfile_set *set, const struct logfile_place *from, struct error *err)
{
    size_t newest = set->count - 1;

    if (from->file != newest)
        return join(set, from, set->count, err);
    _cleanup_close_ int fd = fcntl(set->fds[newest], F_DUPFD_CLOEXEC, 3);
    if (fd < 0 || lseek(fd, from->offset, SEEK_SET) < 0)
        return error_errno(err, errno, "read the log");
    return steal_fd(&fd);
}

int logfile_set_join_older(struct logfile_set *set, const struct logfile_place *from,
                           struct error *err)
{
    return join(set, from, set->count - 1, err);
}
