#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "hooks.h"
#include "kernel.h"

enum {
    HOOK_OUTPUT_MAX = 512, /* bytes of a failed hook's output in the message */
    HOOK_TIMEOUT_MAX = INT_MAX / 1000,
};

char *const hook_kinds[] = {
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    NULL};

/* The hook's words, on one line. */
static void read_output(int output_fd, char *ret, size_t size)
{
    ssize_t n = pread(output_fd, ret, size - 1, 0);

    ret[n > 0 ? n : 0] = '\0';
    for (char *c = ret; *c; c++)
        *c = *c == '\n' ? ' ' : *c;
}

static int wait_for(struct process *process, const struct oci_hook *hook, int *ret_status,
                    struct error *err)
{
    struct pollfd poll_fd = {.fd = process->pidfd, .events = POLLIN};
    int timeout = -1, n;

    if (hook->has_timeout)
        timeout = hook->timeout > HOOK_TIMEOUT_MAX ? INT_MAX : (int)hook->timeout * 1000;
    do
        n = poll(&poll_fd, 1, timeout);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        kernel_pidfd_send_signal(process->pidfd, SIGKILL);
    int r = process_wait(process, ret_status, err);
    if (r == 0 && n == 0)
        return error_set(err, -ETIMEDOUT, "did not end within %lld s", (long long)hook->timeout);
    return r;
}

static int run_one(const struct oci_hook *hook, const char *state, struct error *err)
{
    char output[HOOK_OUTPUT_MAX], *plain[] = {hook->path, NULL};
    _cleanup_close_ int input_fd = memfd_create("hook-state", MFD_CLOEXEC);
    _cleanup_close_ int output_fd = memfd_create("hook-output", MFD_CLOEXEC);
    struct process process;
    int status;

    if (hook->path[0] != '/')
        return error_set(err, -EINVAL, "path: '%s' is not absolute", hook->path);
    if (hook->has_timeout && hook->timeout <= 0)
        return error_set(err, -EINVAL, "timeout: must be more than 0");
    if (input_fd < 0 || output_fd < 0)
        return error_errno(err, errno, "memfd_create");
    int r = file_write_all(input_fd, state, strlen(state));
    if (r < 0 || lseek(input_fd, 0, SEEK_SET) < 0)
        return error_errno(err, errno, "write the state");
    struct process_spec spec = {
        .path = hook->path,
        .argv = hook->args_count ? hook->args : plain,
        .environment = hook->env,
        .fds = (int[]){input_fd, output_fd, output_fd},
        .fds_count = 3,
    };
    r = process_spawn(&spec, &process, err);
    if (r == 0)
        r = wait_for(&process, hook, &status, err);
    if (r < 0)
        return r;
    if (process_exit_code(status) == 0)
        return 0;
    read_output(output_fd, output, sizeof(output));
    return error_set(err, -EIO, "%s: exit status %d, output: %s", hook->path,
                     process_exit_code(status), output);
}

int hooks_run(const char *kind, struct oci_hook *const *hooks, size_t count, const char *state,
              struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        int r = run_one(hooks[i], state, err);
        if (r < 0) {
            error_context(err, "hooks.%s[%zu]", kind, i);
            return r;
        }
    }
    return 0;
}

void hooks_run_all(const char *kind, struct oci_hook *const *hooks, size_t count, const char *state,
                   char ***warnings)
{
    for (size_t i = 0; i < count; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (run_one(hooks[i], state, &err) < 0)
            strv_take(warnings, xasprintf("hooks.%s[%zu]: %s", kind, i, error_message(&err)));
    }
}
