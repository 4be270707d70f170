#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <base/alloc.h>

#include "stream.h"

/*
 * One poll loop over five descriptors. Each direction has a bounded buffer, and its source is read
 * only while that is empty: a slow reader on one side never blocks the other direction. Our own
 * stdin and stdout may be shared with other programs, so they stay in blocking mode: a write of at
 * most PIPE_BUF bytes to a pipe that poll() calls writable does not block (pipe(7)).
 */
enum {
    CHUNK = 64 * 1024, /* read at a time */
    WRITE_MAX = 4096,  /* to a pipe or terminal; PIPE_BUF */
};

enum waited { WAIT_STREAM, WAIT_STDIN, WAIT_STDOUT, WAIT_STDERR, WAIT_SIGNALS, WAIT_OTHER, WAITS };

struct output {
    int fd;
    bool regular; /* a file: writes do not block, whatever their size */
    int failure;  /* errno of a write, EPIPE: the reader is gone. What comes is dropped */
    struct buffer pending;
};

struct loop {
    struct stream *stream;
    int signals;
    struct output outputs[2]; /* stdout, stderr */
    struct buffer to_stream;
    bool stdin_open, stream_open, half_closed;
    struct frames frames;
    bool detached, interrupted;
    struct pollfd waits[WAITS];
};

int stream_take_signals(struct error *err)
{
    static const int taken[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
                                SIGUSR2, SIGALRM, SIGCONT, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
        sigaddset(&set, taken[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return error_errno(err, errno, "block signals");
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? error_errno(err, errno, "signalfd") : fd;
}

static uint32_t big_endian32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

int frames_parse(struct frames *frames, const unsigned char *data, size_t length,
                 struct buffer *out, struct buffer *err_out)
{
    while (length) {
        if (!frames->left) {
            frames->header[frames->header_length++] = *data++;
            length--;
            if (frames->header_length < FRAME_HEADER)
                continue;
            frames->header_length = 0;
            if (frames->header[0] > FRAME_STDERR)
                return -EPROTO;
            frames->left = big_endian32(frames->header + 4);
            continue;
        }
        size_t take = length < frames->left ? length : frames->left;
        buffer_append(frames->header[0] == FRAME_STDERR ? err_out : out, data, take);
        frames->left -= (uint32_t)take;
        data += take;
        length -= take;
    }
    return 0;
}

static void report_size(struct loop *loop)
{
    uint16_t rows, columns;

    if (loop->stream->tty && loop->stream->events->resize &&
        (terminal_size(STDIN_FILENO, &rows, &columns) >= 0 ||
         terminal_size(STDOUT_FILENO, &rows, &columns) >= 0))
        loop->stream->events->resize(loop->stream->context, rows, columns);
}

static void read_signals(struct loop *loop)
{
    struct stream *stream = loop->stream;
    struct signalfd_siginfo info;

    while (read(loop->signals, &info, sizeof(info)) == sizeof(info)) {
        int number = (int)info.ssi_signo;
        if (number == SIGWINCH) {
            report_size(loop);
        } else if (number == SIGCONT && stream->tty) {
            report_size(loop);
        } else if (stream->pass_signals && stream->events->signal) {
            stream->events->signal(stream->context, number);
            /* The terminal is gone: nobody is there to wait for the end. */
            loop->interrupted = number == SIGHUP && stream->tty;
        } else if (number != SIGCONT) {
            loop->interrupted = true;
        }
        if (loop->interrupted) {
            stream->signal = number;
            return;
        }
    }
}

/* The container may end with input unread: an error here is not the end, its output may still be
 * on the way. */
static void write_stream(struct loop *loop)
{
    ssize_t r = send(loop->stream->fd, loop->to_stream.data, loop->to_stream.length,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r >= 0) {
        buffer_consume(&loop->to_stream, (size_t)r);
    } else if (errno != EAGAIN && errno != EINTR) {
        buffer_clear(&loop->to_stream);
        loop->stdin_open = false;
        loop->half_closed = true;
    }
}

/* Keys or bytes of the user's; an end or an error of stdin is the end of the container's. */
static void read_stdin(struct loop *loop)
{
    unsigned char typed[CHUNK], passed[CHUNK + DETACH_KEYS_MAX];
    size_t length = 0;

    ssize_t r = read(STDIN_FILENO, typed, sizeof(typed));
    if (r < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (r <= 0) {
        loop->stdin_open = false;
        return;
    }
    if (!loop->stream->tty) {
        buffer_append(&loop->to_stream, typed, (size_t)r);
        return;
    }
    loop->detached =
        detach_keys_filter(&loop->stream->detach_keys, typed, (size_t)r, passed, &length);
    buffer_append(&loop->to_stream, passed, length);
    /* The other end looks for them, too, and tells that somebody has parted by them. */
    if (loop->detached) {
        buffer_append(&loop->to_stream, loop->stream->detach_keys.keys,
                      loop->stream->detach_keys.count);
        write_stream(loop);
    }
}

static int read_stream(struct loop *loop, struct error *err)
{
    unsigned char data[CHUNK];

    ssize_t r = recv(loop->stream->fd, data, sizeof(data), MSG_DONTWAIT);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (r <= 0) {
        loop->stream_open = false;
        return r < 0 && errno != ECONNRESET ? error_errno(err, errno, "read the attach stream") : 0;
    }
    if (loop->stream->tty) {
        buffer_append(&loop->outputs[0].pending, data, (size_t)r);
        return 0;
    }
    if (frames_parse(&loop->frames, data, (size_t)r, &loop->outputs[0].pending,
                     &loop->outputs[1].pending) < 0)
        return error_set(err, -EPROTO, "the attach stream carries something else than frames");
    return 0;
}

static void write_output(struct output *output)
{
    size_t length = output->pending.length;

    if (!output->regular && length > WRITE_MAX)
        length = WRITE_MAX;
    ssize_t r = write(output->fd, output->pending.data, length);
    if (r >= 0) {
        buffer_consume(&output->pending, (size_t)r);
    } else if (errno != EAGAIN && errno != EINTR) {
        output->failure = errno;
        buffer_clear(&output->pending);
    }
}

static void wait_for(struct pollfd *wait, int fd, short events)
{
    wait->fd = events ? fd : -1;
    wait->events = events;
    wait->revents = 0;
}

static void prepare_waits(struct loop *loop)
{
    struct stream *stream = loop->stream;
    bool drained = !loop->outputs[0].pending.length && !loop->outputs[1].pending.length;
    int events = 0;

    if (loop->stream_open && drained)
        events |= POLLIN;
    if (loop->to_stream.length)
        events |= POLLOUT;
    wait_for(&loop->waits[WAIT_STREAM], stream->fd, (short)events);
    wait_for(&loop->waits[WAIT_STDIN], STDIN_FILENO,
             loop->stdin_open && !loop->to_stream.length ? POLLIN : 0);
    for (int i = 0; i < 2; i++)
        wait_for(&loop->waits[WAIT_STDOUT + i], loop->outputs[i].fd,
                 loop->outputs[i].pending.length ? POLLOUT : 0);
    wait_for(&loop->waits[WAIT_SIGNALS], loop->signals, POLLIN);
    int other = stream->events->watched_fd ? stream->events->watched_fd(stream->context) : -1;
    wait_for(&loop->waits[WAIT_OTHER], other, other >= 0 ? POLLIN : 0);
}

/* One round: wait, then serve whatever is ready. */
static int turn(struct loop *loop, struct error *err)
{
    struct stream *stream = loop->stream;
    int r = 0;

    prepare_waits(loop);
    if (poll(loop->waits, WAITS, -1) < 0)
        return errno == EINTR ? 0 : error_errno(err, errno, "poll");
    if (loop->waits[WAIT_SIGNALS].revents)
        read_signals(loop);
    if (loop->waits[WAIT_STDIN].revents)
        read_stdin(loop);
    if (loop->waits[WAIT_STREAM].revents && loop->to_stream.length)
        write_stream(loop);
    if (loop->waits[WAIT_STREAM].revents & (POLLIN | POLLHUP | POLLERR) &&
        loop->waits[WAIT_STREAM].events & POLLIN)
        r = read_stream(loop, err);
    for (int i = 0; i < 2; i++) {
        if (loop->waits[WAIT_STDOUT + i].revents)
            write_output(&loop->outputs[i]);
    }
    if (loop->waits[WAIT_OTHER].revents)
        stream->events->watched(stream->context);
    if (!loop->stdin_open && !loop->to_stream.length && !loop->half_closed) {
        shutdown(stream->fd, SHUT_WR);
        loop->half_closed = true;
    }
    return r;
}

static bool goes_on(const struct loop *loop)
{
    if (loop->detached || loop->interrupted)
        return false;
    return loop->stream_open || loop->outputs[0].pending.length || loop->outputs[1].pending.length;
}

static void output_init(struct output *output, int fd)
{
    struct stat status;

    output->fd = fd;
    output->regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

int stream_run(struct stream *stream, int signals, enum stream_end *ret_end, struct error *err)
{
    struct loop loop = {
        .stream = stream,
        .signals = signals,
        .stdin_open = stream->with_stdin,
        .stream_open = true,
        .half_closed = !stream->with_stdin,
    };
    int r = 0;

    output_init(&loop.outputs[0], STDOUT_FILENO);
    output_init(&loop.outputs[1], STDERR_FILENO);
    if (stream->tty && stream->with_stdin && isatty(STDIN_FILENO))
        r = terminal_make_raw(STDIN_FILENO, err);
    report_size(&loop);
    while (r >= 0 && goes_on(&loop)) {
        r = turn(&loop, err);
        if (loop.outputs[0].failure && !loop.interrupted)
            r = error_errno(err, loop.outputs[0].failure, "write to standard output");
    }
    /* What was typed in front of the detach keys, as far as the container takes it now. */
    if (loop.detached && loop.to_stream.length)
        write_stream(&loop);
    terminal_restore();
    *ret_end = loop.detached      ? STREAM_DETACHED
               : loop.interrupted ? STREAM_INTERRUPTED
                                  : STREAM_ENDED;
    buffer_finish(&loop.outputs[0].pending);
    buffer_finish(&loop.outputs[1].pending);
    buffer_finish(&loop.to_stream);
    return r;
}
