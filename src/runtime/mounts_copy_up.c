/*
 * tmpcopyup: a tmpfs starts with the content of the directory it covers. Reads the image's files
 * through descriptors below the covered directory only, follows no links, leaves devices out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "mounts.h"

enum {
    COPY_DEPTH_MAX = 64,
    COPY_CHUNK = 1 << 20,
};

static int copy_tree(int from_fd, int to_fd, int depth, struct error *err);

static int copy_file(int from_fd, int to_fd, const char *name, const struct stat *status,
                     struct error *err)
{
    _cleanup_close_ int in_fd =
        openat(from_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    _cleanup_close_ int out_fd =
        openat(to_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    ssize_t n;

    if (in_fd < 0 || out_fd < 0)
        return error_errno(err, errno, "copy up %s", name);
    while ((n = sendfile(out_fd, in_fd, NULL, COPY_CHUNK)) > 0)
        ;
    if (n < 0 || fchown(out_fd, status->st_uid, status->st_gid) < 0 ||
        fchmod(out_fd, status->st_mode & 07777) < 0)
        return error_errno(err, errno, "copy up %s", name);
    return 0;
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

static int copy_directory(int from_fd, int to_fd, const char *name, const struct stat *status,
                          int depth, struct error *err)
{
    if (mkdirat(to_fd, name, 0700) < 0)
        return error_errno(err, errno, "copy up %s", name);
    _cleanup_close_ int child_from_fd =
        openat(from_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_close_ int child_to_fd =
        openat(to_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child_from_fd < 0 || child_to_fd < 0)
        return error_errno(err, errno, "copy up %s", name);
    int r = copy_tree(child_from_fd, child_to_fd, depth + 1, err);
    if (r < 0)
        return r;
    if (fchown(child_to_fd, status->st_uid, status->st_gid) < 0 ||
        fchmod(child_to_fd, status->st_mode & 07777) < 0)
        return error_errno(err, errno, "copy up %s", name);
    return 0;
}

static int copy_entry(int from_fd, int to_fd, const char *name, int depth, struct error *err)
{
    struct stat status;

    if (fstatat(from_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "copy up %s", name);
    if (S_ISDIR(status.st_mode))
        return copy_directory(from_fd, to_fd, name, &status, depth, err);
    if (S_ISREG(status.st_mode))
        return copy_file(from_fd, to_fd, name, &status, err);
    if (S_ISLNK(status.st_mode))
        return copy_link(from_fd, to_fd, name, &status, err);
    return 0;
}

static int copy_tree(int from_fd, int to_fd, int depth, struct error *err)
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
            r = copy_entry(from_fd, to_fd, entry->d_name, depth, err);
    }
    return r;
}

int mounts_copy_up(int from_fd, int to_fd, struct error *err)
{
    return copy_tree(from_fd, to_fd, 0, err);
}
