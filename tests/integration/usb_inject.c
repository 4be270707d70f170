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

enum { ARGUMENTS = 6, PLACE = 512, LINE = 4096, BELOW_STACK = 4096 };

#define CALL(name)                                                                                 \
    {                                                                                              \
#name, SYS_##name                                                                          \
    }

static const struct {
    const char *name;
    long number;
} calls[] = {
    CALL(getpid),
    CALL(clone3),
    CALL(openat),
    CALL(readlinkat),
    CALL(openat2),
    CALL(mkdirat),
    CALL(mknodat),
    CALL(symlinkat),
    CALL(linkat),
    CALL(renameat2),
    CALL(unlinkat),
    CALL(statx),
    CALL(faccessat),
    CALL(fchmodat),
    CALL(fchownat),
    CALL(truncate),
    CALL(open_by_handle_at),
    CALL(fanotify_init),
    CALL(inotify_init1),
    CALL(memfd_create),
    CALL(execve),
    CALL(execveat),
    CALL(chroot),
    CALL(chdir),
    CALL(getdents64),
    CALL(socket),
    CALL(connect),
    CALL(bind),
    CALL(kill),
    CALL(tgkill),
    CALL(ptrace),
    CALL(process_vm_readv),
    CALL(pidfd_open),
    CALL(pidfd_getfd),
    CALL(pidfd_send_signal),
    CALL(process_madvise),
    CALL(setns),
    CALL(unshare),
    CALL(clone),
    CALL(kcmp),
    CALL(request_key),
    CALL(add_key),
    CALL(keyctl),
    CALL(mount),
    CALL(umount2),
    CALL(pivot_root),
    CALL(fsopen),
    CALL(open_tree),
    CALL(mount_setattr),
    CALL(bpf),
    CALL(userfaultfd),
    CALL(io_uring_setup),
    CALL(perf_event_open),
    CALL(init_module),
    CALL(finit_module),
    CALL(delete_module),
    CALL(kexec_load),
    CALL(reboot),
    CALL(swapon),
    CALL(sethostname),
    CALL(setdomainname),
    CALL(settimeofday),
    CALL(clock_settime),
    CALL(acct),
    CALL(syslog),
    CALL(quotactl),
    CALL(vhangup),
    CALL(setuid),
    CALL(setgid),
    CALL(setgroups),
    CALL(capset),
    CALL(prlimit64),
    CALL(sched_setscheduler),
    CALL(sched_setaffinity),
    CALL(setpriority),
    CALL(mlockall),
    CALL(mq_open),
    CALL(shmget),
    CALL(seccomp),
    CALL(personality),
    CALL(mmap),
    CALL(mprotect),
    CALL(ioctl),
    CALL(dup),
    CALL(fcntl),
    CALL(move_pages),
    CALL(nanosleep),
    CALL(clock_nanosleep),
    CALL(shutdown),
    CALL(lseek),
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
