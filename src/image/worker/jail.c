/*
 * Self-isolation of cloche-image, in this order:
 *
 *   libraries     what they load or initialise lazily is loaded while there are files
 *   addresses     for a worker with a network: what finding addresses takes is copied
 *   folders       a copy of the mount of each folder that is kept, with the folder as its root
 *   namespaces    mount, network (unless it is needed), IPC, host name and process IDs of its own;
 *                 the process goes on as PID 1 of the new one, and its parent only waits for it
 *   root          an empty read-only root that holds nothing but the staging folder (/staging) and,
 *                 read only, the source folder (/source), for COPY also the root that is written
 *                 to (/target) and its upper folder (/upper), each as a mount of its own, so that
 *                 ".." from their descriptors leads nowhere; with a network also
 *                 /etc/resolv.conf, /etc/hosts and /etc/nsswitch.conf, as copies, and for a
 *                 request that executes git the machine's programs (programs.c). A request that
 *                 works in a container's files has these as its root in place of it (tree.c)
 *   users         in the files of a container that has a user namespace: its root
 *   capabilities  only those that unpacking needs, with programs none, and no way to get others
 *   system calls  an allow list; with programs what programs.c forbids
 *
 * A worker that a user starts on files of the user's own (tree kind "own") has what the user has:
 * there only system calls are filtered.
 *
 * The watcher thread ends the process when the engine closes the control socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <locale.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>
#include <jail/root.h>

#include "programs.h"
#include "tree.h"
#include "worker.h"

enum { RESOLVER_FILE_MAX = 1024 * 1024 };

/* What is foreign cannot make us take the machine's memory. Stacks of threads count. */
#define MEMORY_MAX (2ULL << 30)
static const char oom_score[] = "500"; /* we go before a container does */

static void limit_memory(void)
{
    struct rlimit limit;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t n = write(fd, oom_score, strlen(oom_score));
        (void)n; /* without it the kernel chooses as it likes */
        close(fd);
    }
#ifndef __SANITIZE_ADDRESS__ /* whose shadow is larger than any limit */
    if (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_max > MEMORY_MAX) {
        limit.rlim_cur = limit.rlim_max = MEMORY_MAX;
        setrlimit(RLIMIT_DATA, &limit);
    }
#else
    (void)limit;
#endif
}

static int load_libraries(struct error *err)
{
    unsigned char digest[32];

    /* libarchive converts the names of PAX headers, which are UTF-8, to the locale's set: with this
     * one they stay as they are. */
    if (!setlocale(LC_CTYPE, "C.UTF-8") && !setlocale(LC_CTYPE, "en_US.UTF-8"))
        return error_set(err, -ENOENT, "there is no UTF-8 locale");
    EVP_Digest("", 0, digest, NULL, EVP_sha256(), NULL);
    umask(0);
    limit_memory();
    signal(SIGPIPE, SIG_IGN);
    /* A walk through a deep tree has a descriptor open at each level. */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    return 0;
}

/* Takes the exit status of the jailed process over; does not return. */
static _Noreturn void wait_for_child(pid_t child)
{
    int status = 0;

    /* The end of the control socket must be the child's end alone. The staging folder's lock lives
     * as long as this process: the child's own descriptor becomes another open file (enter_root).
     */
    syscall(SYS_close_range, 0U, (unsigned)IMAGE_FD_STAGING - 1, 0U);
    syscall(SYS_close_range, (unsigned)IMAGE_FD_STAGING + 1, ~0U, 0U);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static int enter_namespaces(bool network, struct error *err)
{
    const int flags =
        CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID | (network ? 0 : CLONE_NEWNET);

    if (unshare(flags) < 0)
        return error_errno(err, errno, "jail: make namespaces");
    pid_t child = fork();
    if (child < 0)
        return error_errno(err, errno, "jail: fork");
    if (child > 0)
        wait_for_child(child);
    /* When the waiting parent is killed, so is this process. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_errno(err, errno, "jail: set the parent-death signal");
    return 0;
}

static void *watch_control(void *data)
{
    struct pollfd control = {IMAGE_FD_CONTROL, POLLRDHUP, 0};

    while (poll(&control, 1, -1) < 0 && errno == EINTR)
        ;
    _exit(1);
    return data;
}

static int start_watcher(struct error *err)
{
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    int r = pthread_create(&thread, &attributes, watch_control, NULL);
    pthread_attr_destroy(&attributes);
    return r ? error_errno(err, r, "jail: start the watcher") : 0;
}

/* A folder that the worker keeps: a copy of its mount, whose root is the folder. */
struct kept_folder {
    int fd; /* enum image_descriptor */
    const char *target;
    bool wanted;
    bool read_only;
    int tree_fd; /* the copy */
};

/* Only possible while the folder's mount is in this mount namespace. */
static int clone_folder(struct kept_folder *folder, struct error *err)
{
    struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                    (folder->read_only ? MOUNT_ATTR_RDONLY : 0U),
        .propagation = MS_PRIVATE,
    };

    folder->tree_fd =
        open_tree(folder->fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    /* A mount that is attached nowhere is ours to attach: older kernels do not copy such. */
    if (folder->tree_fd < 0 && errno == EINVAL)
        folder->tree_fd = fcntl(folder->fd, F_DUPFD_CLOEXEC, IMAGE_FD_COUNT);
    if (folder->tree_fd < 0)
        return error_errno(err, errno, "jail: clone the mount for %s", folder->target);
    if (mount_setattr(folder->tree_fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
        return error_errno(err, errno, "jail: restrict the mount for %s", folder->target);
    return 0;
}

/* In the new root; the descriptor of the folder becomes one of the copy. */
static int attach_folder(struct kept_folder *folder, struct error *err)
{
    if (mkdir(folder->target, 0700) < 0 ||
        move_mount(folder->tree_fd, "", AT_FDCWD, folder->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_errno(err, errno, "jail: attach %s", folder->target);
    _cleanup_close_ int opened = open(folder->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0 || dup3(opened, folder->fd, O_CLOEXEC) < 0)
        return error_errno(err, errno, "jail: open %s", folder->target);
    close_fd(steal_fd(&folder->tree_fd));
    return 0;
}

/* What the resolver of libc reads. Its modules besides these two would have to be loaded. */
struct resolver_files {
    char *resolv_conf;
    char *hosts;
};

static void copy_resolver_files(struct resolver_files *files)
{
    file_read_at(AT_FDCWD, "/etc/resolv.conf", RESOLVER_FILE_MAX, &files->resolv_conf, NULL, NULL);
    file_read_at(AT_FDCWD, "/etc/hosts", RESOLVER_FILE_MAX, &files->hosts, NULL, NULL);
}

static int write_resolver_file(const char *path, const char *text, struct error *err)
{
    return text ? file_replace_at(AT_FDCWD, path, text, strlen(text), 0444, err) : 0;
}

static int write_resolver_files(const struct resolver_files *files, struct error *err)
{
    if (mkdir("etc", 0755) < 0)
        return error_errno(err, errno, "jail: create /etc");
    int r = write_resolver_file("etc/resolv.conf", files->resolv_conf, err);
    if (r == 0)
        r = write_resolver_file("etc/hosts", files->hosts, err);
    if (r == 0)
        r = write_resolver_file("etc/nsswitch.conf", "hosts: files dns\n", err);
    return r;
}

static int enter_root(struct kept_folder *folders, size_t count,
                      const struct resolver_files *resolver, bool programs, struct error *err)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_errno(err, errno, "jail: make mounts private");
    if (mount("cloche-image", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4m,mode=700") < 0)
        return error_errno(err, errno, "jail: make a root");
    if (chdir("/tmp") < 0)
        return error_errno(err, errno, "jail: enter the root");
    for (size_t i = 0; i < count; i++) {
        int r = folders[i].wanted ? attach_folder(&folders[i], err) : 0;
        if (r < 0)
            return r;
    }
    int written = resolver ? write_resolver_files(resolver, err) : 0;
    if (written == 0 && programs)
        written = programs_attach(err);
    if (written < 0)
        return written;
    return jail_change_root(err);
}

/* Programs of the machine work in files that the worker made, and get none. */
static int drop_capabilities(bool all, struct error *err)
{
    static const unsigned kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,
                                    CAP_FSETID, CAP_MKNOD,        CAP_SETFCAP};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    uint64_t mask = 0;

    for (size_t i = 0; !all && i < ARRAY_SIZE(kept); i++)
        mask |= 1ULL << kept[i];
    /* Ends with EINVAL at the first number that the kernel does not know. */
    for (unsigned long c = 0; c < 64; c++)
        if (!(mask & (1ULL << c)) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL)
            return error_errno(err, errno, "jail: drop capability %lu for good", c);
    data[0].effective = data[0].permitted = (uint32_t)mask;
    data[1].effective = data[1].permitted = (uint32_t)(mask >> 32);
    if (syscall(SYS_capset, &header, data) < 0)
        return error_errno(err, errno, "jail: drop capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "jail: set no_new_privs");
    return 0;
}

/* Everything else fails with EPERM. What is listed twice under different names is one call on some
 * architectures; names that an architecture lacks are skipped. */
static const char *const allowed_calls[] = {
    /* data */
    "read",
    "write",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "lseek",
    "_llseek",
    "close",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "fcntl64",
    "copy_file_range",
    "sendfile",
    "sendfile64",
    "splice",
    "ftruncate",
    "ftruncate64",
    "fallocate",
    "fadvise64",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    /* files, by their folder's descriptor */
    "openat",
    "openat2",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat",
    "renameat2",
    "readlinkat",
    "fchown",
    "fchownat",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "utimensat",
    "fstat",
    "fstat64",
    "newfstatat",
    "fstatat64",
    "statx",
    "fstatfs",
    "fstatfs64",
    "faccessat",
    "faccessat2",
    "getdents64",
    "fsetxattr",
    "fgetxattr",
    "flistxattr",
    "fremovexattr",
    "open",
    "rename",
    "lstat",
    "stat",
    "access",
    "readlink",
    "umask",
    "getcwd",
    /* the control socket */
    "sendto",
    "sendmsg",
    "recvfrom",
    "recvmsg",
    "poll",
    "ppoll",
    "shutdown",
    /* memory, threads, time */
    "brk",
    "mmap",
    "mmap2",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "futex",
    "futex_time64",
    "set_robust_list",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "clock_gettime",
    "clock_gettime64",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "getrandom",
    "sched_yield",
    "sched_getaffinity",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "tgkill",
    "exit",
    "exit_group",
    "restart_syscall",
    "sysinfo",
    "prlimit64",
};

/* A worker with a network. Sockets are of the two families of the Internet only: what listens on
 * this machine's Unix sockets, netlink and the like stay out of reach. */
static const char *const network_calls[] = {
    "connect",  "getsockname", "getpeername", "getsockopt", "setsockopt",
    "recvmmsg", "sendmmsg",    "select",      "pselect6",   "eventfd2",
    "pipe2",    "ioctl",       "uname",       "getrlimit",  "ppoll_time64",
};

static int add_network_rules(scmp_filter_ctx filter)
{
    static const scmp_datum_t families[] = {AF_INET, AF_INET6};
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(families); i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_EQ, families[i]));
    /* curl wakes its resolver thread by a pair. */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1,
                             SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(network_calls); i++) {
        int call = seccomp_syscall_resolve_name(network_calls[i]);
        if (call != __NR_SCMP_ERROR && call >= 0)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    }
    return r;
}

/* glibc falls back to clone when clone3, whose flags a filter cannot see, is not there. */
static int add_thread_rules(scmp_filter_ctx filter)
{
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    return r;
}

static int filter_calls(bool network, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = filter ? add_thread_rules(filter) : -ENOMEM;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(allowed_calls); i++) {
        int call = seccomp_syscall_resolve_name(allowed_calls[i]);
        if (call == __NR_SCMP_ERROR || call < 0)
            continue;
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    }
    if (r == 0 && network)
        r = add_network_rules(filter);
    if (r == 0)
        seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1); /* the watcher too */
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_errno(err, -r, "jail: filter system calls") : 0;
}

/* The folder of a worker whose root is something else: reached by its descriptor only. */
static int keep_folder(struct kept_folder *folder, struct error *err)
{
    _cleanup_close_ int opened = openat(folder->tree_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (opened < 0 || dup3(opened, folder->fd, O_CLOEXEC) < 0)
        return error_errno(err, errno, "jail: open %s", folder->target);
    return 0;
}

static int take_folders(struct kept_folder *folders, size_t count, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        if (folders[i].wanted)
            r = clone_folder(&folders[i], err);
    return r;
}

static int enter_tree(struct tree_mounts *mounts, struct kept_folder *folders, size_t count,
                      struct error *err)
{
    int r = tree_enter(mounts, err);

    for (size_t i = 0; r == 0 && i < count; i++)
        if (folders[i].wanted)
            r = keep_folder(&folders[i], err);
    free(mounts->mount_fds);
    return r;
}

static int restrict_process(const struct jail *jail, struct error *err)
{
    int r = start_watcher(err);

    if (r < 0)
        return r;
    return jail->has_programs ? programs_filter(err) : filter_calls(jail->has_network, err);
}

int jail_enter(const struct jail *jail, struct error *err)
{
    struct kept_folder folders[] = {
        {IMAGE_FD_STAGING, "staging", jail->has_staging, false, -1},
        {IMAGE_FD_SOURCE, "source", jail->has_source, true, -1},
        {IMAGE_FD_TARGET, "target", jail->has_target, false, -1},
        {IMAGE_FD_UPPER, "upper", jail->has_target, true, -1},
    };
    struct tree_mounts mounts = {.tree = jail->tree, .writable = jail->writes_tree};
    struct resolver_files resolver = {0};
    int r = load_libraries(err);

    if (r == 0 && jail->tree && text_equal(jail->tree->kind, "own")) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            return error_errno(err, errno, "jail: set no_new_privs");
        return restrict_process(jail, err);
    }
    if (jail->has_network)
        copy_resolver_files(&resolver);
    if (r == 0)
        r = take_folders(folders, ARRAY_SIZE(folders), err);
    if (r == 0 && jail->tree)
        r = tree_take(&mounts, err);
    if (r == 0)
        r = enter_namespaces(jail->has_network, err);
    if (r == 0)
        r = jail->tree ? enter_tree(&mounts, folders, ARRAY_SIZE(folders), err)
                       : enter_root(folders, ARRAY_SIZE(folders),
                                    jail->has_network ? &resolver : NULL, jail->has_programs, err);
    free(resolver.resolv_conf);
    free(resolver.hosts);
    if (r == 0 && jail->tree && jail->tree->users)
        r = tree_enter_users(err);
    if (r == 0)
        r = drop_capabilities(jail->has_programs, err);
    return r == 0 ? restrict_process(jail, err) : r;
}
