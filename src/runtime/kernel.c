#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/cleanup.h>

#include "kernel.h"

/* The numbers are the same on every architecture since Linux 5.1. */
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

static int result(long value)
{
    return value < 0 ? -errno : (int)value;
}

pid_t kernel_clone(uint64_t flags, int cgroup_fd, int *ret_pidfd)
{
    int pidfd = -1;
    struct clone_args args = {
        .flags = flags | (ret_pidfd ? CLONE_PIDFD : 0),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = flags & CLONE_INTO_CGROUP ? (uint64_t)(unsigned)cgroup_fd : 0,
    };
    /* Before Linux 5.7 there is no .cgroup and the kernel refuses a larger structure that has bits
     * set there; a smaller one is right for both. */
    size_t size = flags & CLONE_INTO_CGROUP ? sizeof(args) : CLONE_ARGS_SIZE_VER0;
    if (flags & CLONE_PARENT)
        args.exit_signal = 0; /* clone3(2): it is the parent's */
    long pid = syscall(SYS_clone3, &args, size);
    if (pid > 0 && ret_pidfd)
        *ret_pidfd = pidfd;
    return pid < 0 ? -errno : (pid_t)pid;
}

int kernel_pidfd_open(pid_t pid)
{
    return result(syscall(SYS_pidfd_open, pid, 0));
}

int kernel_pidfd_send_signal(int pidfd, int signal)
{
    return result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

int kernel_pidfd_getfd(int pidfd, int fd)
{
    return result(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

int kernel_close_range(unsigned first, unsigned last, unsigned flags)
{
    return result(syscall(SYS_close_range, first, last, flags));
}

int kernel_pivot_root(const char *new_root, const char *put_old)
{
    return result(syscall(SYS_pivot_root, new_root, put_old));
}

int kernel_open_tree(int dir_fd, const char *path, unsigned flags)
{
    return result(syscall(SYS_open_tree, dir_fd, path, flags | OPEN_TREE_CLOEXEC));
}

int kernel_move_mount(int from_fd, int to_fd)
{
    return result(syscall(SYS_move_mount, from_fd, "", to_fd, "",
                          MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

int kernel_move_mount_at(int from_fd, int directory_fd, const char *name)
{
    return result(
        syscall(SYS_move_mount, from_fd, "", directory_fd, name, MOVE_MOUNT_F_EMPTY_PATH));
}

int kernel_fsopen(const char *type)
{
    return result(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

int kernel_fsconfig_string(int fs_fd, const char *key, const char *value)
{
    return result(syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_STRING, key, value, 0));
}

int kernel_fsconfig_flag(int fs_fd, const char *key)
{
    return result(syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_FLAG, key, NULL, 0));
}

int kernel_fsconfig_create(int fs_fd)
{
    return result(syscall(SYS_fsconfig, fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
}

int kernel_fsmount(int fs_fd, unsigned attributes)
{
    return result(syscall(SYS_fsmount, fs_fd, FSMOUNT_CLOEXEC, attributes));
}

int kernel_mount_setattr(int fd, unsigned flags, const struct mount_attr *attr)
{
    return result(syscall(SYS_mount_setattr, fd, "", flags | AT_EMPTY_PATH, attr, sizeof(*attr)));
}

int kernel_mount(const char *source, const char *target, const char *type, unsigned long flags,
                 const char *data)
{
    return result(syscall(SYS_mount, source, target, type, flags, data));
}

int kernel_umount(const char *target, int flags)
{
    return result(syscall(SYS_umount2, target, flags));
}

/* struct statx of linux/stat.h, which does not go together with libc's headers. */
struct statx_answer {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint16_t mode, unused;
    uint64_t inode, size, blocks, attributes_mask;
    uint64_t times[8];
    uint32_t device_major, device_minor, on_major, on_minor;
    uint64_t mount_id;
    uint64_t more[13];
};

static int ask_mount_id(int fd, unsigned wanted, uint64_t *ret_mount, uint64_t *ret_inode)
{
    struct statx_answer answer;

    _Static_assert(sizeof(answer) == 256, "the kernel's structure");
    _Static_assert(offsetof(struct statx_answer, mount_id) == 144, "the kernel's structure");
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, wanted, &answer) < 0)
        return -errno;
    *ret_mount = answer.mount_id;
    if (ret_inode)
        *ret_inode = answer.inode;
    return 0;
}

enum { WANTED_INODE = 0x100, WANTED_MOUNT_ID = 0x1000, WANTED_UNIQUE_MOUNT_ID = 0x4000 };

int kernel_mount_id(int fd, uint64_t *ret_mount, uint64_t *ret_inode)
{
    return ask_mount_id(fd, WANTED_INODE | WANTED_MOUNT_ID, ret_mount, ret_inode);
}

int kernel_unique_mount_id(int fd, uint64_t *ret)
{
    return ask_mount_id(fd, WANTED_MOUNT_ID | WANTED_UNIQUE_MOUNT_ID, ret, NULL);
}

void kernel_fs_message(int fs_fd, char *ret, size_t size)
{
    ssize_t n = read(fs_fd, ret, size - 1);

    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    if (ret[0] && ret[1] == ' ') /* "e ", "w ", "i ": the kind of message */
        memmove(ret, ret + 2, strlen(ret + 2) + 1);
}
