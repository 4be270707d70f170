#include "programs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

enum { FAMILIES = 46 }; /* of sockets, that kernels know */

static int attach(const char *source, const char *target, uint64_t attributes, struct error *err)
{
    struct mount_attr restricted = {.attr_set = attributes, .propagation = MS_PRIVATE};
    _cleanup_close_ int fd =
        open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

    if (fd < 0 ||
        mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &restricted, sizeof(restricted)) < 0 ||
        move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_errno(err, errno, "jail: attach %s", source);
    return 0;
}

static int attach_file(const char *source, uint64_t attributes, struct error *err)
{
    const char *target = source + 1;
    _cleanup_close_ int fd = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0)
        return error_errno(err, errno, "jail: make %s", source);
    return attach(source, target, attributes, err);
}

static int make_parents(const char *target, struct error *err)
{
    const char *slash = strrchr(target, '/');
    _cleanup_free_ char *parent = slash ? xstrndup(target, (size_t)(slash - target)) : NULL;

    return parent ? file_mkdir_parents(parent, 0755, err) : 0;
}

/* A folder or a file, if it is there. Links into /usr, as most machines have them, stay links. */
static int attach_path(const char *source, uint64_t attributes, struct error *err)
{
    const char *target = source + 1;
    char link[256];
    struct stat status;

    if (lstat(source, &status) < 0)
        return 0;
    int r = make_parents(target, err);
    if (r < 0)
        return r;
    if (S_ISLNK(status.st_mode)) {
        ssize_t n = readlink(source, link, sizeof(link) - 1);
        if (n < 0)
            return error_errno(err, errno, "jail: read the link %s", source);
        link[n] = '\0';
        return symlink(link, target) < 0 ? error_errno(err, errno, "jail: make %s", source) : 0;
    }
    if (S_ISREG(status.st_mode))
        return attach_file(source, attributes, err);
    if (!S_ISDIR(status.st_mode))
        return 0;
    if (mkdir(target, 0755) < 0)
        return error_errno(err, errno, "jail: make %s", source);
    return attach(source, target, attributes, err);
}

static int attach_devices(struct error *err)
{
    if (mkdir("dev", 0755) < 0)
        return error_errno(err, errno, "jail: make /dev");
    int r = attach_file("/dev/null", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
    return r < 0 ? r : attach_file("/dev/urandom", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
}

int programs_attach(struct error *err)
{
    static const char *const with_programs[] = {"/usr",   "/bin",   "/sbin",  "/lib",
                                                "/lib32", "/lib64", "/libx32"};
    /* Beside these are the machine's private keys, in /etc/ssl/private and /etc/pki. */
    static const char *const certificates[] = {
        "/etc/ssl/certs",       "/etc/ssl/cert.pem",           "/etc/ssl/openssl.cnf",
        "/etc/pki/tls/certs",   "/etc/pki/tls/cert.pem",       "/etc/pki/tls/openssl.cnf",
        "/etc/ca-certificates", "/etc/pki/ca-trust/extracted", "/etc/crypto-policies"};
    const uint64_t read_only = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    int r = attach_devices(err);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(with_programs); i++)
        r = attach_path(with_programs[i], read_only, err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(certificates); i++)
        r = attach_path(certificates[i], read_only | MOUNT_ATTR_NOEXEC, err);
    return r;
}

static const char *const forbidden_calls[] = {
    /* namespaces, mounts, roots */
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "setns",
    "unshare",
    "mknod",
    "mknodat",
    "name_to_handle_at",
    "open_by_handle_at",
    "quotactl",
    "quotactl_fd",
    /* other processes */
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "pidfd_open",
    "pidfd_getfd",
    "kcmp",
    /* the kernel */
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "add_key",
    "request_key",
    "keyctl",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "syslog",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "iopl",
    "ioperm",
    "personality",
    "vhangup",
};

static int add_calls(scmp_filter_ctx filter)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(forbidden_calls); i++) {
        int call = seccomp_syscall_resolve_name(forbidden_calls[i]);
        if (call != __NR_SCMP_ERROR && call >= 0)
            r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0);
    }
    return r;
}

/* glibc takes clone where clone3, whose flags a filter cannot see, is not there. */
static int add_namespaces(scmp_filter_ctx filter)
{
    static const scmp_datum_t flags[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                         CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(flags); i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, flags[i], flags[i]));
    return r;
}

static int add_families(scmp_filter_ctx filter)
{
    int r = 0;

    for (scmp_datum_t family = 0; r == 0 && family < FAMILIES; family++)
        if (family != AF_INET && family != AF_INET6)
            r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                 SCMP_A0(SCMP_CMP_EQ, family));
    return r < 0 ? r
                 : seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                    SCMP_A0(SCMP_CMP_GE, FAMILIES));
}

int programs_filter(struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r = filter ? add_calls(filter) : -ENOMEM;

    if (r == 0)
        r = add_namespaces(filter);
    if (r == 0)
        r = add_families(filter);
    if (r == 0)
        seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1); /* the watcher too */
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_errno(err, -r, "jail: filter system calls") : 0;
}
