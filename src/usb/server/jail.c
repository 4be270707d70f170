/*
 * Self-isolation of a stick's process, in this order:
 *
 *   descriptors   the socket and the device; 0 to 2; no others
 *   the device    without the kernel's drivers, and without the right to attach them (device.c)
 *   real time     where it is asked for: the scheduler's class, the processors, memory that stays
 *   namespaces    mount, network, IPC, host name and process IDs of its own, and a session keyring;
 *                 the process goes on as PID 1 of the new one, and its parent only waits for it
 *   root          an empty one, read-only
 *   user          its own, without groups and capabilities
 *   limits        memory, descriptors, threads; no core files, no tracing, no new privileges
 *   system calls  an allow list, with arguments where they decide
 *
 * Nothing of the stick has been read by then, and no other thread is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/keyctl.h>
#include <linux/usbdevice_fs.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <jail/root.h>

#include "server.h"

enum { FD_LISTEN = 3, FD_DEVICE, FD_COUNT, FD_HIGH = 64 };
enum { WAIT_ALIVE, WAIT_DEVICE, WAIT_HELP, WAIT_COUNT }; /* of the process that waits */
enum {
    DESCRIPTORS = 512, /* a mount has four, and what it shares with others */
    THREADS = 256,     /* of all processes of the user: doors have some each, requests one */
    LOCKED_STACKS = 16 << 20,
};

static int keep_descriptors(struct server_options *options, struct error *err)
{
    int listen = fcntl(options->listen, F_DUPFD_CLOEXEC, FD_HIGH);
    int device = fcntl(options->fd, F_DUPFD_CLOEXEC, FD_HIGH);
    if (listen < 0 || device < 0 || dup3(listen, FD_LISTEN, O_CLOEXEC) < 0 ||
        dup3(device, FD_DEVICE, O_CLOEXEC) < 0)
        return error_errno(err, errno, "jail: keep the descriptors %d and %d", options->listen,
                           options->fd);
    if (syscall(SYS_close_range, (unsigned)FD_COUNT, ~0U, 0U) < 0)
        return error_errno(err, errno, "jail: close all other descriptors");
    options->listen = FD_LISTEN;
    options->fd = FD_DEVICE;
    return 0;
}

/* Threads that are made later are as this one. What is not allowed is said here, while there is
 * still something that can be done about it. */
static int become_real_time(const struct server_options *options, struct error *err)
{
    if (options->has_cpus && sched_setaffinity(0, sizeof(options->cpus), &options->cpus) < 0)
        return error_errno(err, errno, "jail: stay on the processors of --cpus");
    if (options->real_time == 0)
        return 0;
    struct sched_param priority = {.sched_priority = options->real_time};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) {
        int r =
            error_errno(err, errno, "jail: become real-time of priority %d", options->real_time);
        error_hint(err, "it needs CAP_SYS_NICE, and with CONFIG_RT_GROUP_SCHED a cgroup that has "
                        "real-time runtime (cpu.rt_runtime_us)");
        return r;
    }
    return 0;
}

/* Takes the exit status of the jailed process over; does not return. alive: a pipe's end, held by
 * this process as long as it lives. help: -1, or where the jailed process asks for what only this
 * one may do. */
static _Noreturn void wait_for_child(pid_t child, int alive, int help, uint32_t interfaces)
{
    int status = 0;
    dup3(alive, WAIT_ALIVE, O_CLOEXEC);
    dup3(FD_DEVICE, WAIT_DEVICE, O_CLOEXEC);
    if (help >= 0)
        dup3(help, WAIT_HELP, O_CLOEXEC);
    else
        close(WAIT_DEVICE);
    syscall(SYS_close_range, (unsigned)WAIT_COUNT, ~0U, 0U);
    if (help >= 0)
        device_help(child, WAIT_HELP, WAIT_DEVICE, interfaces);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : SERVER_FAILED);
}

/* ret_parent: reads as ended when the process that waits is gone. */
static int enter_namespaces(struct server_options *options, uint32_t interfaces, int *ret_parent,
                            struct error *err)
{
    int ends[2], help[2] = {-1, -1};
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID) < 0)
        return error_errno(err, errno, "jail: make namespaces");
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_errno(err, errno, "jail: make a pipe");
    if (options->kind == SERVER_DEVICE &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, help) < 0)
        return error_errno(err, errno, "jail: make a socket");
    pid_t child = fork();
    if (child < 0)
        return error_errno(err, errno, "jail: fork");
    if (child > 0)
        wait_for_child(child, ends[1], help[0], interfaces);
    close(ends[1]);
    close_fd(help[0]);
    options->help = help[1];
    *ret_parent = ends[0];
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0 && errno != ENOSYS)
        return error_errno(err, errno, "jail: make a session keyring");
    return 0;
}

static int enter_root(struct error *err)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("cloche-usb", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=555") <
            0 ||
        chdir("/tmp") < 0)
        return error_errno(err, errno, "jail: make a root");
    return jail_change_root(err);
}

static int become_user(const struct server_options *options, struct error *err)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    /* Ends with EINVAL at the first number that the kernel does not know. */
    for (unsigned long c = 0; c < 64; c++)
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL)
            return error_errno(err, errno, "jail: drop capability %lu for good", c);
    if (setgroups(0, NULL) < 0 || setresgid(options->gid, options->gid, options->gid) < 0 ||
        setresuid(options->uid, options->uid, options->uid) < 0)
        return error_errno(err, errno, "jail: become user %u of group %u", options->uid,
                           options->gid);
    if (syscall(SYS_capset, &header, data) < 0)
        return error_errno(err, errno, "jail: drop capabilities");
    return 0;
}

static int set_limit(int which, const char *name, uint64_t value, struct error *err)
{
    const struct rlimit limit = {value, value};
    if (setrlimit((__rlimit_resource_t)which, &limit) < 0)
        return error_errno(err, errno, "jail: limit %s to %llu", name, (unsigned long long)value);
    return 0;
}

/* All of it, and what will be mapped. */
static int lock_memory(const struct server_options *options, struct error *err)
{
    uint64_t locked = options->real_time ? options->memory + LOCKED_STACKS : 0;
    int r = set_limit(RLIMIT_MEMLOCK, "locked memory", locked, err);
    if (r != 0) {
        error_hint(err, "with --real-time all of its memory stays in memory: raise LimitMEMLOCK "
                        "(RLIMIT_MEMLOCK), or ask for less by --memory");
        return r;
    }
    if (options->real_time && mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        return error_errno(err, errno, "jail: keep all memory in memory");
    return 0;
}

/* While it is root: some of the limits are above those that it has. */
static int set_limits(const struct server_options *options, struct error *err)
{
    const struct {
        int which;
        const char *name;
        uint64_t value;
    } limits[] = {
        {RLIMIT_CORE, "core files", 0},
        {RLIMIT_NOFILE, "descriptors", DESCRIPTORS},
        {RLIMIT_NPROC, "threads", THREADS},
        {RLIMIT_MSGQUEUE, "message queues", 0},
        {RLIMIT_NICE, "niceness", 0},
        {RLIMIT_RTPRIO, "real-time priority", 0},
#ifndef __SANITIZE_ADDRESS__ /* whose shadow is larger than any limit */
        {RLIMIT_DATA, "memory", options->memory},
#endif
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(limits); i++)
        r = set_limit(limits[i].which, limits[i].name, limits[i].value, err);
    if (r == 0)
        r = lock_memory(options, err);
    return r;
}

/* The signal of a parent's death is forgotten with the change of the user, so it comes behind that;
 * whoever died before it was set is seen by the pipe. */
static int forbid_more(int parent, struct error *err)
{
    char byte;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "jail: set no_new_privs");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return error_errno(err, errno, "jail: forbid tracing");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_errno(err, errno, "jail: set the parent-death signal");
    ssize_t n = read(parent, &byte, 1);
    close(parent);
    return n == 0 ? error_set(err, -ESRCH, "jail: the process that waits has gone") : 0;
}

/* Everything else fails with EPERM. Names that an architecture lacks are skipped. */
static const char *const allowed_calls[] = {
    /* the socket, the connection to a USB/IP server, doors */
    "accept4", "recvfrom", "recvmsg", "sendto", "sendmsg", "read", "write", "readv", "writev",
    "close",
    /* waiting */
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "poll", "ppoll", "ppoll_time64",
    "eventfd2", "clock_gettime", "clock_gettime64", "gettimeofday", "restart_syscall", "futex",
    "futex_time64", "sched_yield", "nanosleep", "clock_nanosleep", "clock_nanosleep_time64",
    /* memory, threads, the end */
    "ftruncate", "ftruncate64", /* of rings */
    "brk", "munmap", "mremap", "madvise", "set_robust_list", "rseq", "rt_sigprocmask",
    "rt_sigaction", "rt_sigreturn", "getpid", "gettid", "getuid", "getrandom", "exit",
    "exit_group"};

/* libusb's own: descriptors from their beginning, what its loop would need, and the kernel's
 * version. */
static const char *const device_calls[] = {"pipe2", "timerfd_create", "timerfd_settime",
                                           "timerfd_settime64", "uname"};

static const char *const image_calls[] = {"pread64",   "pwrite64", "fdatasync",
                                          "fallocate", "fstat",    "fstat64"};
/* How glibc does fstat(): of a descriptor alone. */
static const char *const stat_calls[] = {"newfstatat", "fstatat64"};

/* What usbfs.c, and libusb for transport_libusb.c, ask of usbfs. Not what has the kernel look at
 * the stick itself: see device.c. */
static const unsigned long device_requests[] = {
    USBDEVFS_SUBMITURB,        USBDEVFS_DISCARDURB,       USBDEVFS_REAPURB,
    USBDEVFS_REAPURBNDELAY,    USBDEVFS_CONTROL,          USBDEVFS_SETINTERFACE,
    USBDEVFS_CLAIMINTERFACE,   USBDEVFS_RELEASEINTERFACE, USBDEVFS_CLEAR_HALT,
    USBDEVFS_GET_CAPABILITIES, USBDEVFS_GET_SPEED,        USBDEVFS_GETDRIVER,
    USBDEVFS_ALLOC_STREAMS,    USBDEVFS_FREE_STREAMS,     USBDEVFS_CONNECTINFO,
};

static const unsigned long image_requests[] = {BLKGETSIZE64};

/* Of fcntl: what doors set on their descriptors. */
static const scmp_datum_t set_flags = F_SETFL;
static const scmp_datum_t descriptor_words[] = {F_GETFL, F_GETFD, F_SETFD, F_ADD_SEALS};

static int allow(scmp_filter_ctx filter, const char *const *calls, size_t count)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++) {
        int call = seccomp_syscall_resolve_name(calls[i]);
        if (call != __NR_SCMP_ERROR && call >= 0)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    }
    return r;
}

static int allow_requests(scmp_filter_ctx filter, const unsigned long *requests, size_t count)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2,
                             SCMP_A0(SCMP_CMP_EQ, FD_DEVICE),
                             SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, requests[i]));
    return r;
}

/* Not of 0 to 2, which are open files of the daemon, too: its log would end, or be written over. A
 * filter compares all 64 bits of an argument of which the kernel takes 32, so that "from 3 on" is
 * said by what the number must be. */
static int allow_on_own(scmp_filter_ctx filter, int call, const scmp_datum_t *word)
{
    struct scmp_arg_cmp compared[2] = {SCMP_A0(SCMP_CMP_EQ, FD_LISTEN)};
    unsigned count = 1;
    if (word)
        compared[count++] = SCMP_A1(SCMP_CMP_EQ, *word);
    int r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, count, compared);
    for (scmp_datum_t first = FD_DEVICE; r == 0 && first < DESCRIPTORS; first *= 2) {
        compared[0] = SCMP_A0(SCMP_CMP_MASKED_EQ, ~(first - 1), first);
        r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, count, compared);
    }
    return r;
}

/* Memory that can be executed is what the program came with. Threads and no processes: glibc falls
 * back to clone when clone3, whose flags a filter cannot see, is not there. Signals are for itself
 * (abort); of scheduling, a thread may give up what it has, and set its name. */
static int allow_some(scmp_filter_ctx filter)
{
    static const char *const with_protection[] = {"mmap", "mmap2", "mprotect"};
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(with_protection); i++) {
        int call = seccomp_syscall_resolve_name(with_protection[i]);
        if (call >= 0)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(descriptor_words); i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                             SCMP_A1(SCMP_CMP_EQ, descriptor_words[i]));
    if (r == 0)
        r = allow_on_own(filter, SCMP_SYS(fcntl), &set_flags);
    if (r == 0)
        r = allow_on_own(filter, SCMP_SYS(shutdown), NULL);
    if (r == 0)
        r = seccomp_rule_add(
            filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
            SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_NEWUSER | CLONE_NEWNS, CLONE_THREAD));
    if (r == 0) /* memory of rings, as doors/ring.c makes it */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(memfd_create), 1,
                             SCMP_A1(SCMP_CMP_EQ, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                             SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_setscheduler), 1,
                             SCMP_A1(SCMP_CMP_EQ, SCHED_OTHER));
    return r;
}

/* A thread, for itself: device/place.c. Not where --cpus says where it is to stay. */
static int allow_places(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp own = SCMP_A0(SCMP_CMP_EQ, 0);
    int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_getaffinity), 1, own);
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_setaffinity), 1, own);
    return r;
}

static int allow_kind(scmp_filter_ctx filter, const struct server_options *options)
{
    int r = 0;
    switch (options->kind) {
    case SERVER_USBIP:
        break;
    case SERVER_DEVICE:
        r = allow(filter, device_calls, ARRAY_SIZE(device_calls));
        if (r == 0 && !options->has_cpus)
            r = allow_places(filter);
        if (r == 0)
            r = allow_on_own(filter, SCMP_SYS(lseek), NULL);
        return r == 0 ? allow_requests(filter, device_requests, ARRAY_SIZE(device_requests)) : r;
    case SERVER_IMAGE:
        r = allow(filter, image_calls, ARRAY_SIZE(image_calls));
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(stat_calls); i++) {
            int call = seccomp_syscall_resolve_name(stat_calls[i]);
            if (call >= 0)
                r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                     SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH));
        }
        return r == 0 ? allow_requests(filter, image_requests, ARRAY_SIZE(image_requests)) : r;
    }
    return r;
}

static int filter_calls(const struct server_options *options, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = filter ? allow(filter, allowed_calls, ARRAY_SIZE(allowed_calls)) : -ENOMEM;
    if (r == 0)
        r = allow_some(filter);
    if (r == 0)
        r = allow_kind(filter, options);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_errno(err, -r, "jail: filter system calls") : 0;
}

int server_isolate(struct server_options *options, struct error *err)
{
    int parent = -1;
    uint32_t interfaces = 0;
    tzset(); /* else gmtime_r(3) reads /etc/localtime, later */
    int r = keep_descriptors(options, err);
    if (r == 0 && options->kind == SERVER_DEVICE)
        r = device_confine(options->fd, &interfaces, &options->configuration, err);
    if (r == 0)
        r = become_real_time(options, err);
    if (r == 0)
        r = enter_namespaces(options, interfaces, &parent, err);
    if (r == 0)
        r = enter_root(err);
    if (r == 0)
        r = set_limits(options, err);
    if (r == 0)
        r = become_user(options, err);
    if (r == 0)
        r = forbid_more(parent, err);
    return r == 0 ? filter_calls(options, err) : r;
}
