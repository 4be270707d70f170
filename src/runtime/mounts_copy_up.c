/*
 * tmpcopyup: a tmpfs starts with the content of the directory it covers. Reads the image's files
 * through descriptors below the covered directory only, follows no links.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "mounts.h"

enum {
    COPY_DEPTH_MAX = 64,
    COPY_CHUNK = 1 << 20,
    XATTR_NAMES_MAX = 64 << 10, /* XATTR_LIST_MAX, as the values */
};

static int copy_tree(int from_fd, int to_fd, int proc_fd, int depth, struct error *err);

/* Those that a tmpfs takes; the others, as POSIX ACLs of a kernel without them, are left out. */
static int copy_attributes(int from_fd, int to_fd, const char *name, struct error *err)
{
    char none;
    ssize_t length = flistxattr(from_fd, &none, 0);

    if (length <= 0)
        return 0;
    _cleanup_free_ char *names = xmalloc(XATTR_NAMES_MAX), *value = xmalloc(XATTR_NAMES_MAX);
    length = flistxattr(from_fd, names, XATTR_NAMES_MAX);
    for (char *item = names; item < names + length; item += strlen(item) + 1) {
        ssize_t size = fgetxattr(from_fd, item, value, XATTR_NAMES_MAX);
        if (size < 0 || fsetxattr(to_fd, item, value, (size_t)size, 0) == 0)
            continue;
        if (errno != ENOTSUP && errno != EPERM)
            return error_errno(err, errno, "copy up %s: %s", name, item);
    }
    return 0;
}

/* Owner before mode: a change of owner takes the set-user-ID bit away. */
static int finish_copy(int from_fd, int to_fd, const char *name, const struct stat *status,
                       struct error *err)
{
    const struct timespec times[] = {status->st_atim, status->st_mtim};

    if (fchown(to_fd, status->st_uid, status->st_gid) < 0 ||
        fchmod(to_fd, status->st_mode & 07777) < 0)
        return error_errno(err, errno, "copy up %s", name);
    int r = copy_attributes(from_fd, to_fd, name, err);
    if (r == 0 && futimens(to_fd, times) < 0)
        r = error_errno(err, errno, "copy up %s", name);
    return r;
}

/* A container that runs can exchange it for a device meanwhile, of which even being opened can have
 * an effect: it is looked at before. */
static int open_regular(int from_fd, int proc_fd, const char *name, struct error *err)
{
    char path[32];
    struct stat status;
    _cleanup_close_ int place_fd = openat(from_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (place_fd < 0 || fstat(place_fd, &status) < 0)
        return error_errno(err, errno, "copy up %s", name);
    if (!S_ISREG(status.st_mode))
        return error_set(err, -EAGAIN, "copy up %s: it was exchanged meanwhile", name);
    snprintf(path, sizeof(path), "self/fd/%d", place_fd);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "copy up %s", name) : fd;
}

static int copy_file(int from_fd, int to_fd, int proc_fd, const char *name,
                     const struct stat *status, struct error *err)
{
    _cleanup_close_ int in_fd = open_regular(from_fd, proc_fd, name, err);
    ssize_t n;

    if (in_fd < 0)
        return in_fd;
    _cleanup_close_ int out_fd =
        openat(to_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out_fd < 0)
        return error_errno(err, errno, "copy up %s", name);
    while ((n = sendfile(out_fd, in_fd, NULL, COPY_CHUNK)) > 0)
        ;
    return n < 0 ? error_errno(err, errno, "copy up %s", name)
                 : finish_copy(in_fd, out_fd, name, status, err);
}

static int copy_link(int from_fd, int to_fd, const char *name, const struct stat *status,
                     struct error *err)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(from_fd, name, target, sizeof(target) - 1);

    if (length < 0)
        return error_errno(err, errno, "copy up %s", name);
    target[length] = '\0';
    if (symlinkat(target, to_fd, name) < 0 ||
        fchownat(to_fd, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "copy up %s", name);
    return 0;
}

static int copy_directory(int from_fd, int to_fd, int proc_fd, const char *name,
                          const struct stat *status, int depth, struct error *err)
{
    if (mkdirat(to_fd, name, 0700) < 0)
        return error_errno(err, errno, "copy up %s", name);
    _cleanup_close_ int child_from_fd =
        openat(from_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_close_ int child_to_fd =
        openat(to_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child_from_fd < 0 || child_to_fd < 0)
        return error_errno(err, errno, "copy up %s", name);
    int r = copy_tree(child_from_fd, child_to_fd, proc_fd, depth + 1, err);
    return r < 0 ? r : finish_copy(child_from_fd, child_to_fd, name, status, err);
}

/* Pipes, sockets and devices; no user namespace may make the latter. */
static int copy_node(int to_fd, const char *name, const struct stat *status, struct error *err)
{
    if (mknodat(to_fd, name, status->st_mode, status->st_rdev) < 0)
        return errno == EPERM ? 0 : error_errno(err, errno, "copy up %s", name);
    if (fchownat(to_fd, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "copy up %s", name);
    return 0;
}

static int copy_entry(int from_fd, int to_fd, int proc_fd, const char *name, int depth,
                      struct error *err)
{
    struct stat status;

    if (fstatat(from_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "copy up %s", name);
    if (S_ISDIR(status.st_mode))
        return copy_directory(from_fd, to_fd, proc_fd, name, &status, depth, err);
    if (S_ISREG(status.st_mode))
        return copy_file(from_fd, to_fd, proc_fd, name, &status, err);
    if (S_ISLNK(status.st_mode))
        return copy_link(from_fd, to_fd, name, &status, err);
    return copy_node(to_fd, name, &status, err);
}

static int copy_tree(int from_fd, int to_fd, int proc_fd, int depth, struct error *err)
{
    int r = 0;

    if (depth > COPY_DEPTH_MAX)
        return error_set(err, -ELOOP, "copy up: deeper than %d directories", COPY_DEPTH_MAX);
    int list_fd = openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list_fd < 0)
        return error_errno(err, errno, "copy up");
    _cleanup_closedir_ DIR *directory = fdopendir(list_fd);
    if (!directory) {
        close(list_fd);
        return error_set(err, -ENOMEM, "copy up");
    }
    for (struct dirent *entry; r == 0 && (entry = readdir(directory));) {
        if (!text_equal(entry->d_name, ".") && !text_equal(entry->d_name, ".."))
            r = copy_entry(from_fd, to_fd, proc_fd, entry->d_name, depth, err);
    }
    return r;
}

int mounts_copy_up(int from_fd, int to_fd, int proc_fd, struct error *err)
{
    return copy_tree(from_fd, to_fd, proc_fd, 0, err);
}
