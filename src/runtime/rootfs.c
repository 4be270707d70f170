#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "kernel.h"
#include "mount_options.h"
#include "rootfs.h"

static int parse_propagation(const struct container *container, struct mount_options *ret,
                             struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    char *words[] = {config ? config->rootfs_propagation : NULL, NULL};

    if (text_empty(words[0]))
        words[0] = NULL;
    int r = mount_options_parse(words, ret, err);
    if (r == 0 && words[0] && !ret->propagation) {
        mount_options_finish(ret);
        return error_set(err, -EINVAL, "linux.rootfsPropagation: '%s' is unknown", words[0]);
    }
    return r;
}

/* Our copy of the host's mounts: by default changes on the host still reach binds that ask for it
 * (slave), ours never reach the host. The mount that the root is put on must not be shared
 * (pivot_root(2)). */
static int isolate_mounts(struct container *container, struct error *err)
{
    struct mount_options wanted;
    int r = parse_propagation(container, &wanted, err);

    if (r < 0)
        return r;
    uint64_t flags = wanted.propagation ? wanted.propagation : MS_SLAVE;
    if (flags == MS_UNBINDABLE) /* the root could not be bound any more */
        flags = MS_PRIVATE;
    r = kernel_mount(NULL, "/", NULL, (unsigned long)(flags | MS_REC), NULL);
    if (r == 0 && flags == MS_SHARED)
        r = kernel_mount(NULL, "/", NULL, MS_PRIVATE, NULL);
    return r < 0 ? error_errno(err, -r, "set the propagation of /") : 0;
}

/* On top of "/": lookups from our root do not see it there, pivot_root does, and no path has to be
 * walked with the rights of the container's user namespace. Hooks that enter the mount namespace
 * know the container's root by the host's path, though: then it is where runc puts it, unless that
 * is below a shared mount (pivot_root(2)). */
static int open_place(const struct container *container)
{
    const struct oci_hooks *hooks = container->config->hooks;
    const struct oci_linux *config = container->config->linux;
    int fd = -1;

    if (hooks &&
        (hooks->prestart_count || hooks->create_runtime_count || hooks->create_container_count) &&
        !(config && config->rootfs_propagation && strstr(config->rootfs_propagation, "shared")))
        fd = open(container->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int rootfs_attach(struct container *container, struct error *err)
{
    int r = isolate_mounts(container, err);
    if (r < 0)
        return r;
    if (container->root_tree_fd < 0)
        container->root_tree_fd =
            kernel_open_tree(AT_FDCWD, container->rootfs, OPEN_TREE_CLONE | AT_RECURSIVE);
    if (container->root_tree_fd < 0)
        return error_errno(err, -container->root_tree_fd, "root.path: open %s", container->rootfs);
    _cleanup_close_ int place_fd = open_place(container);
    if (place_fd < 0)
        return error_errno(err, errno, "open /");
    r = kernel_move_mount(container->root_tree_fd, place_fd);
    if (r < 0)
        return error_errno(err, -r, "attach the root %s", container->rootfs);
    container->root_fd = container->root_tree_fd;
    container->root_tree_fd = -1;
    return 0;
}

int rootfs_working_directory(struct container *container, struct error *err)
{
    const char *cwd = container->config->process->cwd;
    int fd = file_mkdir_in_root(container->root_fd, cwd, 0755, NULL);

    /* A read-only image: chdir will say what is wrong, as it does for a file. */
    if (fd == -EROFS || fd == -ENOTDIR || fd == -EACCES)
        return 0;
    if (fd < 0)
        return error_errno(err, -fd, "process.cwd: create %s", cwd);
    close(fd);
    return 0;
}

static int make_root_readonly(struct container *container, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int r = kernel_mount_setattr(container->root_fd, 0, &attr);

    return r < 0 ? error_errno(err, -r, "root.readonly") : 0;
}

static int apply_root_propagation(struct container *container, struct error *err)
{
    struct mount_options wanted;
    int r = parse_propagation(container, &wanted, err);

    if (r < 0 || !wanted.propagation)
        return r;
    struct mount_attr attr = {.propagation = wanted.propagation};
    r = kernel_mount_setattr(container->root_fd, wanted.propagation_recursive ? AT_RECURSIVE : 0,
                             &attr);
    return r < 0 ? error_errno(err, -r, "linux.rootfsPropagation") : 0;
}

int rootfs_pivot(struct container *container, struct error *err)
{
    if (container->config->root->readonly) {
        int r = make_root_readonly(container, err);
        if (r < 0)
            return r;
    }
    _cleanup_close_ int old_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old_fd < 0 || fchdir(container->root_fd) < 0)
        return error_errno(err, errno, "enter the root");
    /* With both names the same the old root ends up on top of the new one (pivot_root(2), NOTES).
     */
    int r = kernel_pivot_root(".", ".");
    if (r < 0)
        return error_errno(err, -r, "pivot_root");
    if (fchdir(old_fd) < 0)
        return error_errno(err, errno, "enter the old root");
    /* Where rootfsPropagation made it shared, the unmount would reach the host. */
    r = kernel_mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL);
    if (r == 0)
        r = kernel_umount(".", MNT_DETACH);
    if (r < 0)
        return error_errno(err, -r, "detach the host's mounts");
    if (chdir("/") < 0)
        return error_errno(err, errno, "enter the root");
    return apply_root_propagation(container, err);
}
