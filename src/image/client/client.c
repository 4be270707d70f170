/* Starting cloche-image and reading its messages. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>
#include <image/descriptors.h>
#include <image/worker.h>

enum { READ_SIZE = 64 * 1024 };

struct image_worker {
    struct process process; /* pidfd -1: reaped */
    int control_fd;
    struct buffer input;
};

static int spawn(const struct image_worker_spec *spec, int control_fd, struct process *process,
                 struct error *err)
{
    const struct image_worker_request *request = spec->request;
    bool writes = request->save || request->pack;
    const int fds[IMAGE_FD_COUNT] = {
        [IMAGE_FD_ARCHIVE_IN] = writes ? -1 : spec->archive_fd,
        [IMAGE_FD_ARCHIVE_OUT] = writes ? spec->archive_fd : -1,
        [IMAGE_FD_LOG] = spec->log_fd,
        [IMAGE_FD_CONTROL] = control_fd,
        [IMAGE_FD_STAGING] = spec->staging_fd,
        [IMAGE_FD_SOURCE] = request->copy           ? spec->source_fd
                            : spec->content_fd >= 0 ? spec->content_fd
                                                    : spec->upper_fd,
        [IMAGE_FD_TREE] = spec->tree_fd,
        [IMAGE_FD_TARGET] = spec->target_fd,
        [IMAGE_FD_UPPER] = request->copy ? spec->upper_fd : -1,
        [IMAGE_FD_USERS] = spec->users_fd,
    };
    char *const argv[] = {"cloche-image", NULL};
    char *const environment[] = {NULL};
    const struct process_spec process_spec = {
        .path = spec->program,
        .argv = argv,
        .environment = environment,
        .fds = fds,
        .fds_count = IMAGE_FD_COUNT,
        .directory = "/",
        .new_session = true,
    };

    return process_spawn(&process_spec, process, err);
}

/* The worker reads at once, so that this does not wait for long. */
static int send_request(int fd, const struct image_worker_request *request, struct error *err)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct image_worker_request versioned = *request;

    versioned.version = IMAGE_WORKER_PROTOCOL;
    image_worker_request_write(&versioned, &line);
    buffer_append_char(&line, '\n');
    for (size_t sent = 0; sent < line.length;) {
        ssize_t n = send(fd, line.data + sent, line.length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "send the image worker its request");
        sent += (size_t)n;
    }
    return 0;
}

int image_worker_start(const struct image_worker_spec *spec, struct image_worker **ret,
                       struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a socket pair for the image worker");
    _cleanup_close_ int theirs = pair[1];
    _cleanup_image_worker_ struct image_worker *worker = xnew(struct image_worker);
    worker->control_fd = pair[0];
    worker->process.pidfd = -1;
    int r = spawn(spec, theirs, &worker->process, err);
    if (r < 0) {
        worker->process.pidfd = -1;
        return r;
    }
    r = send_request(worker->control_fd, spec->request, err);
    if (r == 0 && fcntl(worker->control_fd, F_SETFL, O_NONBLOCK) < 0)
        r = error_errno(err, errno, "set the worker's socket to non-blocking");
    if (r < 0)
        return r;
    *ret = steal_ptr(worker);
    return 0;
}

int image_worker_fd(const struct image_worker *worker)
{
    return worker->control_fd;
}

pid_t image_worker_pid(const struct image_worker *worker)
{
    return worker->process.pid;
}

/* The worker closed its socket without a result. It is ending: waiting does not take long. */
static int died(struct image_worker *worker, struct error *err)
{
    int status = 0;
    int r = process_wait(&worker->process, &status, err);

    worker->process.pidfd = -1;
    if (r < 0)
        return r;
    if (WIFSIGNALED(status))
        error_set(err, -EPIPE, "the image worker was ended by signal %d (%s)", WTERMSIG(status),
                  strsignal(WTERMSIG(status)));
    else
        error_set(err, -EPIPE, "the image worker ended without a result (exit code %d)",
                  WEXITSTATUS(status));
    return -EPIPE;
}

static int failed(const struct image_worker_failure *failure, struct error *err)
{
    int code = failure->code < 0 ? failure->code : -EIO;

    /* Much of it is an archive's or a server's words, and who reads them has a terminal. */
    _cleanup_free_ char *message = text_make_harmless(xstrdup(failure->message), "");
    error_set(err, code, "%s", message);
    if (failure->hint)
        error_hint(err, "%s", failure->hint);
    return code;
}

/* A whole line is in the buffer: returns its event. */
static int take_line(struct image_worker *worker, size_t length,
                     struct image_worker_message **ret_message, struct error *err)
{
    _cleanup_image_worker_message_ struct image_worker_message *message = NULL;
    int r = image_worker_message_parse(worker->input.data, length, "image worker", &message, err);

    buffer_consume(&worker->input, length + 1);
    if (r < 0)
        return r;
    if (message->failure)
        return failed(message->failure, err);
    if (!message->result && !message->progress)
        return error_set(err, -EPROTO, "the image worker sent an empty message");
    r = message->result ? IMAGE_WORKER_DONE : IMAGE_WORKER_PROGRESS;
    *ret_message = steal_ptr(message);
    return r;
}

int image_worker_receive(struct image_worker *worker, struct image_worker_message **ret_message,
                         struct error *err)
{
    for (;;) {
        char *newline =
            worker->input.length ? memchr(worker->input.data, '\n', worker->input.length) : NULL;
        if (newline)
            return take_line(worker, (size_t)(newline - worker->input.data), ret_message, err);
        if (worker->input.length > IMAGE_WORKER_LINE_MAX)
            return error_set(err, -EPROTO, "the image worker sent a message of more than %d bytes",
                             IMAGE_WORKER_LINE_MAX);
        buffer_reserve(&worker->input, READ_SIZE);
        ssize_t n =
            recv(worker->control_fd, worker->input.data + worker->input.length, READ_SIZE - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return IMAGE_WORKER_AGAIN;
        if (n < 0 && errno != ECONNRESET)
            return error_errno(err, errno, "read from the image worker");
        if (n <= 0)
            return died(worker, err);
        worker->input.length += (size_t)n;
    }
}

bool image_worker_release(struct image_worker *worker, struct process *ret)
{
    bool unreaped = worker->process.pidfd >= 0;

    if (unreaped) {
        syscall(SYS_pidfd_send_signal, worker->process.pidfd, SIGKILL, NULL, 0);
        *ret = worker->process;
        worker->process.pidfd = -1;
    }
    image_worker_free(worker);
    return unreaped;
}

void image_worker_free(struct image_worker *worker)
{
    if (!worker)
        return;
    close_fd(worker->control_fd);
    if (worker->process.pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, worker->process.pidfd, SIGKILL, NULL, 0);
        process_wait(&worker->process, NULL, NULL);
    }
    buffer_finish(&worker->input);
    free(worker);
}

/* Until a message, an error, or a sign on cancel_fd. */
static int wait_event(struct image_worker *worker, int cancel_fd, struct error *err)
{
    struct pollfd fds[2] = {{worker->control_fd, POLLIN, 0}, {cancel_fd, POLLIN | POLLRDHUP, 0}};

    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return error_errno(err, errno, "wait for the image worker");
    if (fds[1].revents)
        return error_set(err, -ECANCELED, "cancelled");
    return 0;
}

int image_worker_wait(struct image_worker *worker, image_worker_progress_handler progress,
                      void *context, int cancel_fd, struct image_worker_result **ret,
                      struct error *err)
{
    int r = 0;

    while (r >= 0) {
        _cleanup_image_worker_message_ struct image_worker_message *message = NULL;
        r = image_worker_receive(worker, &message, err);
        if (r == IMAGE_WORKER_DONE) {
            *ret = steal_ptr(message->result);
            return 0;
        }
        if (r == IMAGE_WORKER_PROGRESS && progress)
            progress(message->progress, context);
        if (r == IMAGE_WORKER_AGAIN)
            r = wait_event(worker, cancel_fd, err);
    }
    return r;
}

int image_worker_run(const struct image_worker_spec *spec, image_worker_progress_handler progress,
                     void *context, int cancel_fd, struct image_worker_result **ret,
                     struct error *err)
{
    _cleanup_image_worker_ struct image_worker *worker = NULL;
    int r = image_worker_start(spec, &worker, err);

    return r < 0 ? r : image_worker_wait(worker, progress, context, cancel_fd, ret, err);
}
