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
#include "state.h"

enum {
    COPY_SIZE = 16384,
    DRAIN_MS = 100, /* for output that background processes of the container still hold back */
};

struct copy {
    int from, to; /* from -1: ended */
    size_t start, end;
    char *data; /* COPY_SIZE bytes */
};

/* Without a terminal nothing is copied: then they are never touched, and take no memory. */
static char input_data[COPY_SIZE], output_data[COPY_SIZE];

struct foreground {
    pid_t pid;
    int signal_fd;
    int master_fd;
    struct notify *notify; /* NULL: none, or it has served */
    bool ended, unexecuted;
    int status;
    struct copy input, output;
    struct termios saved;
    bool raw;
};

static struct copy copy_between(int from, int to, char *data)
{
    return (struct copy){.from = from, .to = to, .data = data};
}

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
    ssize_t n = read(copy->from, copy->data, COPY_SIZE);

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

/* How one that was killed had lived is known until it is waited for. */
static void take_end(struct foreground *foreground)
{
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)foreground->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
        info.si_pid != foreground->pid)
        return;
    if (info.si_code != CLD_EXITED)
        foreground->unexecuted = state_never_executed(foreground->pid);
    foreground->ended = waitpid(foreground->pid, &foreground->status, 0) == foreground->pid;
}

static void take_signal(struct foreground *foreground, int number)
{
    if (number == SIGWINCH && foreground->master_fd >= 0)
        pass_size_on(foreground);
    else if (number == SIGCHLD)
        take_end(foreground);
    else
        kill(foreground->pid, number);
}

static void read_signal(struct foreground *foreground)
{
    struct signalfd_siginfo info;

    if (read(foreground->signal_fd, &info, sizeof(info)) == sizeof(info))
        take_signal(foreground, (int)info.ssi_signo);
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
            read_signal(foreground);
        /* A manager that cannot be told is no reason to leave the container alone. */
        if (polled[3].revents && notify_take(foreground->notify, NULL) != 0)
            foreground->notify = NULL;
        step_copy(&foreground->input, &polled[1]);
        step_copy(&foreground->output, &polled[2]);
    }
}

/* There is nothing but signals to wait for. */
static int wait_for_signals(struct foreground *foreground, const sigset_t *all, struct error *err)
{
    while (!foreground->ended) {
        int number = sigwaitinfo(all, NULL);
        if (number < 0 && errno != EINTR)
            return error_errno(err, errno, "sigwaitinfo");
        if (number > 0)
            take_signal(foreground, number);
    }
    return 0;
}

static int wait_for_all(struct foreground *foreground, const sigset_t *all, struct error *err)
{
    _cleanup_close_ int signal_fd = signalfd(-1, all, SFD_CLOEXEC | SFD_NONBLOCK);

    if (signal_fd < 0)
        return error_errno(err, errno, "signalfd");
    foreground->signal_fd = signal_fd;
    if (foreground->master_fd >= 0) {
        foreground->input.from = STDIN_FILENO;
        fcntl(foreground->master_fd, F_SETFL, O_RDWR | O_NONBLOCK);
        pass_size_on(foreground);
        make_raw(foreground);
    }
    int r = loop(foreground, err);
    if (foreground->raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &foreground->saved);
    return r;
}

void foreground_block_signals(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

int foreground_wait(pid_t pid, int master_fd, struct notify *notify, int *ret_code,
                    bool *ret_unexecuted, struct error *err)
{
    struct foreground foreground = {.pid = pid, .master_fd = master_fd, .notify = notify};
    sigset_t all;

    foreground.input = copy_between(-1, master_fd, input_data);
    foreground.output = copy_between(master_fd, STDOUT_FILENO, output_data);
    foreground_block_signals();
    sigfillset(&all);
    /* It may have ended before its SIGCHLD was blocked. */
    take_end(&foreground);
    int r = master_fd < 0 && (!notify || notify->fd < 0) ? wait_for_signals(&foreground, &all, err)
                                                         : wait_for_all(&foreground, &all, err);
    if (r == 0)
        *ret_code = process_exit_code(foreground.status);
    if (ret_unexecuted)
        *ret_unexecuted = foreground.unexecuted;
    return r;
}
