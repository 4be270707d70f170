/*
 * What a test needs of the kernel and qemu-user does not have (7.2: no openat2, and CLONE_VM
 * without CLONE_THREAD is a fork). Such a test begins with one of these; its name must then be in
 * tests/permitted-skips.txt. A real kernel that Cloche supports has all of it.
 */
#ifndef TESTS_UNIT_KERNEL_H
#define TESTS_UNIT_KERNEL_H

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static inline bool kernel_has_openat2(void)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    long fd = syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how));

    if (fd >= 0)
        close((int)fd);
    return fd >= 0;
}

static inline int kernel_probe_child(void *shared)
{
    *(volatile int *)shared = 1;
    _exit(0);
}

static inline bool kernel_shares_memory(void)
{
    static char stack[16384] __attribute__((aligned(16)));
    volatile int shared = 0;
    pid_t pid = clone(kernel_probe_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD,
                      (void *)&shared);

    if (pid > 0)
        waitpid(pid, NULL, 0);
    return shared == 1;
}

#define needs_openat2()                                                                            \
    do {                                                                                           \
        if (!kernel_has_openat2())                                                                 \
            skip();                                                                                \
    } while (0)

#define needs_shared_memory()                                                                      \
    do {                                                                                           \
        if (!kernel_shares_memory())                                                               \
            skip();                                                                                \
    } while (0)

#endif
