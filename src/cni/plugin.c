/*
 * One call of a plug-in: a program of its own session, bounded in time and in what it says.
 *
 * The caller is a child subreaper: what a plug-in that is killed leaves behind comes to it and is
 * killed, too. What one that ends well leaves running is its own business (daemons of DHCP).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "internal.h"

enum {
    KILL_ROUNDS = 500, /* until descendants that do not die are given up */
    KILL_PAUSE_US = 2000,
};

struct reading {
    int fd; /* -1: ended */
    struct buffer *to;
    size_t limit;
};

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int memory_file(const char *text, int *ret, struct error *err)
{
    _cleanup_close_ int fd = memfd_create("configuration", MFD_CLOEXEC);
    int r = fd < 0 ? -errno : file_write_all(fd, text, strlen(text));

    if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return error_errno(err, r < 0 ? -r : errno, "make a file in memory");
    *ret = steal_fd(&fd);
    return 0;
}

/* False: it has said too much. */
static bool read_some(struct reading *reading)
{
    char text[16384];
    ssize_t length = read(reading->fd, text, sizeof(text));

    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (length <= 0) {
        close_fd(steal_fd(&reading->fd));
        return true;
    }
    size_t room = reading->limit - reading->to->length;
    buffer_append(reading->to, text, (size_t)length < room ? (size_t)length : room);
    return (size_t)length <= room;
}

/* --- killing ---------------------------------------------------------------------------------- */

/* Whether there are some, dead ones too. */
static bool kill_children(void)
{
    char text[4096];
    _cleanup_close_ int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    text[length > 0 ? length : 0] = '\0';
    for (char *at = text; at[strspn(at, " \n")];) {
        long pid = strtol(at, &at, 10);

        if (pid <= 1)
            break;
        kill((pid_t)pid, SIGKILL);
    }
    return length > 0;
}

/* The children of a process that dies become ours, and are seen in the next round. */
static void kill_all(struct process *process)
{
    kill(-process->pid, SIGKILL);
    kill(process->pid, SIGKILL);
    process_wait(process, &(int){0}, NULL);
    for (int i = 0; i < KILL_ROUNDS && kill_children(); i++) {
        usleep(KILL_PAUSE_US);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

/* --- running ---------------------------------------------------------------------------------- */

static int start(const struct plugin_call *call, int input, int output, int complaint,
                 struct process *ret, struct error *err)
{
    const int fds[] = {input, output, complaint};
    const char *name = strrchr(call->path, '/');
    char *const argv[] = {(char *)(name ? name + 1 : call->path), NULL};
    const struct process_spec spec = {
        .path = call->path,
        .argv = argv,
        .environment = call->environment,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
        .new_session = true,
    };

    return process_spawn(&spec, ret, err);
}

/* Until it has ended: what a descendant holds open longer is not waited for. */
static int listen_to(const struct plugin_call *call, const struct process *process,
                     struct reading readings[static 2], struct error *err)
{
    const int64_t deadline = now_ms() + (int64_t)call->limit_seconds * 1000;

    for (;;) {
        struct pollfd polled[] = {
            {process->pidfd, POLLIN, 0}, {readings[0].fd, POLLIN, 0}, {readings[1].fd, POLLIN, 0}};
        const int64_t left = deadline - now_ms();

        if (left <= 0)
            return error_set(err, -ETIMEDOUT, "it did not end within %u s and was killed",
                             call->limit_seconds);
        if (poll(polled, ARRAY_SIZE(polled), (int)left) < 0 && errno != EINTR)
            return error_errno(err, errno, "wait for it");
        if (polled[1].revents && !read_some(&readings[0]))
            return error_set(err, -EFBIG, "it says more than %d bytes", OUTPUT_BYTES_MAX);
        if (polled[2].revents)
            read_some(&readings[1]);
        if (polled[0].revents && !polled[1].revents && !polled[2].revents)
            return 0;
        if (polled[0].revents && readings[0].fd < 0 && readings[1].fd < 0)
            return 0;
    }
}

static int exit_error(int status, struct buffer *complaint, struct error *err)
{
    _cleanup_free_ char *text = xstrdup(buffer_text(complaint));

    text[strcspn(text, "\n")] = '\0';
    text_make_harmless(text, "");
    if (WIFSIGNALED(status))
        return error_set(err, -EREMOTEIO, "it ended by signal %d%s%s", WTERMSIG(status),
                         text[0] ? ": " : "", text);
    return error_set(err, -EREMOTEIO, "it ended with status %d%s%s", WEXITSTATUS(status),
                     text[0] ? ": " : "", text);
}

static int run(const struct plugin_call *call, int input, struct buffer *output, struct error *err)
{
    _cleanup_buffer_ struct buffer complaint = BUFFER_INIT;
    int said[2], complained[2];
    struct process process;
    int status = 0;

    if (pipe2(said, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    if (pipe2(complained, O_CLOEXEC) < 0) {
        close_fd(said[0]), close_fd(said[1]);
        return error_errno(err, errno, "make a pipe");
    }
    int r = start(call, input, said[1], complained[1], &process, err);
    close_fd(said[1]), close_fd(complained[1]);
    fcntl(said[0], F_SETFL, O_NONBLOCK);
    fcntl(complained[0], F_SETFL, O_NONBLOCK);
    struct reading readings[2] = {{said[0], output, OUTPUT_BYTES_MAX},
                                  {complained[0], &complaint, COMPLAINT_BYTES_MAX}};
    if (r == 0) {
        r = listen_to(call, &process, readings, err);
        if (r < 0)
            kill_all(&process);
        else
            r = process_wait(&process, &status, err);
        if (r == 0 && status != 0)
            r = exit_error(status, &complaint, err);
    }
    close_fd(readings[0].fd), close_fd(readings[1].fd);
    return r;
}

int plugin_run(const struct plugin_call *call, struct buffer *output, struct error *err)
{
    _cleanup_close_ int input = -1;
    int r = memory_file(call->input, &input, err);

    return r < 0 ? r : run(call, input, output, err);
}
