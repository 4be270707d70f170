#include "local_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "libexec.h"

/* --- paths ------------------------------------------------------------------------------------ */

static bool ends_in_dot(const char *path)
{
    return text_equal(path, ".") || text_ends_with(path, "/.");
}

/* Without slashes at the end, but for "/" itself. Owned. */
static char *without_slashes(const char *path)
{
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    return xstrndup(path, length);
}

/* The folder that path is in, and what it is called there; both owned. */
static void split_path(const char *path, char **ret_folder, char **ret_name)
{
    _cleanup_free_ char *clean = without_slashes(path);
    char *slash = strrchr(clean, '/');

    *ret_name = xstrdup(slash ? slash + 1 : clean);
    *ret_folder = !slash ? xstrdup(".") : xstrndup(clean, (size_t)(slash - clean) + 1);
}

static int open_folder(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? error_errno(err, errno, "%s", path) : fd;
}

/* --- what is copied --------------------------------------------------------------------------- */

/* In the folder that it is in; followed: in that of the file that the links lead to. */
static int open_file_source(const char *path, bool followed, struct local_source *source,
                            struct error *err)
{
    _cleanup_free_ char *real = followed ? realpath(path, NULL) : xstrdup(path);
    _cleanup_free_ char *folder = NULL;

    if (!real)
        return error_errno(err, errno, "%s", path);
    split_path(real, &folder, &source->path);
    source->fd = open_folder(folder, err);
    return source->fd < 0 ? source->fd : 0;
}

int local_source_open(const char *path, bool follow, struct local_source *ret, struct error *err)
{
    bool dot = ends_in_dot(path), followed = follow || dot || text_ends_with(path, "/");
    _cleanup_free_ char *folder = NULL;
    struct stat status;

    *ret = (struct local_source){.fd = -1};
    if ((followed ? stat(path, &status) : lstat(path, &status)) < 0)
        return error_errno(err, errno, "%s", path);
    ret->folder = S_ISDIR(status.st_mode);
    split_path(path, &folder, &ret->name);
    if (dot || !ret->name[0] || text_equal(ret->name, "..")) {
        free(ret->name);
        ret->name = xstrdup(".");
    }
    if (!ret->folder)
        return open_file_source(path, followed, ret, err);
    ret->path = xstrdup("/.");
    ret->fd = open_folder(path, err);
    return ret->fd < 0 ? ret->fd : 0;
}

void local_source_finish(struct local_source *source)
{
    close_fd(source->fd);
    free(source->path);
    free(source->name);
}

/* --- where it goes ---------------------------------------------------------------------------- */

int local_target_open(const char *path, bool source_is_folder, struct local_target *ret,
                      struct error *err)
{
    _cleanup_free_ char *folder = NULL;
    struct stat status;
    bool there = stat(path, &status) == 0;

    *ret = (struct local_target){.fd = -1};
    if (there && S_ISDIR(status.st_mode)) {
        ret->fd = open_folder(path, err);
        return ret->fd < 0 ? ret->fd : 0;
    }
    if (there && !S_ISREG(status.st_mode))
        return error_set(err, -EINVAL, "%s is neither a file nor a folder", path);
    if (there && source_is_folder)
        return error_set(err, -ENOTDIR, "cannot copy a folder over the file %s", path);
    if (!there && !source_is_folder && text_ends_with(path, "/"))
        return error_set(err, -ENOENT, "%s: no such directory", path);
    split_path(path, &folder, &ret->name);
    ret->fd = open_folder(folder, err);
    return ret->fd < 0 ? ret->fd : 0;
}

void local_target_finish(struct local_target *target)
{
    close_fd(target->fd);
    free(target->name);
}

/* --- the worker ------------------------------------------------------------------------------- */

static struct image_worker_tree own_tree = {.kind = (char *)"own"};

/* own: the worker's end of the pipe. */
static int start(struct image_worker_request *request, int tree_fd, int ends[2], int own,
                 struct image_worker **ret, int *ret_fd, struct error *err)
{
    _cleanup_free_ char *program = libexec_find("cloche-image");
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;

    spec.program = program;
    spec.request = request;
    spec.archive_fd = ends[own];
    spec.tree_fd = tree_fd;
    spec.log_fd = STDERR_FILENO;
    int r = image_worker_start(&spec, ret, err);
    close_fd(ends[own]);
    if (r < 0)
        close_fd(ends[!own]);
    else
        *ret_fd = ends[!own];
    return r;
}

int local_pack(const struct local_source *source, const char *name, bool keep_owner,
               struct image_worker **ret, int *ret_fd, struct error *err)
{
    struct image_worker_pack pack = {
        .tree = &own_tree,
        .path = source->path,
        .name = (char *)(uintptr_t)name,
        .owner_root = !keep_owner,
        .has_owner_root = true,
    };
    struct image_worker_request request = {.pack = &pack};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    return start(&request, source->fd, ends, 1, ret, ret_fd, err);
}

int local_place(const struct local_target *target, bool keep_owner, struct image_worker **ret,
                int *ret_fd, struct error *err)
{
    struct image_worker_place place = {
        .tree = &own_tree,
        .path = (char *)"/",
        .keep_kind = true,
        .has_keep_kind = true,
        .owner = (char *)(keep_owner ? "archive" : "caller"),
    };
    struct image_worker_request request = {.place = &place};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    return start(&request, target->fd, ends, 0, ret, ret_fd, err);
}
