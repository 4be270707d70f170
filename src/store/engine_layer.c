/*
 * The layer that every container has over its image's: what programs look for to know that they are
 * in a container, where they look for mounts, and places for the files that the engine mounts in
 * /etc. It is no part of the image, and nothing in it is a change of the container. The folder /etc
 * in it decides what /etc is seen as, and has therefore the mode and the owner of the image's.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "internal.h"

enum { FOLDER_MODE = 0755, FILE_MODE = 0755 };

static int make_folder(int parent_fd, const char *name, const struct stat *as, struct error *err)
{
    if (mkdirat(parent_fd, name, 0700) < 0)
        return errno == EEXIST ? 0 : error_errno(err, errno, "create %s", name);
    if (fchownat(parent_fd, name, as->st_uid, as->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(parent_fd, name, as->st_mode & 07777, 0) < 0)
        return error_errno(err, errno, "set the mode of %s", name);
    return 0;
}

static int make_file(int folder_fd, const char *name, struct error *err)
{
    _cleanup_close_ int fd =
        openat(folder_fd, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);

    if (fd < 0 || fchmod(fd, FILE_MODE) < 0)
        return error_errno(err, errno, "create %s", name);
    return 0;
}

static const struct stat usual_etc = {.st_mode = S_IFDIR | FOLDER_MODE};

/* What is there already stays: a container may have it mounted. */
static int make_layer(int parent_fd, const char *name, const struct stat *etc, struct error *err)
{
    static const char *const files[] = {".dockerenv", "etc/hostname", "etc/hosts",
                                        "etc/resolv.conf"};
    int r = make_folder(parent_fd, name, &usual_etc, err);

    if (r < 0)
        return r;
    _cleanup_close_ int fd =
        openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", name);
    r = make_folder(fd, "etc", etc, err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++)
        r = make_file(fd, files[i], err);
    if (r == 0 && symlinkat("/proc/mounts", fd, "etc/mtab") < 0 && errno != EEXIST)
        r = error_errno(err, errno, "create etc/mtab");
    return r;
}

int engine_layer_open(struct store *store, struct error *err)
{
    int r = make_layer(store->layers_fd, STORE_ENGINE_LAYER, &usual_etc, err);

    return r < 0 ? error_context(err, "%s/layers/" STORE_ENGINE_LAYER, store->root), r : 0;
}

/* As the image has it; where that is no folder, containers get one that is. */
static int find_etc(struct store *store, char *const *layers, struct stat *ret, struct error *err)
{
    *ret = usual_etc;
    for (; layers && *layers; layers++) {
        _cleanup_free_ char *path = xasprintf("%s/etc", *layers);
        struct stat status;
        if (fstatat(store->layers_fd, path, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            if (S_ISDIR(status.st_mode))
                *ret = status;
            return 0;
        }
        if (errno != ENOENT)
            return error_errno(err, errno, "layer %s/layers/%s", store->root, path);
    }
    return 0;
}

int engine_layer_for(struct store *store, char *const *layers, const char *container, char **ret,
                     struct error *err)
{
    struct stat etc;
    int r = find_etc(store, layers, &etc, err);

    if (r < 0)
        return r;
    if (etc.st_uid == 0 && etc.st_gid == 0 && (etc.st_mode & 07777) == FOLDER_MODE) {
        *ret = xstrdup(STORE_ENGINE_LAYER);
        return 0;
    }
    _cleanup_free_ char *own = xasprintf("%s/engine", container);
    r = make_layer(store->containers_fd, own, &etc, err);
    if (r < 0)
        return error_context(err, "%s/containers/%s", store->root, own), r;
    *ret = xasprintf("../containers/%s", own);
    return 0;
}
