#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "annotations.h"
#include "hooks.h"
#include "kernel.h"

enum {
    HOOK_OUTPUT_MAX = 512, /* bytes of a failed hook's output in the message */
    HOOK_TIMEOUT_MAX = INT_MAX / 1000,
    PIPE_CAPACITY = 65536, /* pipe(7) */
};

char *const hook_kinds[] = {
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    NULL};

int hook_output_open(struct hook_output *output, const struct json_string_map *annotations,
                     struct error *err)
{
    static const char *const names[] = {ANNOTATION_HOOKS_STDOUT, ANNOTATION_HOOKS_STDERR};

    *output = (struct hook_output)HOOK_OUTPUT_INIT;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *path = annotation_value(annotations, names[i]);
        if (!path)
            continue;
        output->fds[i] = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
        if (output->fds[i] < 0) {
            hook_output_finish(output);
            return error_errno(err, errno, "annotations.%s: open %s", names[i], path);
        }
    }
    return 0;
}

void hook_output_finish(struct hook_output *output)
{
    for (size_t i = 0; i < ARRAY_SIZE(output->fds); i++)
        close_fd(steal_fd(&output->fds[i]));
}

/* What a hook wrote into the file, on one line. */
static void read_output(int output_fd, char *ret, size_t size)
{
    ssize_t n = pread(output_fd, ret, size - 1, 0);

    while (n > 0 && ret[n - 1] == '\n')
        n--;
    ret[n > 0 ? n : 0] = '\0';
    for (char *c = ret; *c; c++)
        *c = *c == '\n' ? ' ' : *c;
}

static int wait_for(struct process *process, const struct oci_hook *hook, int *ret_status,
                    struct error *err)
{
    struct pollfd poll_fd = {.fd = process->pidfd, .events = POLLIN};
    int timeout = -1, n = 1;

    if (hook->has_timeout)
        timeout = hook->timeout > HOOK_TIMEOUT_MAX ? INT_MAX : (int)hook->timeout * 1000;
    while (hook->has_timeout && (n = poll(&poll_fd, 1, timeout)) < 0 && errno == EINTR)
        ;
    if (n == 0) {
        kernel_pidfd_send_signal(process->pidfd, SIGKILL);
        /* It leads a session of its own, which ends with it. */
        kill(-process->pid, SIGKILL);
    }
    int r = process_wait(process, ret_status, err);
    if (r == 0 && n == 0)
        return error_set(err, -ETIMEDOUT, "hook ran past specified timeout of %lld.0s",
                         (long long)hook->timeout);
    return r;
}

/* A start hook runs with the container's filter, which may know pipes only. */
static int open_input(const char *state, struct error *err)
{
    size_t length = strlen(state);
    int fd = memfd_create("hook-state", MFD_CLOEXEC), fds[2];
    int r;

    if (fd >= 0) {
        r = file_write_all(fd, state, length);
        if (r == 0 && lseek(fd, 0, SEEK_SET) == 0)
            return fd;
        close(fd);
        return error_errno(err, r < 0 ? -r : errno, "write the state");
    }
    if (length > PIPE_CAPACITY)
        return error_errno(err, errno, "memfd_create");
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_errno(err, errno, "create a pipe");
    r = file_write_all(fds[1], state, length);
    close(fds[1]);
    if (r == 0)
        return fds[0];
    close(fds[0]);
    return error_errno(err, -r, "write the state");
}

static void describe_status(int status, char *ret, size_t size)
{
    if (WIFSIGNALED(status)) {
        snprintf(ret, size, "signal: %s", strsignal(WTERMSIG(status)));
        ret[strlen("signal: ")] = (char)tolower((unsigned char)ret[strlen("signal: ")]);
    } else {
        snprintf(ret, size, "exit status %d", WEXITSTATUS(status));
    }
}

/* *ret_status: as wait(2), when 0 is returned. */
static int run_hook(const struct oci_hook *hook, const struct hook_call *call,
                    const int output_fds[2], int *ret_status, struct error *err)
{
    char *plain[] = {hook->path, NULL};
    _cleanup_close_ int input_fd = open_input(call->state, err);
    struct process process;

    if (input_fd < 0)
        return input_fd;
    struct process_spec spec = {
        .path = hook->path,
        .argv = hook->args_count ? hook->args : plain,
        .environment = hook->env,
        .fds = (int[]){input_fd, output_fds[0], output_fds[1]},
        .fds_count = 3,
        .directory = call->directory,
        .new_session = hook->has_timeout,
    };
    int r = process_spawn(&spec, &process, err);
    return r < 0 ? r : wait_for(&process, hook, ret_status, err);
}

/* *ret_status: 0 when the hook did not get as far as a status. */
static int run_one(const struct oci_hook *hook, const struct hook_call *call, int *ret_status,
                   struct error *err)
{
    char text[64], words[2][HOOK_OUTPUT_MAX];
    _cleanup_close_ int out_fd = memfd_create("hook-output", MFD_CLOEXEC);
    _cleanup_close_ int error_fd = memfd_create("hook-error", MFD_CLOEXEC);
    const int fds[2] = {call->output->fds[0] >= 0 ? call->output->fds[0] : out_fd,
                        call->output->fds[1] >= 0 ? call->output->fds[1] : error_fd};
    int status = 0;

    *ret_status = 0;
    int r = run_hook(hook, call, fds, &status, err);
    if (r < 0 || status == 0)
        return r;
    read_output(out_fd, words[0], sizeof(words[0]));
    read_output(error_fd, words[1], sizeof(words[1]));
    describe_status(status, text, sizeof(text));
    *ret_status = status;
    return error_set(err, -EIO, "%s, stdout: %s, stderr: %s", text, words[0], words[1]);
}

int hooks_run(const struct hook_call *call, struct error *err)
{
    int status;

    for (size_t i = 0; i < call->count; i++) {
        int r = run_one(call->hooks[i], call, &status, err);
        if (r < 0) {
            error_context(err, "error running %s hook #%zu", call->kind, i);
            return r;
        }
    }
    return 0;
}

void hooks_run_all(const struct hook_call *call, char ***warnings)
{
    for (size_t i = 0; i < call->count; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        int status;
        if (run_one(call->hooks[i], call, &status, &err) >= 0)
            continue;
        if (status)
            strv_take(warnings,
                      xasprintf("hooks.%s[%zu]: %s hook failed with exit code %d: %s", call->kind,
                                i, call->kind, process_exit_code(status), error_message(&err)));
        else
            strv_take(warnings, xasprintf("hooks.%s[%zu]: error running %s hook #%zu: %s",
                                          call->kind, i, call->kind, i, error_message(&err)));
    }
}
