#include "volume_fresh.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

enum { NAME_DIGITS = 16, XATTR_NAMES_MAX = 64 * 1024, XATTR_VALUE_MAX = 64 * 1024 };

static const char fresh_prefix[] = "_new-";
static const char ready[] = "_ready";
static const char data[] = "_data";

char *volume_fresh_path(const char *name)
{
    char digits[NAME_DIGITS + 1];

    text_random_hex(digits, NAME_DIGITS);
    return xasprintf("%s/%s%s", name, fresh_prefix, digits);
}

static int open_folder(int folder_fd, const char *name, struct error *err)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? error_errno(err, errno, "open the volume's %s", name) : fd;
}

/* The volume's folder, with the last part of path. */
static int open_volume(const char *folder, const char *path, const char **ret_name,
                       struct error *err)
{
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *volume = xasprintf("%s/%.*s", folder, (int)(slash - path), path);

    *ret_name = slash + 1;
    return open_folder(AT_FDCWD, volume, err);
}

static int is_empty(int folder_fd, struct error *err)
{
    int fd = open_folder(folder_fd, ".", err);
    _cleanup_closedir_ DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    int count = 0;

    if (!directory && fd >= 0)
        close_fd(fd);
    if (!directory)
        return fd < 0 ? fd : error_errno(err, ENOMEM, "read the volume's folder");
    while (count <= 2 && readdir(directory))
        count++;
    return count <= 2;
}

static int copy_attributes(int from, int to, struct error *err)
{
    _cleanup_free_ char *names = xmalloc(XATTR_NAMES_MAX);
    _cleanup_free_ char *value = xmalloc(XATTR_VALUE_MAX);
    ssize_t length = flistxattr(from, names, XATTR_NAMES_MAX);

    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        ssize_t size =
            text_starts_with(name, "user.") ? fgetxattr(from, name, value, XATTR_VALUE_MAX) : -1;
        if (size >= 0 && fsetxattr(to, name, value, (size_t)size, 0) < 0 && errno != ENOTSUP)
            return error_errno(err, errno, "set the attribute %s of the volume", name);
    }
    return 0;
}

/* Owner, mode, attributes and time of the folder itself. */
static int copy_metadata(int from, int to, struct error *err)
{
    struct stat status;

    if (fstat(from, &status) < 0 || fchown(to, status.st_uid, status.st_gid) < 0 ||
        fchmod(to, status.st_mode & 07777) < 0)
        return error_errno(err, errno, "set the volume's owner and mode");
    int r = copy_attributes(from, to, err);
    const struct timespec times[2] = {status.st_atim, status.st_mtim};
    if (r == 0 && futimens(to, times) < 0)
        r = error_errno(err, errno, "set the volume's time");
    return r;
}

int volume_fresh_begin(const char *folder, const char *path, bool *ret_wanted, struct error *err)
{
    const char *name;
    _cleanup_close_ int volume_fd = open_volume(folder, path, &name, err);
    _cleanup_close_ int data_fd = volume_fd < 0 ? -1 : open_folder(volume_fd, data, err);

    if (data_fd < 0)
        return -ENOENT;
    int empty = is_empty(data_fd, err);
    if (empty <= 0)
        return empty;
    if (mkdirat(volume_fd, name, 0700) < 0)
        return error_errno(err, errno, "create %s/%s", folder, path);
    *ret_wanted = true;
    /* As it is now, where the image has nothing to give. */
    _cleanup_close_ int fresh_fd = open_folder(volume_fd, name, err);
    return fresh_fd < 0 ? fresh_fd : copy_metadata(data_fd, fresh_fd, err);
}

static int move_entries(int from, int to, struct error *err)
{
    struct dirent **names = NULL;
    int count = scandirat(from, ".", &names, NULL, NULL), r = 0;

    if (count < 0)
        return error_errno(err, errno, "list what was copied into the volume");
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = file_rename_free(from, name, to, name);
        /* A container that has the volume, too, was faster. */
        if (r == -EEXIST)
            r = 0;
        if (r < 0 && (!err || !err->code))
            error_errno(err, -r, "move %s into the volume", name);
        free(names[i]);
    }
    free(names);
    return r;
}

static int settle_ready(int volume_fd, struct error *err)
{
    struct stat before;
    _cleanup_close_ int ready_fd = open_folder(volume_fd, ready, err);
    _cleanup_close_ int data_fd = ready_fd < 0 ? -1 : open_folder(volume_fd, data, err);

    if (data_fd < 0)
        return -ENOENT;
    /* Moving changes the time that the copy got from the image. */
    if (fstat(ready_fd, &before) < 0)
        return error_errno(err, errno, "look at what was copied");
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    int r = move_entries(ready_fd, data_fd, err);
    futimens(ready_fd, times);
    if (r == 0)
        r = copy_metadata(ready_fd, data_fd, err);
    return r < 0 ? r : file_remove_tree_at(volume_fd, ready, err);
}

int volume_fresh_settle(const char *folder, const char *path, struct error *err)
{
    const char *name;
    _cleanup_close_ int volume_fd = open_volume(folder, path, &name, err);
    _cleanup_close_ int data_fd = volume_fd < 0 ? -1 : open_folder(volume_fd, data, err);

    if (data_fd < 0)
        return -ENOENT;
    int empty = is_empty(data_fd, err);
    if (empty < 0)
        return empty;
    if (!empty)
        return file_remove_tree_at(volume_fd, name, err);
    if (renameat(volume_fd, name, volume_fd, ready) < 0)
        return error_errno(err, errno, "rename %s/%s", folder, path);
    return settle_ready(volume_fd, err);
}

void volume_fresh_discard(const char *folder, const char *path)
{
    _cleanup_free_ char *whole = xasprintf("%s/%s", folder, path);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (file_remove_tree_at(AT_FDCWD, whole, &err) < 0)
        log_failure(LOG_WARNING, &err, "half of a copy is left");
}

void volume_fresh_recover(int folder_fd, const char *name)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    int r = 0;

    for (struct dirent *entry; r >= 0 && directory && (entry = readdir(directory));) {
        if (text_starts_with(entry->d_name, fresh_prefix))
            r = file_remove_tree_at(fd, entry->d_name, &err);
        else if (text_equal(entry->d_name, ready))
            r = settle_ready(fd, &err);
    }
    if (r < 0)
        log_failure(LOG_ERROR, &err, "what was being copied into volume %s is left", name);
}
