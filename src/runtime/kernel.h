/*
 * System calls that libc lacks (musl 1.2.3 has none of them, glibc 2.36 some). All return what the
 * call returns, or -errno. <sys/mount.h> clashes with <linux/mount.h> in glibc 2.36: files of this
 * module include this header instead and never <sys/mount.h>.
 */
#ifndef RUNTIME_KERNEL_H
#define RUNTIME_KERNEL_H

#include <linux/mount.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#ifndef MNT_DETACH
#define MNT_DETACH 0x00000002 /* umount2(2) */
#endif
#ifndef UMOUNT_NOFOLLOW
#define UMOUNT_NOFOLLOW 0x00000008 /* umount2(2) */
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* clone3 without a new stack: like fork, with flags. exit signal SIGCHLD. cgroup_fd is used when
 * flags hold CLONE_INTO_CGROUP. ret_pidfd may be NULL. Returns 0 in the child. */
pid_t kernel_clone(uint64_t flags, int cgroup_fd, int *ret_pidfd);

int kernel_pidfd_open(pid_t pid);
int kernel_pidfd_send_signal(int pidfd, int signal);
int kernel_pidfd_getfd(int pidfd, int fd); /* Linux 5.6 */
int kernel_close_range(unsigned first, unsigned last, unsigned flags);
int kernel_pivot_root(const char *new_root, const char *put_old);

/* Mounts. Descriptors are O_CLOEXEC. */
int kernel_open_tree(int dir_fd, const char *path, unsigned flags);
int kernel_move_mount(int from_fd, int to_fd); /* onto the place that to_fd names */
int kernel_move_mount_at(int from_fd, int directory_fd, const char *name);
int kernel_fsopen(const char *type);
int kernel_fsconfig_string(int fs_fd, const char *key, const char *value);
int kernel_fsconfig_flag(int fs_fd, const char *key);
int kernel_fsconfig_create(int fs_fd);
int kernel_fsmount(int fs_fd, unsigned attributes);
int kernel_mount_setattr(int fd, unsigned flags, const struct mount_attr *attr);
int kernel_mount(const char *source, const char *target, const char *type, unsigned long flags,
                 const char *data);
int kernel_umount(const char *target, int flags);

/* The mount that a descriptor is on, and its inode there (may be NULL). Linux 5.8. */
int kernel_mount_id(int fd, uint64_t *ret_mount, uint64_t *ret_inode);

/* A number that no other mount gets in this boot; before Linux 6.8 that of kernel_mount_id. */
int kernel_unique_mount_id(int fd, uint64_t *ret);

/* The kernel's last message on a file system context ("" when there is none): its first line. */
void kernel_fs_message(int fs_fd, char *ret, size_t size);

#endif
