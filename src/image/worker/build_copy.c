/*
 * COPY, ADD and WORKDIR: the sources are found in one folder, and go into the mounted root of a
 * container that stands on the image so far; what that left in its upper folder is the layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "building.h"
#include "worker.h"

struct copying {
    const struct build_copy *copy;
    struct owner owner;
    mode_t mode;
    struct transfer transfer;
    struct sources sources;
    char *destination; /* owned; links in it are followed */
    bool is_folder;    /* it has a slash at its end, or is a folder already */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int make_parent(struct copying *copying, const char *path, struct error *err)
{
    const struct owner root = {0, 0};
    _cleanup_free_ char *parent = xstrndup(path, (size_t)(base_name(path) - path));
    bool made;

    return transfer_make_folder(&copying->transfer, parent,
                                copying->transfer.owner ? copying->transfer.owner : &root, &made,
                                err);
}

/* Where a file of this name goes; its folder exists afterwards. */
static int place_file(struct copying *copying, const char *name, char **ret, struct error *err)
{
    char *path = copying->is_folder
                     ? xasprintf("%s%s%s", copying->destination,
                                 text_ends_with(copying->destination, "/") ? "" : "/", name)
                     : xstrdup(copying->destination);
    int r = make_parent(copying, path, err);

    if (r < 0)
        free(path);
    else
        *ret = path;
    return r;
}

static int make_destination(struct copying *copying, bool own, int *ret_fd, struct error *err)
{
    bool made;
    int r = transfer_make_folder(&copying->transfer, copying->destination, NULL, &made, err);

    if (r < 0)
        return r;
    _cleanup_close_ int fd =
        file_open_in_root(IMAGE_FD_TARGET, copying->destination, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return error_errno(err, -fd, "open %s", copying->destination);
    if (made && own && copying->transfer.owner &&
        fchown(fd, copying->transfer.owner->uid, copying->transfer.owner->gid) < 0)
        return error_errno(err, errno, "set the owner of %s", copying->destination);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int copy_source(struct copying *copying, const char *source, struct error *err)
{
    struct stat status;
    _cleanup_close_ int place = source_open(IMAGE_FD_SOURCE, source, &status, err);
    _cleanup_close_ int folder = -1;
    _cleanup_free_ char *path = NULL;
    int r;

    if (place < 0)
        return place;
    _cleanup_close_ int from =
        S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)
            ? file_open_in_root(IMAGE_FD_SOURCE, source, O_RDONLY | O_NONBLOCK, 0)
            : steal_fd(&place);
    if (from < 0)
        return error_errno(err, -from, "open %s", source);
    if (S_ISDIR(status.st_mode)) {
        r = make_destination(copying, true, &folder, err);
        return r < 0 ? r : transfer_folder(&copying->transfer, from, copying->destination, err);
    }
    if (copying->copy->extract && S_ISREG(status.st_mode) && archive_is(from)) {
        r = make_destination(copying, false, &folder, err);
        return r < 0 ? r : archive_unpack(from, folder, err);
    }
    r = place_file(copying, base_name(source), &path, err);
    return r < 0 ? r : transfer_file(&copying->transfer, from, path, err);
}

static int copy_text(struct copying *copying, const struct build_file *file, struct error *err)
{
    _cleanup_free_ char *path = NULL;
    int r = place_file(copying, file->name, &path, err);

    return r < 0 ? r : transfer_text(&copying->transfer, file->content, path, err);
}

/* What was fetched is never unpacked, as docker has it. */
static int copy_fetched(struct copying *copying, const struct image_worker_fetched *fetched,
                        struct error *err)
{
    _cleanup_close_ int from =
        openat(IMAGE_FD_STAGING, fetched->file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    _cleanup_free_ char *path = NULL;

    if (from < 0)
        return error_errno(err, errno, "open what was fetched");
    if (fetched->name && strchr(fetched->name, '/'))
        return error_set(err, -EINVAL, "'%s' is no name for a file", fetched->name);
    if (copying->is_folder && text_empty(fetched->name))
        return error_set(err, -EINVAL, "cannot determine filename for source %s", fetched->url);
    int r = place_file(copying, fetched->name, &path, err);
    return r < 0 ? r : transfer_file(&copying->transfer, from, path, err);
}

/* What docker's dispatchCopy() decides: from another image files keep their owner, unless another
 * one is asked for; else they belong to root. */
static int find_owner(struct copying *copying, bool in_context, struct error *err)
{
    const struct build_copy *copy = copying->copy;
    int r = 0;

    if (copy->chown)
        r = owner_find(IMAGE_FD_TARGET, copy->chown, &copying->owner, err);
    if (copy->chown || in_context)
        copying->transfer.owner = &copying->owner;
    if (copy->has_chmod) {
        copying->mode = copy->chmod;
        copying->transfer.mode = &copying->mode;
    }
    return r;
}

static int find_destination(struct copying *copying, struct error *err)
{
    const char *path = copying->copy->destination;
    int r = transfer_resolve(&copying->transfer, path, &copying->destination, err);

    if (r < 0)
        return r;
    _cleanup_close_ int fd =
        file_open_in_root(IMAGE_FD_TARGET, copying->destination, O_PATH | O_DIRECTORY, 0);
    copying->is_folder = fd >= 0 || text_ends_with(path, "/");
    return 0;
}

static int copy_all(struct copying *copying, const struct image_worker_copy *request,
                    bool in_context, struct error *err)
{
    int r = find_owner(copying, in_context, err);

    if (r == 0)
        r = find_destination(copying, err);
    for (size_t i = 0; r == 0 && i < copying->sources.count; i++)
        r = copy_source(copying, copying->sources.paths[i], err);
    for (size_t i = 0; r == 0 && i < copying->copy->files_count; i++)
        r = copy_text(copying, copying->copy->files[i], err);
    for (size_t i = 0; r == 0 && i < request->fetched_count; i++)
        r = copy_fetched(copying, request->fetched[i], err);
    return r;
}

/* Of an image's files also the owners count where they are kept. */
static bool owners_count(const struct build_copy *copy, bool in_context)
{
    return !in_context && !copy->chown;
}

static int copy_sources(const struct image_worker_copy *request, struct image_worker_result *result,
                        struct error *err)
{
    struct copying copying = {.copy = request->copy, .transfer = {.target_fd = IMAGE_FD_TARGET}};
    bool in_context = !request->copy->has_from_stage && !request->copy->from_image;
    char digest[72];
    int r = sources_find(IMAGE_FD_SOURCE, request->copy, in_context, &copying.sources, err);

    if (r == 0 && request->probe) {
        r = sources_digest(IMAGE_FD_SOURCE, &copying.sources, request->copy,
                           owners_count(request->copy, in_context), digest, err);
        result->digest = r == 0 ? xstrdup(digest) : NULL;
    } else if (r == 0) {
        r = copy_all(&copying, request, in_context, err);
    }
    sources_finish(&copying.sources);
    transfer_finish(&copying.transfer);
    free(copying.destination);
    if (r < 0)
        error_context(err, "%s failed", request->copy->word);
    return r;
}

static int make_folder(const char *path, struct error *err)
{
    struct transfer transfer = {.target_fd = IMAGE_FD_TARGET};
    const struct owner root = {0, 0};
    bool made;

    return transfer_make_folder(&transfer, path, &root, &made, err);
}

int worker_copy(const struct image_worker_copy *request, struct image_worker_result **ret,
                struct error *err)
{
    struct image_worker_result *result = xnew(struct image_worker_result);
    int r =
        request->folder ? make_folder(request->folder, err) : copy_sources(request, result, err);

    if (r == 0 && !request->probe)
        r = commit_folder(IMAGE_FD_UPPER, true, &result->layer, err);
    if (r < 0)
        image_worker_result_free(result);
    else
        *ret = result;
    return r;
}
