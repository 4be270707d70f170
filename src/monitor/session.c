#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "monitor_internal.h"

enum {
    PIPE_SIZE = 1 << 20, /* the container's output: fewer and larger turns (measured: half the
                            CPU time of 64 KiB) */
    READ_ROUNDS = 8,     /* buffers from one stream before others get their turn */
    DRAIN_ROUNDS = 64,   /* times that, at a session's end */
    HUNG_RETRY_MS = 250,
};

void session_init(struct session *session, const char *id)
{
    *session = (struct session){.phase = SESSION_NEW, .console_fd = -1};
    strncpy(session->id, id, sizeof(session->id) - 1);
    session->input = (struct input){.watch = WATCH_INIT, .session = session};
    session->output[0] =
        (struct output){.watch = WATCH_INIT, .session = session, .stream = STREAM_STDOUT};
    session->output[1] =
        (struct output){.watch = WATCH_INIT, .session = session, .stream = STREAM_STDERR};
}

void session_renew(struct monitor *monitor, struct session *session)
{
    session_close_streams(monitor, session);
    session->phase = SESSION_NEW;
    session->pid = 0;
    session->request = 0;
    session->input.end_wanted = false;
    session->output[0].hung = session->output[1].hung = false;
}

static bool is_container(const struct monitor *monitor, const struct session *session)
{
    return session == &monitor->container;
}

char *session_file(const struct monitor *monitor, const struct session *session, const char *suffix)
{
    if (is_container(monitor, session))
        return xasprintf("%s/container.%s", monitor->options->bundle, suffix);
    return xasprintf("%s/exec-%s.%s", monitor->options->bundle, session->id, suffix);
}

/* Our end (fds[ours]) does not block; the sandbox's end is another open file and does. Its root
 * may give it to the program's user, who opens it by way of /dev/stdout: in a user namespace only
 * when the pipe belongs to it. */
static int open_pipe(const struct monitor *monitor, int ours, int *ret_ours, int *ret_theirs,
                     struct error *err)
{
    const struct monitor_options *options = monitor->options;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    if (options->root_uid || options->root_gid)
        (void)!fchown(fds[0], options->root_uid, options->root_gid);
    fcntl(fds[ours], F_SETFL, O_NONBLOCK | (ours ? O_WRONLY : O_RDONLY));
    *ret_ours = fds[ours];
    *ret_theirs = fds[!ours];
    return 0;
}

static int open_console(struct monitor *monitor, struct session *session, struct error *err)
{
    _cleanup_free_ char *path = session_file(monitor, session, "tty");

    unlink(path);
    session->console_fd = socket_listen_unix(path, SOCK_STREAM | SOCK_NONBLOCK, 0600, err);
    return session->console_fd < 0 ? session->console_fd : 0;
}

int session_open_streams(struct monitor *monitor, struct session *session,
                         struct session_stdio *ret, struct error *err)
{
    struct session_stdio stdio = {{-1, -1, -1}};
    int r = 0;

    if (session->tty)
        r = open_console(monitor, session, err);
    if (!session->tty && session->with_stdin)
        r = open_pipe(monitor, 1, &session->input.watch.fd, &stdio.fds[0], err);
    for (int i = 0; r == 0 && i < 2 && !session->tty && session->with_output; i++) {
        r = open_pipe(monitor, 0, &session->output[i].watch.fd, &stdio.fds[1 + i], err);
        if (r == 0 && is_container(monitor, session))
            fcntl(stdio.fds[1 + i], F_SETPIPE_SZ, PIPE_SIZE); /* may be over a limit: no matter */
    }
    if (r < 0) {
        session_stdio_close(&stdio);
        session_close_streams(monitor, session);
        return r;
    }
    *ret = stdio;
    return 0;
}

void session_stdio_close(struct session_stdio *stdio)
{
    for (size_t i = 0; i < ARRAY_SIZE(stdio->fds); i++)
        close_fd(steal_fd(&stdio->fds[i]));
}

/* The runtime has sent it before it ended: nothing to wait for. */
static int take_terminal(struct session *session, struct error *err)
{
    char name[256];
    int master = -1;
    size_t count = 1;
    _cleanup_close_ int fd = accept4(session->console_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return error_errno(err, errno, "the runtime did not bring the terminal");
    ssize_t n = socket_receive(fd, name, sizeof(name), &master, &count);
    if (n < 0 || count != 1 || !isatty(master)) {
        close_fd(master);
        return error_set(err, -EPROTO, "the runtime did not bring a terminal");
    }
    close_fd(steal_fd(&session->console_fd));
    fcntl(master, F_SETFL, O_NONBLOCK | O_RDWR);
    session->output[0].watch.fd = master;
    /* A descriptor of its own: epoll watches reading and writing apart. */
    session->input.watch.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    if (session->rows)
        session_resize(session, session->rows, session->columns);
    return 0;
}

static void input_close(struct monitor *monitor, struct input *input)
{
    watch_close(monitor->epoll_fd, &input->watch);
    free(steal_ptr(input->pending));
    clients_input_changed(monitor, input->session);
}

int session_begin(struct monitor *monitor, struct session *session, struct error *err)
{
    int r = session->tty ? take_terminal(session, err) : 0;

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(session->output); i++) {
        struct watch *watch = &session->output[i].watch;
        if (watch->fd < 0)
            continue;
        r = watch_add(monitor->epoll_fd, watch, WATCH_OUTPUT, watch->fd, EPOLLIN);
        if (r < 0)
            return error_errno(err, -r, "watch the output");
    }
    session->input.watch.type = WATCH_INPUT;
    session->phase = SESSION_RUNNING;
    if (session->input.end_wanted)
        input_close(monitor, &session->input);
    clients_input_changed(monitor, session);
    return 0;
}

bool session_streams_open(const struct session *session)
{
    return session->output[0].watch.fd >= 0 || session->output[1].watch.fd >= 0;
}

void session_close_streams(struct monitor *monitor, struct session *session)
{
    input_close(monitor, &session->input);
    watch_close(monitor->epoll_fd, &session->output[0].watch);
    watch_close(monitor->epoll_fd, &session->output[1].watch);
    if (session->console_fd >= 0) {
        close_fd(steal_fd(&session->console_fd));
    }
}

static void output_take(struct monitor *monitor, struct output *output, const char *data,
                        size_t length)
{
    if (output->session == &monitor->health.session)
        health_take_output(monitor, data, length);
    else if (!is_container(monitor, output->session))
        clients_send_exec(monitor, output->session, output->stream, data, length);
    else if (container_log_append(&monitor->log, output->stream, data, length) == 0)
        clients_log_grew(monitor);
    else
        clients_bypass_log(monitor, output->stream, data, length);
}

/* EIO: nobody holds the terminal. While the process lives somebody may open it again (a login
 * program after vhangup(2)). */
static void output_failed(struct monitor *monitor, struct output *output, int failure)
{
    if (failure == EIO && output->session->tty && output->session->phase == SESSION_RUNNING) {
        output->hung = true;
        watch_set(monitor->epoll_fd, &output->watch, 0);
        deadline_set(monitor, DEADLINE_SESSIONS, HUNG_RETRY_MS);
    } else {
        watch_close(monitor->epoll_fd, &output->watch);
    }
}

/* Whether nothing is to be read now. The container's output goes to the log, which may have to wait
 * for one that is attached; what is left after its end is written in any case. */
static bool output_blocked(struct monitor *monitor, struct session *session)
{
    if (!is_container(monitor, session))
        return clients_exec_blocked(monitor, session);
    monitor->log.held = clients_hold_log(monitor);
    monitor->log.watched = clients_watch_log(monitor);
    if (!monitor->log.held || !container_log_full(&monitor->log) ||
        session->phase != SESSION_RUNNING)
        return false;
    session_pause_output(monitor, session);
    return true;
}

/* Whether there may be more. */
static bool output_read(struct monitor *monitor, struct output *output)
{
    monitor_use_scratch(monitor);
    for (int round = 0; round < READ_ROUNDS; round++) {
        if (output->watch.fd < 0 || output_blocked(monitor, output->session))
            return false;
        ssize_t n = read(output->watch.fd, monitor->scratch->io, IO_BUFFER_SIZE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n <= 0) {
            output_failed(monitor, output, n < 0 ? errno : 0);
            return false;
        }
        output_take(monitor, output, monitor->scratch->io, (size_t)n);
    }
    return true;
}

static void check_drained(struct monitor *monitor, struct session *session)
{
    if (session->phase != SESSION_ENDED || session_streams_open(session) ||
        session == &monitor->health.session)
        return;
    if (is_container(monitor, session))
        container_drained(monitor, false);
    else
        exec_drained(monitor, session);
}

void output_ready(struct monitor *monitor, struct output *output)
{
    output_read(monitor, output);
    check_drained(monitor, output->session);
}

void session_drain(struct monitor *monitor, struct session *session)
{
    for (size_t i = 0; i < ARRAY_SIZE(session->output); i++) {
        for (int round = 0; round < DRAIN_ROUNDS; round++) {
            if (!output_read(monitor, &session->output[i]))
                break;
        }
    }
}

void session_pause_output(struct monitor *monitor, struct session *session)
{
    watch_set(monitor->epoll_fd, &session->output[0].watch, 0);
    watch_set(monitor->epoll_fd, &session->output[1].watch, 0);
}

void session_resume_output(struct monitor *monitor, struct session *session)
{
    for (size_t i = 0; i < ARRAY_SIZE(session->output); i++) {
        if (!session->output[i].hung)
            watch_set(monitor->epoll_fd, &session->output[i].watch, EPOLLIN);
    }
}

void session_retry_hung(struct monitor *monitor, struct session *session)
{
    struct output *output = &session->output[0];

    if (!output->hung)
        return;
    output->hung = false;
    watch_set(monitor->epoll_fd, &output->watch, EPOLLIN);
}

/* Writes what is pending; what cannot be taken now waits for EPOLLOUT. */
static void input_write(struct monitor *monitor, struct input *input)
{
    while (input->at < input->length) {
        ssize_t n = write(input->watch.fd, input->pending + input->at, input->length - input->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            watch_set(monitor->epoll_fd, &input->watch, EPOLLOUT);
            return;
        }
        if (n < 0) { /* EPIPE, EIO: nobody reads any more */
            input_close(monitor, input);
            return;
        }
        input->at += (size_t)n;
    }
    free(steal_ptr(input->pending));
    watch_set(monitor->epoll_fd, &input->watch, 0);
    if (input->end_wanted)
        input_close(monitor, input);
}

bool session_input_open(const struct session *session)
{
    return session->phase < SESSION_RUNNING ? session->with_stdin : session->input.watch.fd >= 0;
}

bool session_takes_input(const struct session *session)
{
    return session->phase == SESSION_RUNNING && session->input.watch.fd >= 0 &&
           !session->input.pending && !session->input.end_wanted;
}

void session_write_input(struct monitor *monitor, struct session *session, const char *data,
                         size_t length)
{
    struct input *input = &session->input;

    if (input->watch.fd < 0 || input->pending)
        return;
    input->pending = xmemdup(data, length);
    input->length = length;
    input->at = 0;
    input_write(monitor, input);
    if (input->pending)
        clients_input_changed(monitor, session);
}

void session_end_input(struct monitor *monitor, struct session *session)
{
    struct input *input = &session->input;

    if (session->tty)
        return;
    if (input->pending || session->phase < SESSION_RUNNING)
        input->end_wanted = true;
    else
        input_close(monitor, input);
}

void input_ready(struct monitor *monitor, struct input *input)
{
    input_write(monitor, input);
    if (!input->pending)
        clients_input_changed(monitor, input->session);
}

int session_resize(struct session *session, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};

    if (!session->tty)
        return -ENOTTY;
    session->rows = rows;
    session->columns = columns;
    if (session->output[0].watch.fd >= 0 &&
        ioctl(session->output[0].watch.fd, TIOCSWINSZ, &size) < 0)
        return -errno;
    return 0;
}
