#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "container_cgroup.h"
#include "kernel.h"
#include "mounts.h"

/* By its path, since a mount can only be copied from the mount namespace one is in. */
static int bind_cgroup(const char *path, int dest_fd, const struct mount_options *options,
                       struct error *err)
{
    _cleanup_close_ int fd = kernel_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);

    if (fd < 0)
        return error_errno(err, -fd, "open the cgroup %s", path);
    int r = mounts_add_flags(fd, options->set, false);
    if (r < 0)
        return error_errno(err, -r, "options: set the flags");
    r = mounts_set_tree(fd, options, err);
    if (r < 0)
        return r;
    r = kernel_move_mount(fd, dest_fd);
    return r < 0 ? error_errno(err, -r, "attach the cgroup %s", path) : 0;
}

/* Whether the cgroup namespace's root is the cgroup as it is known here: not without a cgroup of
 * its own, nor with one below that, nor below a user's systemd, of which only the parent was told
 * where it is. */
static bool knows_own_root(const struct container *container)
{
    return !cgroup_is_none(&container->cgroup) && !container->cgroup.user_manager &&
           !container_is_below_cgroup(container->config->annotations);
}

/* Without a cgroup namespace the paths in /proc/PID/cgroup are the host's: so is the tree. With one
 * the container sees its own part, which it does with a bind mount at less cost than with a new
 * one. */
static int mount_v2(struct container *container, const struct mount_options *options, int dest_fd,
                    struct error *err)
{
    bool own = container_own_namespaces(container) & CLONE_NEWCGROUP;
    _cleanup_free_ char *path =
        own ? xasprintf(CGROUP_MOUNT "/%s", container->cgroup.path) : xstrdup(CGROUP_MOUNT);

    bool is_new = options->data || (own && !knows_own_root(container));
    _cleanup_close_ int fd =
        is_new ? mounts_new_filesystem("cgroup2", "cgroup", options, -1, err) : -1;
    if (fd < 0 && options->data)
        return fd;
    if (fd < 0) {
        error_finish(err);
        return bind_cgroup(path, dest_fd, options, err);
    }
    int r = mounts_set_tree(fd, options, err);
    return r < 0 ? r : mounts_attach(container, fd, dest_fd, err);
}

/* The tmpfs is ours alone: nobody else has been in it. */
static int fill_v1(struct container *container, int tmpfs_fd, struct error *err)
{
    const struct cgroup *cgroup = &container->cgroup;

    for (size_t i = 0; i < cgroup->count; i++) {
        const char *name = cgroup->hierarchies[i].name;
        if (cgroup->hierarchies[i].is_v2)
            continue;
        if (mkdirat(tmpfs_fd, name, 0755) < 0)
            return error_errno(err, errno, "create %s", name);
        _cleanup_free_ char *path = xasprintf(CGROUP_MOUNT "/%s/%s", name, cgroup->path);
        _cleanup_close_ int fd = kernel_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);
        int r = fd < 0 ? fd : kernel_move_mount_at(fd, tmpfs_fd, name);
        if (r < 0)
            return error_errno(err, -r, "attach the cgroup %s", path);
    }
    for (size_t i = 0; i < cgroup->alias_count; i++) {
        if (symlinkat(cgroup->aliases[i].target, tmpfs_fd, cgroup->aliases[i].name) < 0)
            return error_errno(err, errno, "link %s", cgroup->aliases[i].name);
    }
    return 0;
}

static int mount_v1(struct container *container, const struct mount_options *options, int dest_fd,
                    struct error *err)
{
    char *data[] = {(char[]){"mode=755"}, NULL};
    const struct mount_options tmpfs = {.set = options->set & ~(unsigned long)MS_RDONLY,
                                        .data = data};

    if (options->data)
        return error_set(err, -EINVAL, "options: '%s' is not for cgroup version 1",
                         options->data[0]);
    _cleanup_close_ int tmpfs_fd = mounts_new_filesystem("tmpfs", "tmpfs", &tmpfs, -1, err);
    if (tmpfs_fd < 0)
        return tmpfs_fd;
    int r = mounts_attach(container, tmpfs_fd, dest_fd, err);
    if (r == 0)
        r = fill_v1(container, tmpfs_fd, err);
    if (r < 0)
        return r;
    r = mounts_add_flags(tmpfs_fd, options->set, true);
    return r < 0 ? error_errno(err, -r, "options: set the flags")
                 : mounts_set_tree(tmpfs_fd, options, err);
}

int mounts_cgroup(struct container *container, struct mount_entry *entry, int dest_fd,
                  struct error *err)
{
    int r = container_join_cgroup(container, err);

    if (r < 0)
        return r;
    if (container->cgroup.ops->version == 2)
        return mount_v2(container, &entry->options, dest_fd, err);
    return mount_v1(container, &entry->options, dest_fd, err);
}
