#include "jail.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NOBODY = 65534 };

static int enter_root(struct error *err)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return error_errno(err, errno, "jail: make namespaces");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("cloche-names", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k,mode=555") < 0 ||
        chdir("/tmp") < 0)
        return error_errno(err, errno, "jail: make a root");
    /* "." twice stacks the old root over the new one, where it is taken off (pivot_root(2)). */
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_errno(err, errno, "jail: change the root");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL) < 0)
        return error_errno(err, errno, "jail: make the root read-only");
    return 0;
}

/* Whoever leaves root for good loses all capabilities with it (capabilities(7)). */
static int drop_privileges(struct error *err)
{
    for (unsigned long c = 0; c < 64; c++)
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL)
            return error_errno(err, errno, "jail: drop capability %lu for good", c);
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return error_errno(err, errno, "jail: become nobody");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "jail: set no_new_privs");
    return 0;
}

static const char *const allowed_calls[] = {
    /* sockets */
    "socket", "connect", "shutdown", "accept4", "sendto", "recvfrom", "sendmsg", "recvmsg",
    "setsockopt", "getsockopt", "close", "read", "write", "fcntl",
    /* waiting */
    "epoll_ctl", "epoll_wait", "epoll_pwait", "clock_gettime", "getrandom", "restart_syscall",
    "rt_sigreturn",
    /* memory, the end */
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "exit", "exit_group",
    "rt_sigprocmask", "getpid", "gettid", "tgkill", "rt_sigaction"};

static int filter_calls(struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = filter ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(allowed_calls); i++) {
        int call = seccomp_syscall_resolve_name(allowed_calls[i]);

        if (call == __NR_SCMP_ERROR || call < 0)
            continue; /* not on this architecture */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    }
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_errno(err, -r, "jail: filter system calls") : 0;
}

int jail_enter(struct error *err)
{
    int r = enter_root(err);

    if (r == 0)
        r = drop_privileges(err);
    return r == 0 ? filter_calls(err) : r;
}

void jail_random(void *data, size_t size)
{
    while (getrandom(data, size, 0) != (ssize_t)size)
        ;
}
