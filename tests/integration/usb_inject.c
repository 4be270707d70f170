/*
 * System calls in another process's name: usb_inject PID keep|off
 *
 * The thread PID waits in a system call. Each line of stdin is a call's name and its arguments,
 * which are made by that thread; what came of it is printed, one line each: the result, or -errno.
 * off: without the thread's system call filter (PTRACE_O_SUSPEND_SECCOMP). Arguments: n:NUMBER,
 * s:TEXT (a place with that text), h:HEX (a place with these bytes), r: (the last result).
 */
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { ARGUMENTS = 6, PLACE = 512, LINE = 4096, BELOW_STACK = 16384 };

#define CALLS(X)                                                                                   \
    X(getpid)                                                                                      \
    X(openat)                                                                                      \
    X(openat2) X(mkdirat) X(mknodat) X(unlinkat) X(linkat) X(symlinkat) X(renameat2) X(readlinkat) \
        X(faccessat) X(statx) X(fchmodat) X(fchownat) X(truncate) X(chdir) X(chroot) X(            \
            open_by_handle_at) X(memfd_create) X(inotify_init1) X(fanotify_init) X(execve)         \
            X(execveat) X(socket) X(socketpair) X(connect) X(bind) X(listen) X(kill) X(tgkill) X(  \
                ptrace) X(process_vm_readv) X(process_vm_writev) X(pidfd_open) X(pidfd_getfd)      \
                X(pidfd_send_signal) X(setns) X(unshare) X(clone) X(clone3) X(wait4) X(kcmp) X(    \
                    add_key) X(request_key) X(keyctl) X(mount) X(umount2) X(pivot_root) X(fsopen)  \
                    X(open_tree) X(move_mount) X(mount_setattr) X(bpf) X(userfaultfd)              \
                        X(io_uring_setup) X(perf_event_open) X(init_module) X(finit_module)        \
                            X(delete_module) X(kexec_load) X(reboot) X(swapon) X(sethostname) X(   \
                                setdomainname) X(settimeofday) X(clock_settime) X(adjtimex)        \
                                X(setuid) X(setgid) X(setgroups) X(capset) X(prctl) X(personality) \
                                    X(prlimit64) X(sched_setscheduler) X(sched_setaffinity)        \
                                        X(setpriority) X(mlockall) X(quotactl) X(acct) X(syslog)   \
                                            X(shmget) X(semget) X(msgget) X(mq_open) X(mmap)       \
                                                X(mprotect) X(ioctl) X(fcntl) X(dup) X(close)      \
                                                    X(seccomp) X(vhangup) X(process_madvise) X(    \
                                                        landlock_create_ruleset) X(timerfd_create) \
                                                        X(signalfd4) X(splice) X(sendfile)         \
                                                            X(copy_file_range) X(getdents64)       \
                                                                X(setsid) X(setpgid) X(membarrier) \
                                                                    X(migrate_pages) X(move_pages) \
                                                                        X(set_mempolicy)

static const struct {
    const char *name;
    long number;
} calls[] = {
#define X(name) {#name, SYS_##name},
    CALLS(X)
#undef X
};

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(2);
}

static long number_of(const char *name)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (strcmp(calls[i].name, name) == 0)
            return calls[i].number;
    fprintf(stderr, "no call %s\n", name);
    exit(2);
}

static void registers(pid_t pid, int request, struct user_regs_struct *values)
{
    struct iovec all = {values, sizeof(*values)};
    if (ptrace((enum __ptrace_request)request, pid, (void *)NT_PRSTATUS, &all) != 0)
        fail("registers");
}

#if defined(__x86_64__)
static uint64_t stack_of(const struct user_regs_struct *values)
{
    return values->rsp;
}

/* The instruction that it waits in, once more. */
static void word(struct user_regs_struct *values, long number, const uint64_t *arguments)
{
    values->rip -= 2;
    values->rax = (uint64_t)number;
    values->orig_rax = UINT64_MAX;
    values->rdi = arguments[0];
    values->rsi = arguments[1];
    values->rdx = arguments[2];
    values->r10 = arguments[3];
    values->r8 = arguments[4];
    values->r9 = arguments[5];
}

static int64_t result_of(const struct user_regs_struct *values)
{
    return (int64_t)values->rax;
}
#elif defined(__aarch64__)
static uint64_t stack_of(const struct user_regs_struct *values)
{
    return values->sp;
}

static void word(struct user_regs_struct *values, long number, const uint64_t *arguments)
{
    values->pc -= 4;
    values->regs[8] = (uint64_t)number;
    memcpy(values->regs, arguments, ARGUMENTS * sizeof(arguments[0]));
}

static int64_t result_of(const struct user_regs_struct *values)
{
    return (int64_t)values->regs[0];
}
#endif

static void wait_for_stop(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
        fail("the thread does not stop");
}

static size_t bytes_of(const char *text, uint8_t *bytes)
{
    size_t count = 0;
    unsigned byte;
    if (text[0] == 's') {
        count = strlen(text + 2) + 1;
        memcpy(bytes, text + 2, count);
    }
    for (const char *at = text + 2; text[0] == 'h' && sscanf(at, "%2x", &byte) == 1; at += 2)
        bytes[count++] = (uint8_t)byte;
    return count;
}

static uint64_t argument(pid_t pid, const char *text, uint64_t place, int64_t last)
{
    uint8_t bytes[LINE];
    if (text[0] == 'n')
        return (uint64_t)strtoll(text + 2, NULL, 0);
    if (text[0] == 'r')
        return (uint64_t)last;
    struct iovec here = {bytes, bytes_of(text, bytes)}, there = {(void *)place, here.iov_len};
    if (here.iov_len > PLACE || process_vm_writev(pid, &here, 1, &there, 1, 0) < 0)
        fail("write an argument");
    return place;
}

static int64_t inject(pid_t pid, char *line, const struct user_regs_struct *before, int64_t last)
{
    uint64_t arguments[ARGUMENTS] = {0};
    uint64_t place = (stack_of(before) - BELOW_STACK) & ~UINT64_C(15);
    struct user_regs_struct values = *before;
    const char *name = strtok(line, " \n"), *text;
    for (unsigned i = 0; i < ARGUMENTS && (text = strtok(NULL, " \n")); i++)
        arguments[i] = argument(pid, text, place + (uint64_t)i * PLACE, last);
    word(&values, number_of(name), arguments);
    registers(pid, PTRACE_SETREGSET, &values);
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
        fail("step");
    wait_for_stop(pid);
    registers(pid, PTRACE_GETREGSET, &values);
    return result_of(&values);
}

int main(int argc, char **argv)
{
    char line[LINE];
    int64_t last = 0;
    if (argc != 3)
        return 2;
    pid_t pid = (pid_t)atoi(argv[1]);
    long options = strcmp(argv[2], "off") == 0 ? PTRACE_O_SUSPEND_SECCOMP : 0;
    if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)options) != 0)
        fail("seize");
    if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) != 0)
        fail("interrupt");
    wait_for_stop(pid);
    struct user_regs_struct before;
    registers(pid, PTRACE_GETREGSET, &before);
    while (fgets(line, sizeof(line), stdin)) {
        last = inject(pid, line, &before, last);
        printf("%lld\n", (long long)last);
    }
    registers(pid, PTRACE_SETREGSET, &before);
    if (ptrace(PTRACE_DETACH, pid, NULL, NULL) != 0)
        fail("detach");
    return 0;
}
