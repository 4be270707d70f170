#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>

#include "init.h"
#include "kernel.h"
#include "library_worker.h"

enum { REPORT_MAX = 1 << 20 };

/* At the start of the report's file, followed by texts, each with its NUL: message, hint (maybe
 * empty), warnings. A file and not a pipe: the container's process, a copy of the worker, would
 * keep a pipe open. */
struct report {
    int code;
    int exit_code;
    char texts[];
};

/* In the fork: where the report goes. */
static int report_fd = -1;

bool library_worker_is_report(int fd)
{
    return fd == report_fd;
}

int library_worker_keep_off(int end, struct error *err)
{
    if (report_fd < 0 || report_fd >= end)
        return 0;
    int fd = fcntl(report_fd, F_DUPFD_CLOEXEC, end);
    if (fd < 0)
        return error_errno(err, errno, "keep descriptor %d free", report_fd);
    close(report_fd);
    report_fd = fd;
    return 0;
}

static void append_text(struct buffer *out, const char *text)
{
    buffer_append(out, text ? text : "", text ? strlen(text) + 1 : 1);
}

static int set_stdio(const int *stdio, struct error *err)
{
    int copies[3];

    if (!stdio)
        return 0;
    for (int i = 0; i < 3; i++) {
        copies[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
        if (copies[i] < 0)
            return error_errno(err, errno, "stdio[%d]: descriptor %d", i, stdio[i]);
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(copies[i], i) < 0)
            return error_errno(err, errno, "stdio[%d]", i);
        close(copies[i]);
    }
    return 0;
}

static _Noreturn void worker_main(library_work work, const char *root, const void *options,
                                  const int *stdio)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct report report = {0};
    char **warnings = NULL;

    init_reset_signals();
    int r = set_stdio(stdio, &err);
    report.code = r < 0 ? r : work(root, options, &warnings, &report.exit_code, &err);
    buffer_append(&text, &report, sizeof(report));
    append_text(&text, error_message(&err));
    append_text(&text, err.hint);
    for (char **item = warnings; item && *item; item++)
        append_text(&text, *item);
    (void)file_write_all(report_fd, text.data, text.length);
    _exit(0);
}

/* The next of the texts, NULL behind the last one. */
static const char *take_text(const char **rest, const char *end)
{
    const char *text = *rest, *nul = text < end ? memchr(text, '\0', (size_t)(end - text)) : NULL;

    *rest = nul ? nul + 1 : end;
    return nul ? text : NULL;
}

static int read_report(int fd, char ***warnings, int *ret_exit_code, struct error *err)
{
    _cleanup_free_ char *data = NULL;
    size_t length;

    if (lseek(fd, 0, SEEK_SET) < 0)
        return error_errno(err, errno, "read the worker's report");
    int r = file_read_fd(fd, REPORT_MAX, &data, &length, err);
    if (r < 0)
        return r;
    const struct report *report = (const struct report *)data;
    const char *end = data + length;
    const char *rest = length < sizeof(*report) ? end : report->texts;
    const char *message = take_text(&rest, end), *hint = take_text(&rest, end);
    if (!message || !hint)
        return error_set(err, -EPIPE, "the process that worked on the container was killed");
    for (const char *text; (text = take_text(&rest, end));)
        strv_append(warnings, text);
    *ret_exit_code = report->exit_code;
    if (report->code < 0) {
        error_set(err, report->code, "%s", message);
        if (*hint)
            error_hint(err, "%s", hint);
    }
    return report->code;
}

/* Not by SIGCHLD or waitpid alone: those belong to the caller, whose own waiting may be faster. */
static void wait_for(pid_t pid)
{
    _cleanup_close_ int pidfd = kernel_pidfd_open(pid);

    while (pidfd >= 0) {
        struct pollfd polled = {.fd = pidfd, .events = POLLIN};
        if (poll(&polled, 1, -1) >= 0 || errno != EINTR)
            break;
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int library_worker_run(library_work work, const char *root, const void *options, const int *stdio,
                       char ***warnings, int *ret_exit_code, struct error *err)
{
    _cleanup_close_ int fd = memfd_create("cloche-runtime-report", MFD_CLOEXEC);
    sigset_t all, before;

    if (fd < 0)
        return error_errno(err, errno, "create a file in memory");
    /* A handler of the caller's must not run in the copy; there signals are reset. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        report_fd = fd;
        worker_main(work, root, options, stdio);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return error_errno(err, errno, "fork");
    wait_for(pid);
    return read_report(fd, warnings, ret_exit_code, err);
}
