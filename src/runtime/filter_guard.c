/*
 * libseccomp 2.5.4 never returns from some sets of rules: one system call, several rules,
 * conditions on different arguments, different actions (seccomp_rule_add() then goes round in its
 * tree). A profile with conditions is compiled by a process that the kernel ends when it has had
 * its time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "filter_guard.h"
#include "kernel.h"

enum {
    COMPILE_SECONDS_MAX = 5, /* of processor time; docker's profile takes 0.02 */
    ANSWER_MAX = 60000,      /* bytes: within a pipe, and above the longest filter */
};

/* What the process writes: followed by the filter, or by the message. */
struct answer {
    int code;
    char bytes[];
};

static bool has_conditions(const struct oci_seccomp *config)
{
    bool any = false;

    for (size_t i = 0; config && i < config->syscalls_count; i++)
        any |= config->syscalls[i]->args_count > 0;
    return any;
}

static void set_limits(void)
{
    struct rlimit limit = {COMPILE_SECONDS_MAX, COMPILE_SECONDS_MAX};

    if (getrlimit(RLIMIT_CPU, &limit) == 0 && limit.rlim_max > COMPILE_SECONDS_MAX)
        limit.rlim_max = COMPILE_SECONDS_MAX;
    limit.rlim_cur = limit.rlim_max; /* at the hard one it is SIGKILL, which nobody has blocked */
    setrlimit(RLIMIT_CPU, &limit);
}

static _Noreturn void compile_and_tell(const struct oci_seccomp *config, int fd)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct filter *filter = NULL;
    size_t size = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* who dies before this: nobody reads, and SIGPIPE ends us */
    set_limits();
    const struct answer answer = {filter_compile(config, &filter, &size, &err)};
    buffer_append(&text, &answer, sizeof(answer));
    if (answer.code < 0)
        buffer_append_text(&text, error_message(&err));
    else
        buffer_append(&text, filter, size);
    (void)file_write_all(fd, text.data, text.length);
    _exit(0);
}

/* It has ended without a word. */
static int explain_end(int status, struct error *err)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        return error_set(err, -EIO, "linux.seccomp: the process that compiles the filter ended %s",
                         WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "without a result");
    error_set(err, -ETIME,
              "linux.seccomp: libseccomp does not come to an end with these conditions");
    error_hint(err,
               "give a system call one rule with conditions, or all its rules the same action");
    return -ETIME;
}

static int take_answer(const char *data, size_t length, struct filter **ret, size_t *ret_size,
                       struct error *err)
{
    const struct answer *answer = (const struct answer *)data;

    if (answer->code < 0)
        return error_set(err, answer->code, "%s", answer->bytes);
    *ret_size = length - sizeof(*answer);
    *ret = xmemdup(answer->bytes, *ret_size);
    return 0;
}

int filter_compile_guarded(const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
                           struct error *err)
{
    _cleanup_free_ char *data = NULL;
    size_t length = 0;
    int fds[2], status = 0;

    if (!has_conditions(config))
        return filter_compile(config, ret, ret_size, err);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_errno(err, errno, "create a pipe");
    _cleanup_close_ int read_fd = fds[0];
    pid_t pid = kernel_clone(0, -1, NULL);
    if (pid == 0) {
        close(read_fd);
        compile_and_tell(config, fds[1]);
    }
    close(fds[1]);
    if (pid < 0)
        return error_errno(err, -pid, "start a process");
    int r = file_read_fd(read_fd, ANSWER_MAX, &data, &length, err);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (r < 0)
        return r;
    return length < sizeof(struct answer) ? explain_end(status, err)
                                          : take_answer(data, length, ret, ret_size, err);
}
