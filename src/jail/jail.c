#include <jail/jail.h>

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jail/root.h>

enum { NOBODY = 65534 };

static int enter_root(const char *program, struct error *err)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return error_errno(err, errno, "jail: make namespaces");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(program, "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=555") < 0 ||
        chdir("/tmp") < 0)
        return error_errno(err, errno, "jail: make a root");
    return jail_change_root(err);
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

static const char *const common_calls[] = {
    /* waiting */
    "epoll_ctl", "epoll_wait", "epoll_pwait", "restart_syscall", "rt_sigreturn", "close",
    /* memory, the end */
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "exit", "exit_group",
    "rt_sigprocmask", "getpid", "gettid", "rt_sigaction", NULL};

/* Questions go out by IPv4 and IPv6 and by nothing else: the host's network, where this runs, has
 * sockets of other families that mean more (abstract Unix sockets, netlink). abort() means itself.
 */
static int allow_parts(scmp_filter_ctx filter)
{
    int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_EQ, AF_INET));

    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_EQ, AF_INET6));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                             SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    return r;
}

static int allow(scmp_filter_ctx filter, const char *const *calls)
{
    int r = 0;

    for (; r == 0 && *calls; calls++) {
        int call = seccomp_syscall_resolve_name(*calls);

        if (call == __NR_SCMP_ERROR || call < 0)
            continue; /* not on this architecture */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    }
    return r;
}

static int filter_calls(const char *const *calls, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = filter ? 0 : -ENOMEM;

    if (r == 0)
        r = allow(filter, common_calls);
    if (r == 0)
        r = allow(filter, calls);
    if (r == 0)
        r = allow_parts(filter);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_errno(err, -r, "jail: filter system calls") : 0;
}

int jail_enter(const char *program, const char *const *calls, struct error *err)
{
    int r = enter_root(program, err);

    if (r == 0)
        r = drop_privileges(err);
    return r == 0 ? filter_calls(calls, err) : r;
}

void jail_allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void jail_random(void *data, size_t size)
{
    while (getrandom(data, size, 0) != (ssize_t)size)
        ;
}
