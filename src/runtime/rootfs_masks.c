#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "kernel.h"
#include "mounts.h"
#include "rootfs.h"

/* One empty read-only tmpfs serves all masked directories. The first cover is the file system
 * itself, and once that is attached it can be copied: a detached mount cannot before Linux 6.15. */
static int empty_directory(int *first_fd, struct error *err)
{
    char *data[] = {(char[]){"mode=755"}, (char[]){"nr_inodes=1"}, NULL};
    const struct mount_options options = {
        .set = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
        .data = data,
    };

    if (*first_fd >= 0) {
        int fd = kernel_open_tree(*first_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
        return fd < 0 ? error_errno(err, -fd, "copy the empty file system") : fd;
    }
    *first_fd = mounts_new_filesystem("tmpfs", "tmpfs", &options, -1, err);
    if (*first_fd < 0)
        return *first_fd;
    int fd = fcntl(*first_fd, F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? error_errno(err, errno, "copy a descriptor") : fd;
}

static bool is_null_device(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == makedev(1, 3);
}

/* Files are covered by the host's own null device, which is checked to be that one: nothing of the
 * image is trusted for it (CVE-2025-31133). */
static int null_device(struct error *err)
{
    struct stat status;
    _cleanup_close_ int fd = kernel_open_tree(AT_FDCWD, "/dev/null", OPEN_TREE_CLONE);

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, fd < 0 ? -fd : errno, "open the host's /dev/null");
    if (!is_null_device(&status))
        return error_set(err, -EINVAL, "the host's /dev/null is not the null device");
    return steal_fd(&fd);
}

/* What covers paths, and how a covered one is known again. */
struct covers {
    int empty_fd; /* the file system of masked directories; -1: none yet */
    dev_t empty_device;
};

static bool is_covered(const struct covers *covers, const struct stat *status)
{
    if (S_ISDIR(status->st_mode))
        return covers->empty_fd >= 0 && status->st_dev == covers->empty_device;
    return is_null_device(status);
}

static int open_cover(struct covers *covers, bool directory, struct error *err)
{
    struct stat status;
    int fd = directory ? empty_directory(&covers->empty_fd, err) : null_device(err);

    if (fd >= 0 && directory && fstat(covers->empty_fd, &status) == 0)
        covers->empty_device = status.st_dev;
    return fd;
}

/* Who shares the directory with us may have put another thing in the place (CVE-2025-31133). */
static int verify_cover(struct container *container, const char *path, const struct covers *covers,
                        struct error *err)
{
    struct stat status;
    _cleanup_close_ int fd = file_open_in_root(container->root_fd, path, O_PATH, 0);

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, fd < 0 ? -fd : errno, "verify that %s is covered", path);
    return is_covered(covers, &status)
               ? 0
               : error_set(err, -EPERM, "%s was moved while it was covered", path);
}

static int mask_path(struct container *container, const char *path, struct covers *covers,
                     struct error *err)
{
    struct stat status;
    _cleanup_close_ int fd = file_open_in_root(container->root_fd, path, O_PATH, 0);

    if (fd == -ENOENT || fd == -ENOTDIR)
        return 0;
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, fd < 0 ? -fd : errno, "open %s in the root", path);
    if (is_covered(covers, &status)) /* it is there twice */
        return 0;
    _cleanup_close_ int cover_fd = open_cover(covers, S_ISDIR(status.st_mode), err);
    if (cover_fd < 0)
        return cover_fd;
    int r = kernel_move_mount(cover_fd, fd);
    return r < 0 ? error_errno(err, -r, "cover %s", path)
                 : verify_cover(container, path, covers, err);
}

int rootfs_mask_paths(struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    struct covers covers = {.empty_fd = -1};
    int r = 0;

    for (size_t i = 0; r == 0 && i < config->masked_paths_count; i++) {
        r = mask_path(container, config->masked_paths[i], &covers, err);
        if (r < 0)
            error_context(err, "linux.maskedPaths[%zu]", i);
    }
    close_fd(covers.empty_fd);
    return r;
}

/* Below /proc, which is a procfs by now, nobody can put another thing in the place. */
static bool can_move(const char *path)
{
    return !text_starts_with(path, "/proc/") || strstr(path, "/..");
}

static int verify_readonly(struct container *container, const char *path, struct error *err)
{
    struct statfs status;
    _cleanup_close_ int fd = file_open_in_root(container->root_fd, path, O_PATH, 0);

    if (fd < 0 || fstatfs(fd, &status) < 0)
        return error_errno(err, fd < 0 ? -fd : errno, "verify that %s is read-only", path);
    return status.f_flags & ST_RDONLY
               ? 0
               : error_set(err, -EPERM, "%s was moved while it was made read-only", path);
}

/* As it was mounted, but read-only; mounts below it stay as they are. */
static int make_readonly(struct container *container, const char *path, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    _cleanup_close_ int fd = file_open_in_root(container->root_fd, path, O_PATH, 0);

    if (fd == -ENOENT || fd == -ENOTDIR)
        return 0;
    if (fd < 0)
        return error_errno(err, -fd, "open %s in the root", path);
    _cleanup_close_ int tree_fd =
        kernel_open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);
    int r = tree_fd < 0 ? tree_fd : kernel_mount_setattr(tree_fd, 0, &attr);
    if (r == 0)
        r = kernel_move_mount(tree_fd, fd);
    if (r < 0)
        return error_errno(err, -r, "make %s read-only", path);
    return can_move(path) ? verify_readonly(container, path, err) : 0;
}

int rootfs_readonly_paths(struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;

    for (size_t i = 0; i < config->readonly_paths_count; i++) {
        int r = make_readonly(container, config->readonly_paths[i], err);
        if (r < 0) {
            error_context(err, "linux.readonlyPaths[%zu]", i);
            return r;
        }
    }
    return 0;
}
