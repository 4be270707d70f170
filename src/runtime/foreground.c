#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <base/process.h>

#include "foreground.h"
#include "notify.h"

enum {
    COPY_SIZE = 16384,
    DRAIN_MS = 100, /* for output that background processes of the container still hold back */
};

struct copy {
    int from, to; /* from -1: ended */
    size_t start, end;
    char data[COPY_SIZE];
};

struct foreground {
    pid_t pid;
    int signal_fd;
    int master_fd;
    struct notify *notify; /* NULL: none, or it has served */
    bool ended;
    int status;
    struct copy input, output;
    struct termios saved;
    bool raw;
};

static void pass_size_on(const struct foreground *foreground)
{
    struct winsize size;

    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        ioctl(foreground->master_fd, TIOCSWINSZ, &size);
}

static void make_raw(struct foreground *foreground)
{
    struct termios mode;

    if (tcgetattr(STDIN_FILENO, &foreground->saved) < 0)
        return;
    mode = foreground->saved;
    cfmakeraw(&mode);
    mode.c_oflag |= OPOST; /* our own messages still end their lines */
    foreground->raw = tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
}

static void copy_read(struct copy *copy)
{
    ssize_t n = read(copy->from, copy->data, sizeof(copy->data));

    if (n > 0) {
        copy->start = 0;
        copy->end = (size_t)n;
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        copy->from = -1; /* a master whose slaves are all closed: EIO */
    }
}

static void copy_write(struct copy *copy)
{
    ssize_t n = write(copy->to, copy->data + copy->start, copy->end - copy->start);

    if (n > 0)
        copy->start += (size_t)n;
    else if (n < 0 && errno != EINTR && errno != EAGAIN)
        copy->start = copy->end = 0; /* nobody takes it: dropped, the process goes on */
    if (copy->start == copy->end)
        copy->start = copy->end = 0;
}

static void take_signal(struct foreground *foreground)
{
    struct signalfd_siginfo info;

    if (read(foreground->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH && foreground->master_fd >= 0)
        pass_size_on(foreground);
    else if (info.ssi_signo == SIGCHLD)
        foreground->ended =
            waitpid(foreground->pid, &foreground->status, WNOHANG) == foreground->pid;
    else
        kill(foreground->pid, (int)info.ssi_signo);
}

/* One side of a copy is waited for at a time: the writer while there is data, else the reader. */
static struct pollfd want(const struct copy *copy)
{
    if (copy->end > copy->start)
        return (struct pollfd){.fd = copy->to, .events = POLLOUT};
    return (struct pollfd){.fd = copy->from, .events = POLLIN};
}

static void step_copy(struct copy *copy, const struct pollfd *polled)
{
    if (!polled->revents)
        return;
    if (polled->events == POLLOUT)
        copy_write(copy);
    else
        copy_read(copy);
}

static int loop(struct foreground *foreground, struct error *err)
{
    for (;;) {
        struct pollfd polled[] = {
            {.fd = foreground->signal_fd, .events = POLLIN},
            want(&foreground->input),
            want(&foreground->output),
            {.fd = foreground->notify ? foreground->notify->fd : -1, .events = POLLIN}};
        if (foreground->ended) {
            polled[0].fd = polled[1].fd = polled[3].fd = -1;
            if (polled[2].fd < 0)
                return 0;
        }
        int n = poll(polled, ARRAY_SIZE(polled), foreground->ended ? DRAIN_MS : -1);
        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "poll");
        if (n == 0)
            return 0;
        if (polled[0].revents)
            take_signal(foreground);
        /* A manager that cannot be told is no reason to leave the container alone. */
        if (polled[3].revents && notify_take(foreground->notify, NULL) != 0)
            foreground->notify = NULL;
        step_copy(&foreground->input, &polled[1]);
        step_copy(&foreground->output, &polled[2]);
    }
}

void foreground_block_signals(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

int foreground_wait(pid_t pid, int master_fd, struct notify *notify, int *ret_code,
                    struct error *err)
{
    static struct foreground foreground; /* its buffers are large for a stack */
    sigset_t all;

    foreground = (struct foreground){
        .pid = pid,
        .master_fd = master_fd,
        .notify = notify,
        .input = {.from = -1, .to = master_fd},
        .output = {.from = master_fd, .to = STDOUT_FILENO},
    };
    foreground_block_signals();
    sigfillset(&all);
    foreground.signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (foreground.signal_fd < 0)
        return error_errno(err, errno, "signalfd");
    if (master_fd >= 0) {
        foreground.input.from = STDIN_FILENO;
        fcntl(master_fd, F_SETFL, O_RDWR | O_NONBLOCK);
        pass_size_on(&foreground);
        make_raw(&foreground);
    }
    /* It may have ended before its SIGCHLD was blocked. */
    foreground.ended = waitpid(pid, &foreground.status, WNOHANG) == pid;
    int r = loop(&foreground, err);
    if (foreground.raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &foreground.saved);
    close(foreground.signal_fd);
    if (r == 0)
        *ret_code = process_exit_code(foreground.status);
    return r;
}
