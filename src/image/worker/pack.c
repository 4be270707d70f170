/*
 * What is at a path of a tree becomes a tar. The tree may be that of a running container: what
 * vanishes meanwhile is left out, what changes its size is cut or filled up.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "entry.h"
#include "limits.h"
#include "path.h"
#include "worker.h"

struct pack {
    struct tar_sink sink; /* first: the sink is the pack */
    struct tar_writer writer;
    bool owner_root;
    struct entry_links links;
    struct entry_data data;
};

static int write_out(struct tar_sink *sink, const void *data, size_t length, struct error *err)
{
    int r = file_write_all(IMAGE_FD_ARCHIVE_OUT, data, length);

    return r < 0 ? error_errno(err, -r, "write the archive") : 0;
}

static struct archive_entry *new_entry(const struct pack *pack, const char *path,
                                       const struct stat *status)
{
    struct stat as = *status;

    if (pack->owner_root)
        as.st_uid = as.st_gid = 0;
    return entry_new(path, &as);
}

static int write_entry(struct pack *pack, struct archive_entry *entry, struct error *err)
{
    int r = tar_writer_entry(&pack->writer, entry, err);

    archive_entry_free(entry);
    return r;
}

static int write_file(struct pack *pack, int folder_fd, const char *name, const char *path,
                      struct error *err)
{
    _cleanup_close_ int fd =
        openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;

    if (fd < 0 && (errno == ENOENT || errno == ELOOP))
        return 0;
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open");
    if (!S_ISREG(status.st_mode))
        return 0;
    struct archive_entry *entry = new_entry(pack, path, &status);
    const char *first = entry_links_find(&pack->links, &status, path);
    if (first) {
        archive_entry_copy_hardlink(entry, first);
        return write_entry(pack, entry, err);
    }
    archive_entry_set_size(entry, status.st_size);
    int r = entry_add_xattrs(entry, fd, err);
    if (r < 0) {
        archive_entry_free(entry);
        return r;
    }
    r = write_entry(pack, entry, err);
    return r < 0 ? r
                 : entry_write_data(&pack->data, &pack->writer, fd, (uint64_t)status.st_size, err);
}

static int write_symlink(struct pack *pack, int folder_fd, const char *name, const char *path,
                         const struct stat *status, struct error *err)
{
    char target[PATH_LENGTH_MAX + 1];
    ssize_t n = readlinkat(folder_fd, name, target, sizeof(target) - 1);

    if (n < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "read the link");
    target[n] = '\0';
    struct archive_entry *entry = new_entry(pack, path, status);
    archive_entry_copy_symlink(entry, target);
    return write_entry(pack, entry, err);
}

static int write_node(struct pack *pack, const char *path, const struct stat *status,
                      struct error *err)
{
    struct archive_entry *entry = new_entry(pack, path, status);

    archive_entry_set_rdev(entry, status->st_rdev);
    return write_entry(pack, entry, err);
}

static int write_folder(struct pack *pack, int fd, const char *path, int depth, struct error *err);

static int open_and_write_folder(struct pack *pack, int folder_fd, const char *name,
                                 const char *path, int depth, struct error *err)
{
    _cleanup_close_ int fd =
        openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
                   ? 0
                   : error_errno(err, errno, "open");
    return write_folder(pack, fd, path, depth, err);
}

/* name in folder_fd, as `path` in the archive. */
static int write_item(struct pack *pack, int folder_fd, const char *name, const char *path,
                      int depth, struct error *err)
{
    struct stat status;
    int r = 0;

    if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    if (S_ISDIR(status.st_mode))
        return open_and_write_folder(pack, folder_fd, name, path, depth + 1, err);
    if (S_ISREG(status.st_mode))
        r = write_file(pack, folder_fd, name, path, err);
    else if (S_ISLNK(status.st_mode))
        r = write_symlink(pack, folder_fd, name, path, &status, err);
    else if (!S_ISSOCK(status.st_mode)) /* a socket without its server is of no use */
        r = write_node(pack, path, &status, err);
    if (r < 0)
        error_context(err, "%s", path);
    return r;
}

static int write_folder_header(struct pack *pack, int fd, const char *path, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_errno(err, errno, "%s", path);
    struct archive_entry *entry = new_entry(pack, path[0] ? path : "./", &status);
    int r = entry_add_xattrs(entry, fd, err);
    if (r < 0) {
        archive_entry_free(entry);
        return error_context(err, "%s", path), r;
    }
    return write_entry(pack, entry, err);
}

static int write_folder(struct pack *pack, int fd, const char *path, int depth, struct error *err)
{
    struct dirent **names = NULL;
    int r = write_folder_header(pack, fd, path, err);

    if (r < 0)
        return r;
    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "%.200s...: more than %d folders deep", path,
                         PATH_DEPTH_MAX);
    int count = scandirat(fd, ".", &names, NULL, alphasort);
    if (count < 0)
        return error_errno(err, errno, "list %s", path);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, "..")) {
            _cleanup_free_ char *below =
                xasprintf("%s%s%s", path, !path[0] || text_ends_with(path, "/") ? "" : "/", name);
            r = write_item(pack, fd, name, below, depth, err);
        }
        free(names[i]);
    }
    free(names);
    return r;
}

static int write_place(struct pack *pack, const struct place *place, const char *name,
                       struct error *err)
{
    if (place->parent_fd >= 0)
        return write_item(pack, place->parent_fd,
                          strrchr(place->path, '/') ? strrchr(place->path, '/') + 1 : place->path,
                          name, 0, err);
    _cleanup_close_ int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open %s", place->path)
                  : write_folder(pack, fd, name, 0, err);
}

static int pack_place(struct pack *pack, const struct place *place, const char *name,
                      struct error *err)
{
    int r = tar_writer_open(&pack->writer, &pack->sink, err);

    if (r == 0)
        r = write_place(pack, place, name, err);
    if (r == 0)
        r = tar_writer_close(&pack->writer, err);
    tar_writer_abort(&pack->writer);
    return r;
}

int worker_pack(const struct image_worker_pack *request, struct image_worker_result **ret,
                struct error *err)
{
    _cleanup_place_ struct place place = {.parent_fd = -1, .fd = -1};
    int r = place_find(IMAGE_FD_TREE, request->path, &place, err);

    if (r < 0)
        return r;
    struct pack *pack = xnew(struct pack);
    pack->sink.write = write_out;
    pack->owner_root = request->owner_root;
    pack->data.step = "pack";
    r = pack_place(pack, &place, request->name ? request->name : place.name, err);
    uint64_t bytes = pack->data.bytes;
    entry_links_finish(&pack->links);
    free(pack);
    if (r < 0)
        return r;
    *ret = xnew(struct image_worker_result);
    (*ret)->stat = place_describe(IMAGE_FD_TREE, &place);
    (*ret)->bytes = bytes;
    (*ret)->has_bytes = true;
    return 0;
}

int worker_stat(const struct image_worker_stat *request, struct image_worker_result **ret,
                struct error *err)
{
    _cleanup_place_ struct place place = {.parent_fd = -1, .fd = -1};
    int r = place_find(IMAGE_FD_TREE, request->path, &place, err);

    if (r < 0)
        return r;
    *ret = xnew(struct image_worker_result);
    (*ret)->stat = place_describe(IMAGE_FD_TREE, &place);
    return 0;
}
