/*
 * Self-isolation of the door, in this order:
 *
 *   namespaces    (as root) mount, network, IPC and host name of its own: from here on it can be
 *                 connected to through the sockets it has, and connect to nothing
 *   root          (as root) an empty one, read-only
 *   user          (as root) another one, without groups and capabilities
 *   limits        no new privileges, no core files (they would hold keys), no processes
 *   system calls  an allow list
 *
 * A door that somebody runs by hand as an ordinary user has the last two only, and connects to the
 * daemon's socket as that user.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <jail/root.h>

#include "gate.h"

static int enter_namespaces(struct error *err)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return error_errno(err, errno, "jail: make namespaces");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_errno(err, errno, "jail: make mounts private");
    return 0;
}

static int enter_root(struct error *err)
{
    if (mount("cloche-door", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k,mode=755") < 0 ||
        chdir("/tmp") < 0)
        return error_errno(err, errno, "jail: make a root");
    return jail_change_root(err);
}

static int become_user(const struct door_config *config, struct error *err)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};

    /* Ends with EINVAL at the first number that the kernel does not know. */
    for (unsigned long c = 0; c < 64; c++)
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL)
            return error_errno(err, errno, "jail: drop capability %lu for good", c);
    if (setgroups(0, NULL) < 0 || setresgid(config->gid, config->gid, config->gid) < 0 ||
        setresuid(config->uid, config->uid, config->uid) < 0)
        return error_errno(err, errno, "jail: become user %u of group %u", config->uid,
                           config->gid);
    if (syscall(SYS_capset, &header, data) < 0)
        return error_errno(err, errno, "jail: drop capabilities");
    return 0;
}

static int set_limits(const struct door_config *config, struct error *err)
{
    const struct rlimit none = {0, 0};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "jail: set no_new_privs");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return error_errno(err, errno, "jail: forbid core files");
    if (config->to_user && setrlimit(RLIMIT_NPROC, &none) < 0)
        return error_errno(err, errno, "jail: forbid processes");
    return 0;
}

/* Everything else fails with EPERM. Names that an architecture lacks are skipped. */
static const char *const allowed_calls[] = {
    /* connections */
    "accept4",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "recvfrom",
    "recvmsg",
    "sendto",
    "sendmsg",
    "shutdown",
    "socketpair",
    "pipe2",
    "read",
    "write",
    "readv",
    "writev",
    "close",
    "fcntl",
    "fcntl64",
    /* the loop */
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "timerfd_settime",
    "timerfd_settime64",
    "poll",
    "ppoll",
    "ppoll_time64",
    "clock_gettime",
    "clock_gettime64",
    "gettimeofday",
    "time",
    /* GnuTLS and libmicrohttpd */
    "getrandom",
    "getrusage",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "sysinfo",
    /* memory, signals, the end */
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "futex_time64",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "exit",
    "exit_group",
};

static int allow(scmp_filter_ctx filter, const char *name)
{
    int call = seccomp_syscall_resolve_name(name);

    return call == __NR_SCMP_ERROR || call < 0 ? 0
                                               : seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
}

/* Memory that can be executed is what the program came with, and signals are for itself: doors of
 * other instances may have the same user. */
static int allow_some(scmp_filter_ctx filter)
{
    static const char *const with_protection[] = {"mmap", "mmap2", "mprotect"};
    int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                             SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(with_protection); i++) {
        int call = seccomp_syscall_resolve_name(with_protection[i]);
        if (call >= 0)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
    return r;
}

static int filter_calls(const struct door_config *config, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = filter ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(allowed_calls); i++)
        r = allow(filter, allowed_calls[i]);
    if (r == 0)
        r = allow_some(filter);
    if (r == 0) /* whether what was sent is read */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_EQ, SIOCOUTQ));
    if (r == 0 && config->control_fd < 0) /* the daemon's socket is connected to by its name */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
    if (r == 0 && config->control_fd < 0)
        r = allow(filter, "connect");
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_errno(err, -r, "jail: filter system calls") : 0;
}

int jail_enter(const struct door_config *config, struct error *err)
{
    int r = 0;

    if (config->to_user) {
        r = enter_namespaces(err);
        if (r == 0)
            r = enter_root(err);
        if (r == 0)
            r = become_user(config, err);
    }
    if (r == 0)
        r = set_limits(config, err);
    if (r == 0)
        r = filter_calls(config, err);
    return r;
}
