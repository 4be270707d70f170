/*
 *     ensure             RUN/pasta.lock is free: a keeper is made, which holds it
 *     keep               attach; until pasta or the holder ends; a pause; again
 *
 * The keeper stays outside, since from inside there is no way to other machines to lead to. A pasta
 * outlives a keeper that was killed: the next one finds it by its number and its words.
 */
#include "rootless_pasta.h"
#include "rootless.h"
#include "rootless_names.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/log.h>
#include <base/process.h>
#include <base/text.h>

enum {
    COMMAND_MAX = 16 * 1024,
    READY_MS = 5000,
    READY_STEP_MS = 10,
    PAUSE_MS = 1000, /* doubled by each attempt that fails */
    PAUSE_MAX_MS = 60 * 1000,
};

/* Of the keeper. */
enum { LOCK_FD = 3, HOLDER_FD, REPORT_FD, FDS };

static char *pid_file(const struct instance *instance)
{
    return xasprintf("%s/pasta.pid", instance->run);
}

static pid_t read_pid(const struct instance *instance)
{
    _cleanup_free_ char *path = pid_file(instance);

    return rootless_read_pid(path);
}

/* It holds no lock: it is known by its last word, the holder, and by the file among the others. */
static bool is_ours(const struct instance *instance, pid_t pid, pid_t holder)
{
    _cleanup_free_ char *command = xasprintf("/proc/%d/cmdline", pid);
    _cleanup_free_ char *target = xasprintf("%d", holder);
    _cleanup_free_ char *file = pid_file(instance);
    _cleanup_free_ char *words = NULL;
    const char *last = "";
    size_t length = 0;
    bool found = false;

    if (file_read_at(AT_FDCWD, command, COMMAND_MAX, &words, &length, NULL) < 0)
        return false;
    for (const char *word = words; word < words + length; word += strlen(word) + 1) {
        found = found || text_equal(word, file);
        last = word;
    }
    return found && text_equal(last, target);
}

/* Of one that is attached: a pidfd, owned. -ESRCH: there is none. */
static int find_pasta(const struct instance *instance, pid_t holder)
{
    const pid_t pid = read_pid(instance);
    _cleanup_close_ int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

    return fd >= 0 && is_ours(instance, pid, holder) ? steal_fd(&fd) : -ESRCH;
}

/* --- attaching -------------------------------------------------------------------------------- */

/* It has said its number when it is attached; one that cannot ends before. */
static int wait_until_ready(const struct instance *instance, const struct process *pasta)
{
    struct pollfd ended = {.fd = pasta->pidfd, .events = POLLIN};

    for (int waited = 0; waited < READY_MS; waited += READY_STEP_MS) {
        if (read_pid(instance) == pasta->pid)
            return 0;
        if (poll(&ended, 1, READY_STEP_MS) > 0)
            return -ECHILD;
    }
    return -ETIMEDOUT;
}

/* No port of either side is the other's. It lives as long as the namespaces. Returns its pidfd,
 * owned. */
static int attach(const struct instance *instance, pid_t holder)
{
    _cleanup_free_ char *file = pid_file(instance);
    _cleanup_free_ char *target = xasprintf("%d", holder);
    char *const argv[] = {(char *)"pasta",
                          (char *)"--foreground",
                          (char *)"--stderr",
                          (char *)"--quiet",
                          (char *)"--config-net",
                          (char *)"--no-map-gw",
                          (char *)"--dns-forward",
                          (char *)ROOTLESS_NAME_SERVER,
                          (char *)"--pid",
                          file,
                          (char *)"-t",
                          (char *)"none",
                          (char *)"-u",
                          (char *)"none",
                          (char *)"-T",
                          (char *)"none",
                          (char *)"-U",
                          (char *)"none",
                          target,
                          NULL};
    const int fds[] = {-1, -1, STDERR_FILENO};
    const struct process_spec spec = {.path = "pasta",
                                      .argv = argv,
                                      .fds = fds,
                                      .fds_count = ARRAY_SIZE(fds),
                                      .new_session = true};
    struct process pasta;

    unlink(file);
    int r = process_spawn(&spec, &pasta, NULL);
    if (r < 0)
        return r;
    r = wait_until_ready(instance, &pasta);
    if (r == 0)
        return pasta.pidfd;
    kill(pasta.pid, SIGKILL);
    close(pasta.pidfd);
    return r;
}

/* --- the keeper ------------------------------------------------------------------------------- */

/* Who waits for the first attempt; what pasta says later has no reader. */
static void report(int error)
{
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (write(REPORT_FD, &error, sizeof(error)) < 0)
        _exit(1);
    shutdown(REPORT_FD, SHUT_RDWR);
    if (nothing >= 0)
        dup2(nothing, STDERR_FILENO);
    close(nothing);
}

/* false: the holder has ended. pasta -1: only the time counts. */
static bool wait_for(int pasta, int timeout_ms)
{
    struct pollfd ends[] = {{.fd = HOLDER_FD, .events = POLLIN}, {.fd = pasta, .events = POLLIN}};

    while (poll(ends, ARRAY_SIZE(ends), timeout_ms) < 0 && errno == EINTR)
        ;
    return ends[0].revents == 0;
}

static void keep(const struct instance *instance, pid_t holder)
{
    int pause_ms = PAUSE_MS;

    for (bool first = true;; first = false) {
        int pasta = find_pasta(instance, holder);

        if (pasta < 0)
            pasta = attach(instance, holder);
        if (first)
            report(pasta < 0 ? pasta : 0);
        const int64_t since = clock_milliseconds();
        if (pasta >= 0 && !wait_for(pasta, -1))
            return;
        close_fd(pasta);
        if (clock_milliseconds() - since > PAUSE_MAX_MS)
            pause_ms = PAUSE_MS;
        if (!wait_for(-1, pause_ms))
            return;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        pause_ms = pause_ms < PAUSE_MAX_MS / 2 ? pause_ms * 2 : PAUSE_MAX_MS;
    }
}

/* Never returns. It outlives who made it: nothing of its stays open, but for the first attempt
 * standard error. */
static void be_keeper(const struct instance *instance, pid_t holder, int lock, int holder_fd,
                      int report_fd)
{
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int wanted[] = {[LOCK_FD] = lock, [HOLDER_FD] = holder_fd, [REPORT_FD] = report_fd};

    prctl(PR_SET_NAME, "cloche-pasta");
    setsid();
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    int moved[FDS];
    for (int i = LOCK_FD; i < FDS; i++) /* out of the way of the numbers that they get */
        moved[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, FDS);
    for (int i = LOCK_FD; i < FDS; i++) {
        if (dup2(moved[i], i) < 0)
            _exit(1);
    }
    syscall(SYS_close_range, FDS, ~0U, 0);
    if (chdir("/") < 0)
        _exit(1);
    keep(instance, holder);
    _exit(0);
}

/* --- from the launcher ------------------------------------------------------------------------ */

static void tell(int r)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (r == 0)
        return;
    error_set(&err, r, "%s",
              r == -ECHILD      ? "it ended; is there a way to other machines?"
              : r == -ETIMEDOUT ? "it is not ready in time"
              : r == -ENOENT    ? "it is not installed"
                                : strerror(-r));
    log_failure(LOG_WARNING, &err,
                "containers reach no other machines: pasta (package passt) is not attached, which "
                "is tried again");
}

static int make_keeper(const struct instance *instance, pid_t holder, int lock, struct error *err)
{
    _cleanup_close_ int holder_fd = (int)syscall(SYS_pidfd_open, holder, 0);
    int talk[2], r = 0;

    if (holder_fd < 0)
        return error_errno(err, errno, "watch process %d", holder);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) < 0)
        return error_errno(err, errno, "make a socket");
    const pid_t pid = fork();
    if (pid == 0)
        be_keeper(instance, holder, lock, holder_fd, talk[1]);
    close(talk[1]);
    _cleanup_close_ int own = talk[0];
    if (pid < 0)
        return error_errno(err, errno, "fork");
    if (read(own, &r, sizeof(r)) != sizeof(r))
        return error_set(err, -EIO, "the process that attaches pasta died");
    tell(r);
    return 0;
}

int rootless_pasta_ensure(const struct instance *instance, pid_t holder, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/pasta.lock", instance->run);
    _cleanup_close_ int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    _cleanup_close_ int pasta = -1;

    if (lock < 0)
        return error_errno(err, errno, "open %s", path);
    if (flock(lock, LOCK_EX | LOCK_NB) == 0)
        return make_keeper(instance, holder, lock, err);
    pasta = find_pasta(instance, holder);
    tell(pasta < 0 ? -ECHILD : 0);
    return 0;
}

void rootless_pasta_end(const struct instance *instance, pid_t holder)
{
    _cleanup_close_ int pasta = find_pasta(instance, holder);

    if (pasta >= 0)
        syscall(SYS_pidfd_send_signal, pasta, SIGTERM, NULL, 0);
}
