/*
 * What an image has where a new volume is mounted is copied into the volume (docker's copy-up).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "limits.h"
#include "path.h"
#include "table.h"
#include "worker.h"

enum { COPY_STEP = 64 * 1024 * 1024, XATTR_NAMES_MAX = 64 * 1024, LINKS_MAX = 1000000 };

/* A file with several names, and the first of these in the volume. */
struct copied {
    dev_t device;
    ino_t inode;
    char *path;
};

struct copy {
    int volume_fd;
    struct copied *links;
    size_t links_count;
    struct table places; /* of links, by the image's file */
    uint64_t bytes;
};

static int copy_xattr(int from, int to, const char *name, struct error *err)
{
    char value[XATTR_LENGTH_MAX];

    if (text_starts_with(name, "user.overlay.") ||
        (!text_starts_with(name, "user.") && !text_equal(name, "security.capability")))
        return 0;
    ssize_t length = fgetxattr(from, name, value, sizeof(value));
    if (length < 0)
        return errno == ENODATA ? 0 : error_errno(err, errno, "read the attribute %s", name);
    if (fsetxattr(to, name, value, (size_t)length, 0) < 0 && errno != ENOTSUP)
        return error_errno(err, errno, "set the attribute %s", name);
    return 0;
}

static int copy_xattrs(int from, int to, struct error *err)
{
    char names[XATTR_NAMES_MAX];
    ssize_t length = flistxattr(from, names, sizeof(names));

    if (length < 0)
        return errno == ENOTSUP ? 0 : error_errno(err, errno, "list its attributes");
    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        int r = copy_xattr(from, to, name, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* In the order that keeps set-user-ID bits and capabilities: chown clears them. */
static int copy_metadata(int from, int to, const struct stat *status, struct error *err)
{
    const struct timespec times[2] = {status->st_atim, status->st_mtim};

    if (fchown(to, status->st_uid, status->st_gid) < 0 || fchmod(to, status->st_mode & 07777) < 0)
        return error_errno(err, errno, "set its owner and mode");
    int r = copy_xattrs(from, to, err);
    if (r == 0 && futimens(to, times) < 0)
        r = error_errno(err, errno, "set its time");
    return r;
}

static int copy_data(struct copy *copy, int from, int to, struct error *err)
{
    for (;;) {
        ssize_t n = sendfile(to, from, NULL, COPY_STEP); /* copy_file_range: EXDEV from overlays */
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "copy");
        if (n == 0)
            return 0;
        copy->bytes += (uint64_t)n;
        message_progress("copy the image's files", copy->bytes);
    }
}

/* The folder of what was copied first, as long as it is where it was: a container may have the
 * volume, too, and put links to other places there. Negative: it is not. */
static int open_first_folder(const struct copy *copy, const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *folder = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup(".");

    *ret_name = slash ? slash + 1 : path;
    return file_open_in_root_flags(copy->volume_fd, folder, O_PATH | O_DIRECTORY, 0,
                                   RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

static void note_copied(struct copy *copy, const struct stat *status, const char *path)
{
    if (copy->links_count == LINKS_MAX)
        return;
    table_add(&copy->places, table_hash_file(status), copy->links_count);
    if (copy->links_count % 64 == 0)
        copy->links = xrealloc(copy->links, copy->links_count + 64, sizeof(*copy->links));
    copy->links[copy->links_count++] =
        (struct copied){status->st_dev, status->st_ino, xstrdup(path)};
}

/* Whether the file was copied under another name, and is linked to that now. */
static bool link_copied(struct copy *copy, int to_folder, const char *name,
                        const struct stat *status, const char *path)
{
    size_t cursor = 0, place;

    if (status->st_nlink < 2)
        return false;
    uint64_t hash = table_hash_file(status);
    while (table_next(&copy->places, hash, &cursor, &place)) {
        const struct copied *first = &copy->links[place];
        const char *first_name;
        if (first->inode != status->st_ino || first->device != status->st_dev)
            continue;
        _cleanup_close_ int folder = open_first_folder(copy, first->path, &first_name);
        return folder >= 0 && linkat(folder, first_name, to_folder, name, 0) == 0;
    }
    note_copied(copy, status, path);
    return false;
}

static int copy_file(struct copy *copy, int from_folder, int to_folder, const char *name,
                     const char *path, const struct stat *status, struct error *err)
{
    if (link_copied(copy, to_folder, name, status, path))
        return 0;
    _cleanup_close_ int from =
        openat(from_folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    _cleanup_close_ int to = openat(to_folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (from < 0 || to < 0)
        return error_errno(err, errno, "open");
    int r = copy_data(copy, from, to, err);
    return r < 0 ? r : copy_metadata(from, to, status, err);
}

static int copy_other(int from_folder, int to_folder, const char *name, const struct stat *status,
                      struct error *err)
{
    const struct timespec times[2] = {status->st_atim, status->st_mtim};
    char target[PATH_LENGTH_MAX + 1];
    int r;

    if (S_ISLNK(status->st_mode)) {
        ssize_t n = readlinkat(from_folder, name, target, sizeof(target) - 1);
        if (n < 0)
            return error_errno(err, errno, "read the link");
        target[n] = '\0';
        r = symlinkat(target, to_folder, name);
    } else {
        r = mknodat(to_folder, name, status->st_mode, status->st_rdev);
    }
    if (r < 0 ||
        fchownat(to_folder, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        utimensat(to_folder, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "create");
    return 0;
}

static int copy_folder(struct copy *copy, int from, int to, const char *path, int depth,
                       struct error *err);

static int copy_subfolder(struct copy *copy, int from_folder, int to_folder, const char *name,
                          const char *path, int depth, struct error *err)
{
    if (mkdirat(to_folder, name, 0700) < 0)
        return error_errno(err, errno, "create");
    _cleanup_close_ int from =
        openat(from_folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_close_ int to =
        openat(to_folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0 || to < 0)
        return error_errno(err, errno, "open");
    return copy_folder(copy, from, to, path, depth, err);
}

static int copy_item(struct copy *copy, int from, int to, const char *name, const char *folder,
                     int depth, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s", folder, folder[0] ? "/" : "", name);
    struct stat status;
    int r;

    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "%s", path);
    if (S_ISSOCK(status.st_mode))
        return 0;
    if (S_ISDIR(status.st_mode))
        return copy_subfolder(copy, from, to, name, path, depth + 1, err);
    if (S_ISREG(status.st_mode))
        r = copy_file(copy, from, to, name, path, &status, err);
    else
        r = copy_other(from, to, name, &status, err);
    if (r < 0)
        error_context(err, "%s", path);
    return r;
}

/* The folder's own owner, mode and time last, since filling it changes them. */
static int copy_folder(struct copy *copy, int from, int to, const char *path, int depth,
                       struct error *err)
{
    struct dirent **names = NULL;
    struct stat status;
    int r = 0;

    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "%.200s...: more than %d folders deep", path,
                         PATH_DEPTH_MAX);
    int count = scandirat(from, ".", &names, NULL, alphasort);
    if (count < 0)
        return error_errno(err, errno, "list %s", path);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = copy_item(copy, from, to, name, path, depth, err);
        free(names[i]);
    }
    free(names);
    if (r == 0 && fstat(from, &status) < 0)
        r = error_errno(err, errno, "%s", path);
    return r < 0 ? r : copy_metadata(from, to, &status, err);
}

static int is_empty(int folder_fd, struct error *err)
{
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    int count = 0;

    if (!directory) {
        close_fd(fd);
        return error_errno(err, errno, "list the volume");
    }
    while (count <= 2 && readdir(directory))
        count++;
    return count <= 2;
}

/* A place that the image does not have, or where it has a file, gives nothing. */
static int open_source(const char *path)
{
    int fd = file_open_in_root(IMAGE_FD_TREE, path[0] ? path : ".", O_RDONLY | O_DIRECTORY, 0);

    return fd;
}

static void copy_finish(struct copy *copy)
{
    for (size_t i = 0; i < copy->links_count; i++)
        free(copy->links[i].path);
    free(copy->links);
    table_finish(&copy->places);
}

/* Returns whether there was something to copy. */
static int fill_volume(const struct image_worker_populate_copy *what, struct error *err)
{
    _cleanup_free_ char *path = path_clean(what->path);
    _cleanup_close_ int from = open_source(path);
    _cleanup_close_ int to =
        openat(IMAGE_FD_STAGING, what->volume, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct copy copy = {.volume_fd = to};

    if (from == -ENOENT || from == -ENOTDIR)
        return 0;
    if (from < 0)
        return error_errno(err, -from, "open %s of the image", what->path);
    if (to < 0)
        return error_errno(err, errno, "open the volume %s", what->volume);
    int r = is_empty(to, err);
    if (r <= 0)
        return r;
    r = copy_folder(&copy, from, to, "", 0, err);
    copy_finish(&copy);
    return r < 0 ? r : 1;
}

int worker_populate(const struct image_worker_populate *request, struct image_worker_result **ret,
                    struct error *err)
{
    uint32_t filled = 0;

    for (size_t i = 0; i < request->copies_count; i++) {
        int r = fill_volume(request->copies[i], err);
        if (r < 0) {
            error_context(err, "fill the volume at %s", request->copies[i]->path);
            return r;
        }
        filled += r > 0;
    }
    *ret = xnew(struct image_worker_result);
    (*ret)->populated = filled;
    (*ret)->has_populated = true;
    return 0;
}
