/*
 * A tar becomes files in a folder of a tree: the other direction of pack.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "limits.h"
#include "path.h"
#include "stream.h"
#include "tar.h"
#include "unpack.h"
#include "worker.h"

enum { MAGIC_SIZE = 4 };

static int place_entries(struct unpack *unpack, struct stream *stream, struct error *err)
{
    struct archive_entry *entry;
    struct tar tar;
    int r = tar_open_any(&tar, stream, err);

    if (r < 0)
        return r;
    tar_require_end(&tar);
    while ((r = tar_next(&tar, &entry, err)) > 0) {
        r = unpack_entry(unpack, &tar, entry, err);
        if (r < 0)
            break;
        message_progress("unpack", unpack->bytes);
    }
    tar_close(&tar);
    if (r == 0)
        r = unpack_complete(unpack, err);
    /* So that whoever writes the archive does not fail at its last padding. */
    return r < 0 ? r : stream_drain(stream, err);
}

static int place_archive(const struct unpack_rules *rules, uint64_t *ret_bytes, struct error *err)
{
    _cleanup_stream_ struct stream *input = stream_from_fd(IMAGE_FD_ARCHIVE_IN);
    const void *start;
    size_t length;
    _cleanup_stream_ struct stream *whole = stream_peek(input, MAGIC_SIZE, &start, &length, err);
    struct unpack unpack;

    if (!whole)
        return err->code;
    if (length == 0) /* nothing at all is no damage: some clients send it for no files */
        return 0;
    enum compression compression = compression_detect(start, length);
    _cleanup_stream_ struct stream *plain =
        compression == COMPRESSION_NONE ? NULL : stream_decompress(whole, compression);
    unpack_init(&unpack, IMAGE_FD_TREE);
    unpack.rules = rules;
    int r = place_entries(&unpack, plain ? plain : whole, err);
    *ret_bytes = unpack.bytes;
    unpack_finish(&unpack);
    /* -ENOENT is for a folder that is not there. */
    if (r == -ENOENT)
        err->code = r = -EBADMSG;
    return r;
}

/* Before anything is read, as docker: also where the archive turns out to be empty. */
static int check_writable(const struct place *place, struct error *err)
{
    struct statvfs mount;
    struct stat root;

    if (fstatvfs(place->fd, &mount) < 0 || fstat(IMAGE_FD_TREE, &root) < 0)
        return error_errno(err, errno, "/%s", place->path);
    if (!(mount.f_flag & ST_RDONLY))
        return 0;
    return error_set(err, -EROFS,
                     place->status.st_dev == root.st_dev ? "container rootfs is marked read-only"
                                                         : "mounted volume is marked read-only");
}

/* The clean path of what must be a folder; links in it are followed again at each use. */
static int find_folder(const char *path, char **ret, struct error *err)
{
    _cleanup_free_ char *with_end = xasprintf("%s/", path);
    _cleanup_place_ struct place place = {.parent_fd = -1, .fd = -1};
    int r = place_find(IMAGE_FD_TREE, with_end, &place, err);

    if (r == 0)
        r = check_writable(&place, err);
    if (r == 0)
        *ret = xstrdup(place.path);
    return r;
}

int worker_place(const struct image_worker_place *request, struct image_worker_result **ret,
                 struct error *err)
{
    _cleanup_free_ char *base = NULL;
    struct unpack_rules rules = {
        .keep_kind = request->keep_kind,
        .keep_owner = text_equal(request->owner, "caller"),
        .given_owner = text_equal(request->owner, "given"),
        .uid = request->uid,
        .gid = request->gid,
    };
    int r = find_folder(request->path, &base, err);

    if (r < 0)
        return r;
    rules.base = base;
    *ret = xnew(struct image_worker_result);
    (*ret)->has_bytes = true;
    return place_archive(&rules, &(*ret)->bytes, err);
}
