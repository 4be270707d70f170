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
    struct entries entries;
};

static int write_out(struct tar_sink *sink, const void *data, size_t length, struct error *err)
{
    int r = file_write_all(IMAGE_FD_ARCHIVE_OUT, data, length);

    return r < 0 ? error_errno(err, -r, "write the archive") : 0;
}

/* A folder while it is walked through. */
struct folder {
    struct pack *pack;
    int fd;
    const char *path; /* in the archive */
    int depth;
};

static int write_folder(struct pack *pack, int fd, const char *path, int depth, struct error *err);

/* name in folder_fd, as `path` in the archive. */
static int write_item(struct pack *pack, int folder_fd, const char *name, const char *path,
                      int depth, struct error *err)
{
    struct stat status;

    if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    if (!S_ISDIR(status.st_mode))
        return entries_write_file(&pack->entries, folder_fd, name, path, &status, err);
    _cleanup_close_ int fd = entries_open_folder(folder_fd, name, err);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    return write_folder(pack, fd, path, depth + 1, err);
}

static int write_below(void *data, const char *name, struct error *err)
{
    const struct folder *folder = data;
    const char *path = folder->path;
    _cleanup_free_ char *below =
        xasprintf("%s%s%s", path, !path[0] || text_ends_with(path, "/") ? "" : "/", name);

    return write_item(folder->pack, folder->fd, name, below, folder->depth, err);
}

static int write_folder(struct pack *pack, int fd, const char *path, int depth, struct error *err)
{
    struct folder folder = {pack, fd, path, depth};
    int r = entries_write_folder(&pack->entries, fd, path, err);

    return r < 0 ? r : entries_list(fd, path, depth, write_below, &folder, err);
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
    int r = tar_writer_open(&pack->entries.writer, &pack->sink, err);

    if (r == 0)
        r = write_place(pack, place, name, err);
    if (r == 0)
        r = tar_writer_close(&pack->entries.writer, err);
    tar_writer_abort(&pack->entries.writer);
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
    pack->entries.owner_root = request->owner_root;
    pack->entries.data.step = "pack";
    r = pack_place(pack, &place, request->name ? request->name : place.name, err);
    uint64_t bytes = pack->entries.data.bytes;
    entries_finish(&pack->entries);
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
