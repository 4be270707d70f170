/*
 * What a container has changed, by its upper folder: each of its files is looked up in the layers
 * below, folder by folder along the same path, so that nothing else of the layers is read.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/snapshot.h>

#include "internal.h"

enum { DEPTH_MAX = 1000, LOWER_FOLDERS_MAX = 8192 /* open at a time */ };

/* A folder of the upper one, and those of the same path below it that it does not hide. */
struct level {
    int upper_fd;
    int *lower_fds; /* highest first */
    size_t lower_count;
};

struct changes {
    struct store_change *items;
    size_t count;
    size_t open; /* lower folders */
};

static void level_finish(struct changes *changes, struct level *level)
{
    for (size_t i = 0; i < level->lower_count; i++)
        close_fd(level->lower_fds[i]);
    changes->open -= level->lower_count;
    free(level->lower_fds);
    close_fd(level->upper_fd);
}

static void add(struct changes *changes, const char *path, enum store_change_kind kind)
{
    if (changes->count % 64 == 0)
        changes->items = xrealloc(changes->items, changes->count + 64, sizeof(*changes->items));
    changes->items[changes->count++] = (struct store_change){xstrdup(path), kind};
}

static bool is_whiteout(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == makedev(0, 0);
}

static bool is_opaque(int folder_fd)
{
    char value;

    return fgetxattr(folder_fd, "user.overlay.opaque", &value, 1) == 1 && value == 'y';
}

/* Whether the layers below have something of this name. */
static bool is_below(const struct level *level, const char *name)
{
    struct stat status;

    for (size_t i = 0; i < level->lower_count; i++)
        if (fstatat(level->lower_fds[i], name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            return !is_whiteout(&status);
    return false;
}

static int open_folder(int folder_fd, const char *name)
{
    return openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int descend(struct changes *changes, const struct level *level, const char *name,
                   struct level *ret, struct error *err)
{
    struct stat status;

    *ret = (struct level){.upper_fd = open_folder(level->upper_fd, name)};
    if (ret->upper_fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : error_errno(err, errno, "open %s", name);
    ret->lower_fds = xnew_array(int, level->lower_count + 1);
    bool hidden = is_opaque(ret->upper_fd);
    for (size_t i = 0; i < level->lower_count && !hidden; i++) {
        if (fstatat(level->lower_fds[i], name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        int fd = S_ISDIR(status.st_mode) ? open_folder(level->lower_fds[i], name) : -1;
        hidden = fd < 0 || is_opaque(fd);
        if (fd < 0)
            continue;
        ret->lower_fds[ret->lower_count++] = fd;
        if (++changes->open > LOWER_FOLDERS_MAX)
            return error_set(err, -EMFILE, "the folders are too deep for so many layers");
    }
    return 1;
}

/* Places that the runtime makes for what it mounts in an image that lacks them. */
static bool is_mount_place(const char *path)
{
    static const char *const places[] = {"/dev",  "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
                                         "/proc", "/sys"};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (text_equal(places[i], path))
            return true;
    return false;
}

/* /etc is copied up for the sake of those places: that is no change when nothing else is in it. */
static bool is_untouched_etc(const struct level *level, const char *path, const struct stat *upper)
{
    struct stat lower;

    if (!text_equal(path, "/etc"))
        return false;
    for (size_t i = 0; i < level->lower_count; i++)
        if (fstatat(level->lower_fds[i], "etc", &lower, AT_SYMLINK_NOFOLLOW) == 0)
            return lower.st_mode == upper->st_mode && lower.st_uid == upper->st_uid &&
                   lower.st_gid == upper->st_gid;
    return false;
}

static int walk(struct changes *changes, const struct level *level, const char *path, int depth,
                struct error *err);

static int visit(struct changes *changes, const struct level *level, const char *folder,
                 const char *name, int depth, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", folder, name);
    struct stat status;
    struct level below;

    if (fstatat(level->upper_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || is_mount_place(path))
        return 0; /* gone: the container may be running */
    bool known = is_below(level, name);
    if (is_whiteout(&status)) {
        if (known)
            add(changes, path, STORE_CHANGE_DELETED);
        return 0;
    }
    add(changes, path, known ? STORE_CHANGE_MODIFIED : STORE_CHANGE_ADDED);
    size_t count = changes->count;
    if (!S_ISDIR(status.st_mode))
        return 0;
    if (depth >= DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "%.200s...: more than %d folders deep", path,
                         DEPTH_MAX);
    int r = descend(changes, level, name, &below, err);
    if (r > 0)
        r = walk(changes, &below, path, depth + 1, err);
    level_finish(changes, &below);
    if (changes->count == count && is_untouched_etc(level, path, &status))
        free(changes->items[--changes->count].path);
    return r;
}

static int walk(struct changes *changes, const struct level *level, const char *path, int depth,
                struct error *err)
{
    struct dirent **names = NULL;
    int r = 0, count = scandirat(level->upper_fd, ".", &names, NULL, alphasort);

    if (count < 0)
        return error_errno(err, errno, "list %s", path);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r >= 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = visit(changes, level, path, name, depth, err);
        free(names[i]);
    }
    free(names);
    return r < 0 ? r : 0;
}

static int open_layer(struct store *store, const char *name, struct changes *changes,
                      struct level *level, struct error *err)
{
    int fd = open_folder(store->layers_fd, name);

    if (fd < 0)
        return error_errno(err, errno, "open layer %s", name);
    level->lower_fds[level->lower_count++] = fd;
    changes->open++;
    return 0;
}

/* The engine's, and those of the container's image, highest first. */
static int open_layers(struct store *store, const char *container, struct changes *changes,
                       struct level *level, struct error *err)
{
    _cleanup_strv_ char **layers = NULL;
    _cleanup_free_ char *first = NULL;
    int r = snapshot_layers(store, container, &layers, err);

    if (r == 0)
        r = engine_layer_for(store, layers, container, &first, err);
    if (r < 0)
        return r;
    level->lower_fds = xnew_array(int, strv_length(layers) + 1);
    r = open_layer(store, first, changes, level, err);
    for (size_t i = 0; r == 0 && layers && layers[i]; i++)
        r = open_layer(store, layers[i], changes, level, err);
    return r;
}

int store_snapshot_changes(struct store *store, const char *container, struct store_change **ret,
                           size_t *ret_count, struct error *err)
{
    struct level root = {.upper_fd = -1};
    struct changes changes = {0};
    int r = store_snapshot_open_upper(store, container, &root.upper_fd, err);

    if (r == 0)
        r = open_layers(store, container, &changes, &root, err);
    if (r == 0)
        r = walk(&changes, &root, "", 0, err);
    level_finish(&changes, &root);
    if (r < 0) {
        store_changes_free(changes.items, changes.count);
        return r;
    }
    *ret = changes.items;
    *ret_count = changes.count;
    return 0;
}

void store_changes_free(struct store_change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(changes[i].path);
    free(changes);
}
