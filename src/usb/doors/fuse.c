/*
 * A FUSE door: the threads, and how it begins and ends.
 *
 * Main flow of a thread: take the turn -> wait for a request -> read it -> wait as the limits say
 * -> answer it (fuse_names.c, fuse_content.c) -> tell the kernel what it must forget
 * (fuse_caches.c).
 *
 * One thread has the turn to wait for requests and to read them. It keeps it while it answers, so
 * that a program that asks for one thing after the other wakes one and the same thread, and gives
 * it away before it waits for anything (block/waiting.h): then the next one goes on. There is no
 * message for opening and closing: the kernel is told at the first one that there never is.
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
    HEADER = 4096,        /* bytes that libfuse wants beside the content of a request */
    BEFORE_CONTENT = 80,  /* of a WRITE: struct fuse_in_header, struct fuse_write_in */
    GATHERED = 256 << 10, /* bytes of small writes that are answered together */
    MEMORY = PAGE + GATHERED + FUSE_DOOR_REQUEST + HEADER,
    BACKGROUND = 32, /* requests that the kernel has under way for read-ahead and write-back */
    THREADS_MOST = 64,
    LIMITED_PART = 10, /* with a limit, a request takes at most such a part of a second */
};

_Thread_local struct door_thread *door_self;

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

static void end_threads(struct fuse_door *door)
{
    atomic_store(&door->ending, true);
    eventfd_write(door->wake, 1);
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

/* The threads. */

static uint32_t opcode_of(const struct fuse_buf *buffer)
{
    const struct fuse_in_header *header = buffer->mem;
    return buffer->size >= sizeof(*header) ? header->opcode : 0;
}

static bool is_limited(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_WRITE: /* is, in its first part */
        return false;
    default:
        return true;
    }
}

static void answer(struct door_thread *thread, const struct fuse_buf *buffer)
{
    struct fuse_door *door = thread->door;
    atomic_fetch_add(&door->requests, 1);
    if (is_limited(opcode_of(buffer)))
        door_limit(door, &door->operations, 1);
    fuse_session_process_buf(door->session, buffer);
    door_tell_kernel(door);
}

static void answer_writes(struct door_thread *thread)
{
    door_writes_move(thread);
    for (unsigned i = 0; i < thread->write_count; i++) {
        thread->write = thread->ordered[i];
        answer(thread, &thread->write->buffer);
    }
    thread->write_count = 0;
}

/* Small writes that come one after the other are answered together. Returns as reading does: of the
 * first request that is none of them, which *buffer is. */
static int gather_writes(struct door_thread *thread, struct fuse_buf *buffer)
{
    struct fuse_door *door = thread->door;
    size_t used = 0;
    int r = 1;
    while (r > 0 && opcode_of(buffer) == FUSE_WRITE && door_write_begin(thread, buffer) == 0) {
        used += (buffer->size + 7) / 8 * 8;
        *buffer = (struct fuse_buf){.mem = thread->memory + used};
        r = 0;
        if (thread->has_turn && thread->write_count < CONTENT_PIECES && used < GATHERED &&
            door_write_is_small(&thread->writes[thread->write_count - 1]))
            r = fuse_session_receive_buf(door->session, buffer);
        else
            break;
    }
    return r;
}

/* What came behind writes: its place is that of any other request, whose answer may need the rest
 * of the memory. */
static void move_to_front(struct door_thread *thread, struct fuse_buf *buffer)
{
    memmove(thread->memory, buffer->mem, buffer->size);
    buffer->mem = thread->memory;
}

static bool nothing_came(int r)
{
    return r == 0 || r == -EAGAIN || r == -EINTR;
}

/* Reads and answers what there is. 0: nothing, for now; negative: nothing any more. */
static int answer_next(struct door_thread *thread)
{
    struct fuse_buf buffer = {.mem = thread->memory};
    int r = fuse_session_receive_buf(thread->door->session, &buffer);
    if (r == 0)
        return -ENODEV;
    while (r > 0 && opcode_of(&buffer) == FUSE_WRITE) {
        r = gather_writes(thread, &buffer);
        answer_writes(thread);
        if (r > 0)
            move_to_front(thread, &buffer);
    }
    if (r > 0)
        answer(thread, &buffer);
    return r > 0 ? 1 : nothing_came(r) ? 0 : r;
}

void door_let_others(void)
{
    if (!door_self || !door_self->has_turn)
        return;
    door_self->has_turn = false;
    pthread_mutex_unlock(&door_self->door->turn);
}

static void take_turn(struct door_thread *thread)
{
    if (thread->has_turn)
        return;
    pthread_mutex_lock(&thread->door->turn);
    thread->has_turn = true;
}

/* What the thread that has the turn waits for. A descriptor that cannot be watched cannot be read
 * either, which each thread tries before it waits for the first time. */
static int watch(struct fuse_door *door, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN};
    door->poll = epoll_create1(EPOLL_CLOEXEC);
    int r = door->poll < 0 ? -1 : 0;
    if (r == 0) {
        epoll_ctl(door->poll, EPOLL_CTL_ADD, fuse_session_fd(door->session), &event);
        r = epoll_ctl(door->poll, EPOLL_CTL_ADD, door->wake, &event);
    }
    event.events = EPOLLIN | EPOLLET;
    if (r == 0)
        r = epoll_ctl(door->poll, EPOLL_CTL_ADD, door->work, &event);
    return r == 0 ? 0 : error_errno(err, errno, "watch a FUSE connection");
}

/* Not of medium_buffer(): FUSE takes the pages of what it copies to and from, and memory that usbfs
 * has mapped (VM_PFNMAP) has none that can be taken: EFAULT. */
static uint8_t *new_memory(void)
{
    void *memory;
    if (posix_memalign(&memory, PAGE, MEMORY) != 0)
        abort();
    return memory;
}

static void *work(void *data)
{
    struct fuse_door *door = data;
    _cleanup_free_ uint8_t *memory = new_memory();
    struct door_thread thread = {
        .door = door,
        .memory = memory + PAGE - BEFORE_CONTENT,
        .content = memory + PAGE,
    };
    struct epoll_event event;
    door_self = &thread;
    block_before_waiting = door_let_others;
    take_turn(&thread);
    int r = answer_next(&thread);
    while (!atomic_load(&door->ending) && r >= 0) {
        take_turn(&thread);
        epoll_wait(door->poll, &event, 1, -1);
        door_tell_kernel(door);
        if (thread.has_turn)
            r = answer_next(&thread);
    }
    door_let_others();
    if (!atomic_load(&door->ending)) {
        if (r == -ENODEV)
            door_ended(door, FUSE_DOOR_UNMOUNTED, "it was unmounted, or its connection aborted");
        else
            door_ended(door, FUSE_DOOR_FAILED, "read requests: %s", strerror(-r));
        end_threads(door);
    }
    return NULL;
}

static int start_threads(struct fuse_door *door, struct error *err)
{
    unsigned count = door->options.threads;
    door->threads = xnew_array(pthread_t, count);
    for (; door->thread_count < count; door->thread_count++) {
        int r = pthread_create(&door->threads[door->thread_count], NULL, work, door);
        if (r != 0)
            return error_errno(err, r, "start a thread of a door");
    }
    return 0;
}

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
    door_caches_finish(door);
    door_nodes_finish(door);
    rate_finish(&door->bytes);
    rate_finish(&door->operations);
    close_fd(door->wake);
    close_fd(door->work);
    close_fd(door->poll);
    free(door->threads);
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
        r = watch(door, err);
    if (r == 0) {
        served_join(served, &door->neighbour);
        r = start_threads(door, err);
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
    end_threads(door);
    for (unsigned i = 0; i < door->thread_count; i++)
        pthread_join(door->threads[i], NULL);
    release(door);
}
