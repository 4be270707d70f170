#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "device_nodes.h"
#include "kernel.h"
#include "rootfs.h"

struct device_node {
    const char *path;
    mode_t type; /* S_IFCHR, S_IFBLK, S_IFIFO */
    unsigned major, minor;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

/* config-linux.md, "Default Devices". */
static const struct device_node default_devices[] = {
    {"/dev/null", S_IFCHR, 1, 3, 0666, 0, 0},    {"/dev/zero", S_IFCHR, 1, 5, 0666, 0, 0},
    {"/dev/full", S_IFCHR, 1, 7, 0666, 0, 0},    {"/dev/random", S_IFCHR, 1, 8, 0666, 0, 0},
    {"/dev/urandom", S_IFCHR, 1, 9, 0666, 0, 0}, {"/dev/tty", S_IFCHR, 5, 0, 0666, 0, 0},
};

static const struct {
    const char *name, *target;
} default_links[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"},      {"ptmx", "pts/ptmx"},
};

static bool same_node(const struct stat *status, const struct device_node *device)
{
    return (status->st_mode & S_IFMT) == device->type &&
           (device->type == S_IFIFO || status->st_rdev == makedev(device->major, device->minor));
}

static int bind_over_file(int parent_fd, const char *name, const struct device_node *device,
                          int source_fd, struct error *err)
{
    int file_fd = openat(parent_fd, name, O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);

    if (file_fd < 0)
        return error_errno(err, errno, "create %s", device->path);
    close(file_fd);
    _cleanup_close_ int dest_fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int r = dest_fd < 0 ? -errno : kernel_move_mount(source_fd, dest_fd);
    return r < 0 ? error_errno(err, -r, "bind the host's %s", device->path) : 0;
}

/* In a user namespace nodes cannot be made: the host's is bound instead (config-linux.md allows
 * it), if it is the device that is asked for. */
static int bind_host_device(int parent_fd, const char *name, const struct device_node *device,
                            struct error *err)
{
    struct stat status;
    _cleanup_close_ int source_fd = kernel_open_tree(AT_FDCWD, device->path, OPEN_TREE_CLONE);

    if (source_fd < 0)
        return error_errno(err, -source_fd, "open the host's %s", device->path);
    if (fstat(source_fd, &status) < 0 || !same_node(&status, device))
        return error_set(err, -ENODEV, "the host's %s is another device than %u:%u", device->path,
                         device->major, device->minor);
    return bind_over_file(parent_fd, name, device, source_fd, err);
}

static int compare_node(int parent_fd, const char *name, const struct device_node *device,
                        struct error *err)
{
    struct stat status;

    if (fstatat(parent_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "look at %s", device->path);
    return device_node_compare(device->path, &status, device->type,
                               makedev(device->major, device->minor), err);
}

/* source_fd: a mount of the node, from outside of the user namespace; -1: none. */
static int make_node(int parent_fd, const char *name, const struct device_node *device,
                     int source_fd, struct error *err)
{
    if (source_fd >= 0)
        return faccessat(parent_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0
                   ? compare_node(parent_fd, name, device, err)
                   : bind_over_file(parent_fd, name, device, source_fd, err);
    if (mknodat(parent_fd, name, device->type | device->mode,
                makedev(device->major, device->minor)) < 0) {
        if (errno == EEXIST)
            return compare_node(parent_fd, name, device, err);
        if (errno == EPERM && device->type != S_IFIFO)
            return bind_host_device(parent_fd, name, device, err);
        return error_errno(err, errno, "create %s", device->path);
    }
    if ((device->uid || device->gid) &&
        fchownat(parent_fd, name, device->uid, device->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "set the owner of %s", device->path);
    return 0;
}

static int make_device(struct container *container, const struct device_node *device, int source_fd,
                       struct error *err)
{
    const char *name;
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(container->root_fd, device->path, 0755, &name, err);

    return parent_fd < 0 ? parent_fd : make_node(parent_fd, name, device, source_fd, err);
}

static int configured_device(const struct oci_device *device, struct device_node *ret,
                             struct error *err)
{
    /* "/mnt/" is the node /mnt, as crun takes it. */
    for (size_t length = strlen(device->path); length > 1 && device->path[length - 1] == '/';)
        device->path[--length] = '\0';
    *ret = (struct device_node){
        .path = device->path,
        .type = device->type[0] == 'b'   ? S_IFBLK
                : device->type[0] == 'p' ? S_IFIFO
                                         : S_IFCHR,
        .mode = device->has_file_mode ? device->file_mode & 07777 : 0666,
        .uid = device->has_uid ? device->uid : 0,
        .gid = device->has_gid ? device->gid : 0,
    };
    if (ret->type == S_IFIFO)
        return 0;
    if (!device->has_major || !device->has_minor || device->major < 0 || device->minor < 0 ||
        device->major > 0xfff || device->minor > 0xfffff) /* MINORBITS 20, linux/kdev_t.h */
        return error_set(err, -EINVAL, "major and minor must be numbers of a device");
    ret->major = (unsigned)device->major;
    ret->minor = (unsigned)device->minor;
    return 0;
}

static int make_configured(struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;

    for (size_t i = 0; config && i < config->devices_count; i++) {
        struct device_node device;
        /* The host's, which whoever copies all of its /dev lists: the container has its own. */
        if (text_equal(config->devices[i]->path, "/dev/ptmx"))
            continue;
        int r = configured_device(config->devices[i], &device, err);
        if (r == 0)
            r = make_device(container, &device,
                            container->device_fds ? container->device_fds[i] : -1, err);
        if (r < 0) {
            error_context(err, "linux.devices[%zu] (%s)", i, config->devices[i]->path);
            return r;
        }
    }
    return 0;
}

static bool is_configured(const struct container *container, const char *path)
{
    const struct oci_linux *config = container->config->linux;

    for (size_t i = 0; config && i < config->devices_count; i++) {
        if (text_equal(config->devices[i]->path, path))
            return true;
    }
    return false;
}

static int make_links(int dev_fd, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(default_links); i++) {
        if (text_equal(default_links[i].name, "core") && access("/proc/kcore", F_OK) < 0)
            continue;
        if (symlinkat(default_links[i].target, dev_fd, default_links[i].name) == 0)
            continue;
        if (errno != EEXIST)
            return error_errno(err, errno, "link /dev/%s", default_links[i].name);
        /* An image may bring /dev/ptmx as a node of the host's devpts: the container's counts. */
        if (text_equal(default_links[i].name, "ptmx") && unlinkat(dev_fd, "ptmx", 0) == 0 &&
            symlinkat("pts/ptmx", dev_fd, "ptmx") < 0)
            return error_errno(err, errno, "link /dev/ptmx");
    }
    return 0;
}

static bool dev_is_bound(const struct container *container)
{
    const struct oci_config *config = container->config;

    for (size_t i = 0; i < config->mounts_count; i++) {
        const struct oci_mount *mount = config->mounts[i];
        const char *path = mount->destination;
        if (!text_equal(path, "/dev") && !text_equal(path, "/dev/"))
            continue;
        if (text_equal(mount->type, "bind") || strv_contains(mount->options, "bind") ||
            strv_contains(mount->options, "rbind"))
            return true;
    }
    return false;
}

int rootfs_devices(struct container *container, struct error *err)
{
    if (dev_is_bound(container))
        return 0;
    _cleanup_close_ int dev_fd = file_mkdir_in_root(container->root_fd, "/dev", 0755, err);
    if (dev_fd < 0)
        return dev_fd;
    for (size_t i = 0; i < ARRAY_SIZE(default_devices); i++) {
        if (is_configured(container, default_devices[i].path))
            continue;
        const char *name = default_devices[i].path + strlen("/dev/");
        int r = make_node(dev_fd, name, &default_devices[i], -1, err);
        if (r < 0)
            return r;
    }
    int r = make_configured(container, err);
    return r < 0 ? r : make_links(dev_fd, err);
}

int rootfs_console(struct container *container, int slave_fd, struct error *err)
{
    _cleanup_close_ int dev_fd = file_mkdir_in_root(container->root_fd, "/dev", 0755, err);
    if (dev_fd < 0)
        return dev_fd;
    int file_fd = openat(dev_fd, "console",
                         O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0620);
    if (file_fd < 0 && errno != ENXIO && errno != EACCES && errno != EPERM)
        return error_errno(err, errno, "create /dev/console");
    close_fd(file_fd);
    _cleanup_close_ int dest_fd = openat(dev_fd, "console", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (dest_fd < 0)
        return error_errno(err, errno, "open /dev/console");
    _cleanup_close_ int source_fd = kernel_open_tree(slave_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    int r = source_fd < 0 ? source_fd : kernel_move_mount(source_fd, dest_fd);
    return r < 0 ? error_errno(err, -r, "put the terminal on /dev/console") : 0;
}
