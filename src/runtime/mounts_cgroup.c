#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "container_cgroup.h"
#include "kernel.h"
#include "mounts.h"

/* Binds the container's own cgroup: with and without a cgroup namespace that is all it may see. By
 * its path, since a mount can only be copied from the mount namespace one is in. */
static int bind_cgroup(const struct cgroup *cgroup, const struct cgroup_hierarchy *hierarchy,
                       int dest_fd, const struct mount_options *options, struct error *err)
{
    _cleanup_free_ char *path = xasprintf(CGROUP_MOUNT "/%s/%s", hierarchy->name, cgroup->path);
    _cleanup_close_ int fd = kernel_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);

    if (fd < 0)
        return error_errno(err, -fd, "open the container's cgroup in %s", hierarchy->name);
    int r = mounts_set_attributes(fd, options, err);
    if (r < 0)
        return r;
    r = kernel_move_mount(fd, dest_fd);
    return r < 0 ? error_errno(err, -r, "attach the cgroup of %s", hierarchy->name) : 0;
}

static int fill_v1(struct container *container, int tmpfs_fd, const struct mount_options *options,
                   struct error *err)
{
    const struct cgroup *cgroup = &container->cgroup;

    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        if (hierarchy->is_v2)
            continue;
        if (mkdirat(tmpfs_fd, hierarchy->name, 0755) < 0)
            return error_errno(err, errno, "create %s", hierarchy->name);
        _cleanup_close_ int fd =
            openat(tmpfs_fd, hierarchy->name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        int r = fd < 0 ? error_errno(err, errno, "open %s", hierarchy->name)
                       : bind_cgroup(cgroup, hierarchy, fd, options, err);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < cgroup->alias_count; i++) {
        if (symlinkat(cgroup->aliases[i].target, tmpfs_fd, cgroup->aliases[i].name) < 0)
            return error_errno(err, errno, "link %s", cgroup->aliases[i].name);
    }
    return 0;
}

int mounts_cgroup(struct container *container, int dest_fd, const struct mount_options *options,
                  struct error *err)
{
    struct mount_options tmpfs = {.set = options->set & ~(uint64_t)MOUNT_ATTR_RDONLY};

    if (options->data)
        return error_set(err, -ENOTSUP, "options: '%s' is not supported for cgroup",
                         options->data[0]);
    int r = container_join_cgroup(container, err);
    if (r < 0)
        return r;
    if (container->cgroup.ops->version == 2)
        return bind_cgroup(&container->cgroup, &container->cgroup.hierarchies[0], dest_fd, options,
                           err);

    char *data[] = {(char[]){"mode=755"}, NULL};
    tmpfs.data = data;
    _cleanup_close_ int tmpfs_fd = mounts_new_filesystem("tmpfs", "tmpfs", &tmpfs, -1, err);
    if (tmpfs_fd < 0)
        return tmpfs_fd;
    r = kernel_move_mount(tmpfs_fd, dest_fd);
    if (r < 0)
        return error_errno(err, -r, "attach the tmpfs for cgroups");
    r = fill_v1(container, tmpfs_fd, options, err);
    return r < 0 ? r : mounts_set_attributes(tmpfs_fd, options, err);
}
