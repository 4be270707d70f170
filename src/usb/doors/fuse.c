/*
 * A FUSE door: how it begins and ends, and what its requests have in common.
 *
 * There is no message for opening and closing files: the kernel is told at the first one that there
 * never is.
 */
#include "fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <block/waiting.h>

enum {
    PAGE = 4096,
    BACKGROUND = 32, /* requests that the kernel has under way for read-ahead and write-back */
    THREADS_MOST = 64,
    LIMITED_PART = 10, /* with a limit, a request takes at most such a part of a second */
};

const char *fuse_door_end_name(enum fuse_door_end end)
{
    static const char *const names[] = {
        [FUSE_DOOR_UNMOUNTED] = "unmounted",
        [FUSE_DOOR_GONE] = "gone",
        [FUSE_DOOR_FAILED] = "failed",
    };
    return names[end];
}

/* The end. */

void door_ended(struct fuse_door *door, enum fuse_door_end end, const char *format, ...)
{
    va_list args;
    if (atomic_exchange(&door->told, true) || !door->options.ended)
        return;
    va_start(args, format);
    _cleanup_free_ char *message = xvasprintf(format, args);
    va_end(args);
    door->options.ended(door, end, message, door->options.data);
}

/* What requests have in common. */

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * CLOCK_SECOND + now.tv_nsec;
}

bool door_limit(struct fuse_door *door, struct rate *rate, uint64_t amount)
{
    if (rate->per_second == 0)
        return true;
    int64_t now = nanoseconds(), end = now + rate_take(rate, amount, now);
    if (end > now)
        atomic_fetch_add(&door->delayed, 1);
    for (; now < end && !atomic_load(&door->ending); now = nanoseconds()) {
        door_let_others();
        struct timespec wait = {(end - now) / CLOCK_SECOND, (end - now) % CLOCK_SECOND};
        struct pollfd wake = {.fd = door->wake, .events = POLLIN};
        ppoll(&wake, 1, &wait, NULL);
    }
    return !atomic_load(&door->ending);
}

bool door_use(struct fuse_door *door, uint64_t bytes)
{
    uint64_t limit = door->options.size_limit, used = atomic_load(&door->used);
    do {
        if (limit > 0 && bytes > limit - used)
            return false;
    } while (!atomic_compare_exchange_weak(&door->used, &used, used + (limit > 0 ? bytes : 0)));
    return true;
}

void door_unuse(struct fuse_door *door, uint64_t bytes)
{
    if (door->options.size_limit > 0)
        atomic_fetch_sub(&door->used, bytes);
}

bool door_is_open(fuse_req_t request)
{
    if (!atomic_load(&door_of(request)->gone))
        return true;
    fuse_reply_err(request, ENODEV);
    return false;
}

bool door_is_writable(fuse_req_t request)
{
    if (!door_is_open(request))
        return false;
    if (!door_of(request)->options.read_only)
        return true;
    fuse_reply_err(request, EROFS);
    return false;
}

/* Damage and trouble with the medium are one thing to programs. */
static int error_for_programs(int error)
{
    switch (error) {
    case ENODEV:
    case ENOMEDIUM:
        return ENODEV;
    case EUCLEAN:
    case ETIMEDOUT:
    case ECANCELED:
    case E2BIG:
        return EIO;
    default:
        return error;
    }
}

void door_fail(fuse_req_t request, int error, struct error *err)
{
    struct fuse_door *door = door_of(request);
    int answer = error_for_programs(-error);
    if (answer == EIO || answer == ENODEV)
        atomic_fetch_add(&door->failed, 1);
    if (answer == ENODEV) {
        atomic_store(&door->gone, true);
        door_ended(door, FUSE_DOOR_GONE, "the device is gone: %s", error_message(err));
    } else if (answer == EIO && !atomic_exchange(&door->warned, true)) {
        log_failure(LOG_WARNING, err, "a volume cannot be read or written");
    }
    fuse_reply_err(request, answer);
}

/* Requests that are answered here. */

static void start(void *data, struct fuse_conn_info *conn)
{
    struct fuse_door *door = data;
    uint64_t limit = door->options.bytes_per_second / LIMITED_PART;
    conn->max_write = FUSE_DOOR_REQUEST;
    if (limit > 0 && limit < FUSE_DOOR_REQUEST) {
        conn->max_write = limit < PAGE ? PAGE : (unsigned)limit / PAGE * PAGE;
        conn->max_readahead = conn->max_write;
    }
    door->write_back = !door->options.read_only && !door->options.write_through &&
                       (conn->capable & FUSE_CAP_WRITEBACK_CACHE) &&
                       served_is_alone(door->served, &door->neighbour);
    if (door->write_back)
        conn->want |= FUSE_CAP_WRITEBACK_CACHE;
    conn->max_background = BACKGROUND;
    conn->congestion_threshold = BACKGROUND * 3 / 4;
    /* What was changed by this mount is known to the kernel: that times are not its own is no
     * reason to read anew. A file is made empty by SETATTR, not by opening it. */
    conn->want &=
        ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS_AUTO);
    conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ |
                                   FUSE_CAP_NO_OPENDIR_SUPPORT | FUSE_CAP_NO_OPEN_SUPPORT);
    conn->time_gran = door->volume->ops->time_step;
}

/* Then the kernel keeps what it has of the content, and hears of what others change; nor does it
 * ask whether a file may be opened (default_permissions), but for attributes that it has not. */
static void not_opened(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    fuse_reply_err(request, ENOSYS);
}

/* Linux' vfat has no links. */
static void no_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(request, EPERM);
}

static void no_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(request, EPERM);
}

static void no_xattrs(fuse_req_t request, fuse_ino_t ino, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(request, 0);
    else
        fuse_reply_buf(request, NULL, 0);
}

/* What is not here is answered by ENOSYS, of which the kernel makes what a file system without it
 * has (EOPNOTSUPP, ENOTTY) and asks no more; flushing, too: it has nothing left to do. So is
 * CREATE, in whose place comes MKNOD: after that one, nothing says that the file was closed. */
static const struct fuse_lowlevel_ops operations = {
    .init = start,
    .lookup = door_lookup,
    .forget = door_forget,
    .forget_multi = door_forget_many,
    .getattr = door_getattr,
    .setattr = door_setattr,
    .open = not_opened,
    .opendir = not_opened,
    .mknod = door_mknod,
    .mkdir = door_mkdir,
    .unlink = door_unlink,
    .rmdir = door_rmdir,
    .rename = door_rename,
    .readdir = door_readdir,
    .readdirplus = door_readdirplus,
    .read = door_read,
    .write = door_write,
    .fallocate = door_fallocate,
    .fsync = door_fsync,
    .fsyncdir = door_fsync,
    .statfs = door_statfs,
    .symlink = no_symlink,
    .link = no_link,
    .listxattr = no_xattrs,
};

/* Opening. */

static int check_options(struct fuse_door_options *options, struct error *err)
{
    if (!options->file_mode)
        options->file_mode = 0644;
    if (!options->folder_mode)
        options->folder_mode = 0755;
    if (!options->threads)
        options->threads = FUSE_DOOR_THREADS;
    if ((options->file_mode | options->folder_mode) & ~0777u)
        return error_set(err, -EINVAL, "modes are permissions, up to 0777: %o and %o",
                         options->file_mode, options->folder_mode);
    if (options->threads < 2 || options->threads > THREADS_MOST)
        return error_set(err, -EINVAL, "a door has 2 to %u threads: %u", THREADS_MOST,
                         options->threads);
    return 0;
}

static void log_of_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
    _cleanup_free_ char *text = xvasprintf(format, args);
    log_debug("libfuse: %s", text);
}

/* "/dev/fd/N" makes libfuse take a descriptor that is mounted already. */
static int open_session(struct fuse_door *door, int fd, struct error *err)
{
    char *arguments[] = {(char *)"cloche", NULL}, path[32];
    struct fuse_args args = FUSE_ARGS_INIT(1, arguments);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return error_errno(err, errno, "look at the descriptor of /dev/fuse");
    fuse_set_log_func(log_of_libfuse);
    door->session = fuse_session_new(&args, &operations, sizeof(operations), door);
    fuse_opt_free_args(&args);
    snprintf(path, sizeof(path), "/dev/fd/%d", fd);
    if (!door->session || fuse_session_mount(door->session, path) != 0)
        return error_set(err, -EIO, "libfuse does not take descriptor %d", fd);
    return 0;
}

static void release(struct fuse_door *door)
{
    served_leave(door->served, &door->neighbour);
    if (door->session)
        fuse_session_destroy(door->session);
    pthread_mutex_destroy(&door->turn);
    arrivals_finish(&door->arrivals);
    door_caches_finish(door);
    door_nodes_finish(door);
    rate_finish(&door->bytes);
    rate_finish(&door->operations);
    close_fd(door->wake);
    close_fd(door->work);
    close_fd(door->poll);
    free(door->threads);
    free(door->memory);
    free(door);
}

int fuse_door_open(struct served_volume *served, int fd, const struct fuse_door_options *options,
                   struct fuse_door **ret_door, struct error *err)
{
    struct fuse_door *door = xnew(struct fuse_door);
    door->served = served;
    door->volume = served->volume;
    door->options = *options;
    door->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door->work = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door->poll = -1;
    rate_init(&door->bytes, options->bytes_per_second);
    rate_init(&door->operations, options->operations_per_second);
    pthread_mutex_init(&door->turn, NULL);
    door_nodes_init(door);
    door_caches_init(door);
    int r = check_options(&door->options, err);
    if (r == 0 && (door->wake < 0 || door->work < 0))
        r = error_errno(err, errno, "make an eventfd");
    if (r == 0)
        r = open_session(door, fd, err);
    bool is_taken = r == 0;
    if (r == 0)
        r = door_threads_watch(door, err);
    if (r == 0) {
        served_join(served, &door->neighbour);
        r = door_threads_start(door, err);
    }
    if (!is_taken)
        close_fd(fd);
    if (r != 0) {
        fuse_door_close(door);
        return r;
    }
    *ret_door = door;
    return 0;
}

void fuse_door_counts(struct fuse_door *door, struct fuse_door_counts *ret_counts)
{
    *ret_counts = (struct fuse_door_counts){
        .requests = atomic_load(&door->requests),
        .bytes_read = atomic_load(&door->bytes_read),
        .bytes_written = atomic_load(&door->bytes_written),
        .failed = atomic_load(&door->failed),
        .delayed = atomic_load(&door->delayed),
    };
}

void fuse_door_close(struct fuse_door *door)
{
    if (!door)
        return;
    atomic_store(&door->told, true);
    door_caches_stop(door);
    door_threads_end(door);
    release(door);
}
