/*
 * Bind mounts, and changes of what is mounted already.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "kernel.h"
#include "mounts.h"
#include "sync.h"

static bool has_own_users(const struct container *container)
{
    return container_own_namespaces(container) & CLONE_NEWUSER;
}

static unsigned tree_flags(const struct mount_entry *entry)
{
    return OPEN_TREE_CLONE | (entry->bind_recursive ? AT_RECURSIVE : 0) |
           (entry->options.source_nofollow || entry->options.copy_symlink ? AT_SYMLINK_NOFOLLOW
                                                                          : 0);
}

static int open_source(const struct mount_entry *entry)
{
    return kernel_open_tree(AT_FDCWD, entry->source, tree_flags(entry));
}

/* A mount from outside must not carry ours back there: as a copy in the container's mount namespace
 * it would be a slave (mount_namespaces(7)), as one in the caller's it is the original's peer. */
static int make_slave(int tree_fd, struct error *err)
{
    struct mount_attr attr = {.propagation = MS_SLAVE};
    int r = kernel_mount_setattr(tree_fd, AT_RECURSIVE, &attr);

    return r < 0 ? error_errno(err, -r, "take a copy out of the host's propagation") : 0;
}

static int open_entry(struct mount_entry *entry, struct error *err)
{
    if (!entry->bind || entry->options.remount || entry->source_in_root)
        return 0;
    entry->source_fd = open_source(entry);
    if (entry->source_fd < 0)
        return error_errno(err, -steal_fd(&entry->source_fd), "source: open %s", entry->source);
    return make_slave(entry->source_fd, err);
}

int mounts_open_sources(struct container *container, struct error *err)
{
    int r = container->root_tree_fd =
        kernel_open_tree(AT_FDCWD, container->rootfs, OPEN_TREE_CLONE | AT_RECURSIVE);

    if (r < 0)
        return error_errno(err, -r, "root.path: open %s", container->rootfs);
    r = make_slave(container->root_tree_fd, err);
    for (size_t i = 0; r == 0 && i < container->mounts_count; i++) {
        r = open_entry(&container->mounts[i], err);
        if (r < 0) {
            error_context(err, "mounts[%zu] (%s)", i, container->mounts[i].mount->destination);
            return r;
        }
    }
    return r;
}

static int prepare_mapping(struct container *container, struct mount_entry *entry,
                           struct error *err)
{
    int r = 0;

    if (entry->mount->uid_mappings_count || entry->options.id_map_ranges)
        r = entry->user_fd = mounts_new_mapping(container, entry, err);
    if (r >= 0 && container->map_fds[0] < 0 && mounts_needs_mapping_by_parent(container, entry))
        r = sync_pair(&container->map_fds[0], &container->map_fds[1], err);
    if (r < 0 || entry->source_fd < 0)
        return r < 0 ? r : 0;
    /* Without any yet it is the namespace that the container will have (mounts_map_users). */
    int user_fd = mounts_mapping_of(container, entry);
    return user_fd < 0 ? 0 : mounts_set_mapping(entry->source_fd, entry, user_fd, err);
}

int mounts_prepare(struct container *container, struct error *err)
{
    int r = 0;

    /* The child of an ordinary user opens them itself, and in a mount namespace that is joined. */
    if (has_own_users(container) && !container->unprivileged &&
        !(container->namespaces.join & CLONE_NEWNS))
        r = mounts_open_sources(container, err);
    for (size_t i = 0; r == 0 && i < container->mounts_count; i++) {
        struct mount_entry *entry = &container->mounts[i];
        r = entry->options.id_map ? prepare_mapping(container, entry, err) : 0;
        if (r < 0)
            error_context(err, "mounts[%zu] (%s)", i, entry->mount->destination);
    }
    return r;
}

int mounts_prepare_running(struct container *container, struct error *err)
{
    for (size_t i = 0; i < container->mounts_count; i++) {
        struct mount_entry *entry = &container->mounts[i];
        int r = open_entry(entry, err);
        if (r == 0 && entry->options.id_map)
            r = prepare_mapping(container, entry, err);
        if (r < 0) {
            error_context(err, "mounts[%zu] (%s)", i, entry->mount->destination);
            return r;
        }
    }
    return mounts_map_users(container, err);
}

static int open_source_in_root(struct container *container, const struct mount_entry *entry)
{
    _cleanup_close_ int fd =
        file_open_in_root_flags(container->root_fd, entry->source,
                                O_PATH | (tree_flags(entry) & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0),
                                0, container->running ? RESOLVE_NO_SYMLINKS : 0);

    return fd < 0 ? fd : kernel_open_tree(fd, "", tree_flags(entry) | AT_EMPTY_PATH);
}

/* *ret_emulate_locks: see mounts_set_bind_flags. A copy that is made in here has the locks of the
 * container's user namespace, which keep what the host has mounted read-only or nosuid so; the
 * caller's copy is for what cannot be reached from here. */
static int take_source(struct container *container, struct mount_entry *entry,
                       bool *ret_emulate_locks, struct error *err)
{
    int fd = -1;

    *ret_emulate_locks = false;
    /* The process is where paths are the container's: what was opened before is all there is. */
    if (container->running && !entry->source_in_root) {
        *ret_emulate_locks = has_own_users(container) && !container->unprivileged;
        return entry->source_fd;
    }
    if (entry->source_in_root)
        fd = open_source_in_root(container, entry);
    else if (!entry->options.id_map || entry->source_fd < 0)
        fd = open_source(entry);
    if (fd >= 0)
        return fd;
    if (entry->source_fd < 0)
        return error_errno(err, -fd, "source: open %s", entry->source);
    *ret_emulate_locks = true;
    return entry->source_fd;
}

static int map_source(struct container *container, const struct mount_entry *entry, int source_fd,
                      struct error *err)
{
    if (container->running)
        return 0; /* mounts_prepare_running */
    if (mounts_needs_mapping_by_parent(container, entry))
        return mounts_ask_mapping(container, entry, source_fd, err);
    if (!has_own_users(container))
        return mounts_set_mapping(source_fd, entry, entry->user_fd, err);
    return 0; /* by the parent, before */
}

/* A link is made anew, with the same text. */
static int copy_symlink(struct container *container, const struct mount_entry *entry, int source_fd,
                        struct error *err)
{
    char target[PATH_MAX], there[PATH_MAX];
    const char *name;
    ssize_t length = readlinkat(source_fd, "", target, sizeof(target) - 1);

    if (length < 0)
        return error_errno(err, errno, "source: read the link %s", entry->source);
    target[length] = '\0';
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(container->root_fd, entry->destination, 0755, &name, err);
    if (parent_fd < 0)
        return parent_fd;
    if (symlinkat(target, parent_fd, name) == 0)
        return 0;
    if (errno != EEXIST)
        return error_errno(err, errno, "destination: link %s", entry->destination);
    ssize_t found = readlinkat(parent_fd, name, there, sizeof(there));
    if (found != length || memcmp(target, there, (size_t)length) != 0)
        return error_set(err, -EEXIST, "destination: %s is there and is no link to %s",
                         entry->destination, target);
    return 0;
}

/* entry->source_fd is the source. */
static int attach_source(struct container *container, struct mount_entry *entry, bool emulate_locks,
                         struct error *err)
{
    struct stat source, destination;
    int source_fd = entry->source_fd;

    if (fstat(source_fd, &source) < 0)
        return error_errno(err, errno, "source: stat %s", entry->source);
    if (entry->options.copy_symlink && S_ISLNK(source.st_mode))
        return copy_symlink(container, entry, source_fd, err);
    _cleanup_close_ int fd =
        mounts_open_destination(container, entry, S_ISDIR(source.st_mode), NULL, err);
    if (fd < 0)
        return fd;
    if (fstat(fd, &destination) == 0 && S_ISDIR(source.st_mode) != S_ISDIR(destination.st_mode))
        return error_set(err, -ENOTDIR,
                         "not a directory: cannot mount a directory over a file or a file over a "
                         "directory");
    int r = entry->options.id_map ? map_source(container, entry, source_fd, err) : 0;
    if (r == 0)
        r = mounts_set_bind_flags(source_fd, &entry->options, emulate_locks, err);
    if (r == 0)
        r = mounts_set_tree(source_fd, &entry->options, err);
    return r < 0 ? r : mounts_attach(container, source_fd, fd, err);
}

int mounts_bind(struct container *container, struct mount_entry *entry, struct error *err)
{
    bool emulate_locks;
    int fd = take_source(container, entry, &emulate_locks, err);

    if (fd < 0)
        return fd;
    if (fd != entry->source_fd)
        close_fd(entry->source_fd);
    entry->source_fd = fd;
    int r = attach_source(container, entry, emulate_locks, err);
    if (container->running && r == 0)
        entry->attached_fd = steal_fd(&entry->source_fd);
    close_fd(steal_fd(&entry->source_fd));
    return r;
}

int mounts_remount(struct container *container, struct mount_entry *entry, struct error *err)
{
    const struct mount_options *options = &entry->options;
    /* A container that runs could lead it to a mask of its /proc. */
    _cleanup_close_ int fd =
        file_open_in_root_flags(container->root_fd, entry->destination, O_PATH, 0,
                                container->running ? RESOLVE_NO_SYMLINKS : 0);

    if (fd < 0)
        return error_errno(err, -fd, "destination: open %s in the root", entry->destination);
    if (!entry->bind) {
        /* The file system itself: by the path of the descriptor, in the host's /proc. */
        _cleanup_free_ char *data = strv_join(options->data, ",");
        _cleanup_free_ char *place = xasprintf("/proc/self/fd/%d", fd);
        int r = kernel_mount(NULL, place, NULL, MS_REMOUNT | options->set, data);
        return r < 0 ? error_errno(err, -r, "remount %s", entry->destination) : 0;
    }
    int r = mounts_set_bind_flags(fd, options, false, err);
    return r < 0 ? r : mounts_set_tree(fd, options, err);
}
