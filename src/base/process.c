#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/process.h>

/* Enough for the child's few frames between clone and exec; execvpe's path buffer is the largest.
 */
enum { CHILD_STACK_SIZE = 64 * 1024 };

enum { PROC_STAT_MAX = 4096 };

enum { CHILD_FDS_MAX = 64, OPEN_FILES_MAX = 1 << 20 };

/* The child leaves its stack by exec, so AddressSanitizer never learns that its variables are gone,
 * and takes the next mapping at that address for poisoned. */
#define CHILD_CODE __attribute__((no_sanitize("address")))

struct child {
    const struct process_spec *spec;
    sigset_t old_mask;
    int parent_pid;
    int failure; /* errno; written by the child, which shares our memory until it executes */
    const char *step;
};

CHILD_CODE static void reset_signals(const sigset_t *mask)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    for (int signal = 1; signal < NSIG; signal++) {
        struct sigaction old;
        if (signal != SIGKILL && signal != SIGSTOP && sigaction(signal, NULL, &old) == 0 &&
            old.sa_handler != SIG_DFL)
            sigaction(signal, &action, NULL);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
}

/* close_range is Linux 5.9, and a seccomp filter may forbid it. */
CHILD_CODE static int close_others(int first)
{
    struct rlimit limit = {.rlim_cur = OPEN_FILES_MAX};

    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0) == 0)
        return 0;
    if (errno != ENOSYS && errno != EPERM)
        return -errno;
    getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = first; (rlim_t)fd < limit.rlim_cur && fd < OPEN_FILES_MAX; fd++)
        close(fd);
    return 0;
}

/* Puts fds[i] at i. All are first moved above the wanted range, so that none is overwritten. */
CHILD_CODE static int place_fds(const int *fds, int count)
{
    int high[CHILD_FDS_MAX];

    for (int i = 0; i < count; i++) {
        int fd = fds[i] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fds[i];
        high[i] = fcntl(fd, F_DUPFD_CLOEXEC, count);
        if (high[i] < 0)
            return -errno;
    }
    for (int i = 0; i < count; i++) {
        if (dup2(high[i], i) < 0)
            return -errno;
    }
    return close_others(count);
}

/* Runs on a stack of its own but in the parent's memory (CLONE_VM | CLONE_VFORK): no allocation, no
 * stdio. */
CHILD_CODE static int child_main(void *data)
{
    struct child *child = data;
    const struct process_spec *spec = child->spec;
    sigset_t none;
    int r;

    child->step = "prepare the child";
    if (spec->new_session && setsid() < 0)
        goto fail;
    if (spec->parent_death_signal) {
        if (prctl(PR_SET_PDEATHSIG, spec->parent_death_signal) < 0)
            goto fail;
        if (getppid() != child->parent_pid)
            _exit(127);
    }
    child->step = "join its cgroups";
    for (int i = 0; i < spec->cgroups_count; i++)
        if (write(spec->cgroups[i], "0", 1) != 1)
            goto fail;
    child->step = "enter the working directory";
    if (spec->directory && chdir(spec->directory) < 0)
        goto fail;
    child->step = "pass descriptors";
    r = place_fds(spec->fds, spec->fds_count);
    if (r < 0) {
        errno = -r;
        goto fail;
    }
    sigemptyset(&none);
    reset_signals(&none);
    child->step = "execute";
    if (strchr(spec->path, '/'))
        execve(spec->path, spec->argv, spec->environment ? spec->environment : environ);
    else
        execvpe(spec->path, spec->argv, spec->environment ? spec->environment : environ);
fail:
    child->failure = errno;
    _exit(127);
}

int process_spawn(const struct process_spec *spec, struct process *ret, struct error *err)
{
    struct child child = {.spec = spec, .parent_pid = getpid()};
    sigset_t all;
    int pidfd = -1;

    if (spec->fds_count < 3 || spec->fds_count > CHILD_FDS_MAX)
        return error_set(err, -EINVAL, "execute %s: %d descriptors", spec->path, spec->fds_count);
    void *stack = mmap(NULL, CHILD_STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return error_errno(err, errno, "allocate a stack");
    /* No handler of ours may run in the child while it shares our memory. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &child.old_mask);
    pid_t pid = clone(child_main, (char *)stack + CHILD_STACK_SIZE,
                      CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &child, &pidfd);
    int failure = pid < 0 ? errno : child.failure;
    pthread_sigmask(SIG_SETMASK, &child.old_mask, NULL);
    munmap(stack, CHILD_STACK_SIZE);
    if (pid < 0)
        return error_errno(err, failure, "start a process for %s", spec->path);
    if (failure) {
        waitpid(pid, NULL, 0);
        close(pidfd);
        return error_errno(err, failure, "%s %s", child.step, spec->path);
    }
    *ret = (struct process){.pid = pid, .pidfd = pidfd};
    return 0;
}

int process_wait(struct process *process, int *ret_status, struct error *err)
{
    pid_t pid;

    do
        pid = waitpid(process->pid, ret_status, 0);
    while (pid < 0 && errno == EINTR);
    close_fd(steal_fd(&process->pidfd));
    return pid < 0 ? error_errno(err, errno, "wait for process %d", process->pid) : 0;
}

int process_exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int process_stat(pid_t pid, int number, char *ret_state, uint64_t *ret)
{
    char path[32], text[PROC_STAT_MAX];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    /* The name in parentheses may hold anything. */
    const char *at = strrchr(text, ')');
    if (!at || at[1] != ' ')
        return -ESRCH;
    *ret_state = at[2];
    for (int field = 2; at && field < number; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return -EIO;
    *ret = strtoull(at + 1, NULL, 10);
    return 0;
}

int process_start_time(pid_t pid, uint64_t *ret)
{
    char state;
    uint64_t start_time;
    int r = process_stat(pid, 22, &state, &start_time);

    if (r < 0 || state == 'Z' || state == 'X')
        return r < 0 ? r : -ESRCH;
    *ret = start_time;
    return 0;
}
