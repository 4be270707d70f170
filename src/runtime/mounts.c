#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "container_cgroup.h"
#include "kernel.h"
#include "mounts.h"

enum {
    FSCONFIG_VALUE_MAX = 255, /* fsconfig(2) takes strings of 256 bytes with their NUL */
    MOUNT_DATA_MAX = 4095,    /* mount(2) takes a page */
};

/* mount(2)'s names of what MOUNT_ATTR_* calls otherwise; RDONLY to NOEXEC are the same bits. */
static unsigned long classic_flags(const struct mount_options *options)
{
    unsigned long flags = options->set & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                                          MOUNT_ATTR_NOEXEC);

    if ((options->set & MOUNT_ATTR__ATIME) == MOUNT_ATTR_NOATIME)
        flags |= MS_NOATIME;
    if ((options->set & MOUNT_ATTR__ATIME) == MOUNT_ATTR_STRICTATIME)
        flags |= MS_STRICTATIME;
    if (options->set & MOUNT_ATTR_NODIRATIME)
        flags |= MS_NODIRATIME;
    if (strv_contains(options->super, "sync"))
        flags |= MS_SYNCHRONOUS;
    if (strv_contains(options->super, "dirsync"))
        flags |= MS_DIRSYNC;
    if (strv_contains(options->super, "lazytime"))
        flags |= MS_LAZYTIME;
    return flags;
}

static int set_data(int fs_fd, const char *type, const struct mount_options *options,
                    struct error *err)
{
    char message[256];

    for (char **item = options->data; item && *item; item++) {
        const char *equals = strchr(*item, '=');
        _cleanup_free_ char *key =
            equals ? xstrndup(*item, (size_t)(equals - *item)) : xstrdup(*item);
        int r = equals ? kernel_fsconfig_string(fs_fd, key, equals + 1)
                       : kernel_fsconfig_flag(fs_fd, key);
        if (r == 0)
            continue;
        kernel_fs_message(fs_fd, message, sizeof(message));
        return error_set(err, r, "options: %s does not take '%s': %s", type, *item,
                         message[0] ? message : strerror(-r));
    }
    for (char **item = options->super; item && *item; item++) {
        int r = text_equal(*item, "silent") ? 0 : kernel_fsconfig_flag(fs_fd, *item);
        if (r < 0)
            return error_errno(err, -r, "options: '%s' on %s", *item, type);
    }
    return 0;
}

/* tmpfs over an existing directory keeps that directory's mode (/tmp stays 01777). */
static int set_mode(int fs_fd, int mode_from, struct error *err)
{
    struct stat status;
    char mode[16];

    if (fstat(mode_from, &status) < 0)
        return error_errno(err, errno, "stat the mount point");
    snprintf(mode, sizeof(mode), "%o", (unsigned)(status.st_mode & 07777));
    int r = kernel_fsconfig_string(fs_fd, "mode", mode);
    return r < 0 ? error_errno(err, -r, "set the mode of the file system") : 0;
}

int mounts_new_filesystem(const char *type, const char *source, const struct mount_options *options,
                          int mode_from, struct error *err)
{
    char message[256];
    _cleanup_close_ int fs_fd = kernel_fsopen(type);

    if (fs_fd == -ENODEV)
        return error_set(err, fs_fd, "type: this kernel has no file system '%s'", type);
    if (fs_fd < 0)
        return error_errno(err, -fs_fd, "open a file system of type '%s'", type);
    int r = text_empty(source) ? 0 : kernel_fsconfig_string(fs_fd, "source", source);
    if (r < 0)
        return error_errno(err, -r, "source '%s' of %s", source, type);
    if (text_equal(type, "tmpfs") && mode_from >= 0 && !mount_options_value(options, "mode")) {
        r = set_mode(fs_fd, mode_from, err);
        if (r < 0)
            return r;
    }
    r = set_data(fs_fd, type, options, err);
    if (r < 0)
        return r;
    r = kernel_fsconfig_create(fs_fd);
    if (r < 0) {
        kernel_fs_message(fs_fd, message, sizeof(message));
        return error_errno(err, -r, "create the %s file system%s%s", type, message[0] ? ": " : "",
                           message);
    }
    int mount_fd = kernel_fsmount(fs_fd, (unsigned)options->set);
    return mount_fd < 0 ? error_errno(err, -mount_fd, "mount %s", type) : mount_fd;
}

int mounts_set_attributes(int mount_fd, const struct mount_options *options, struct error *err)
{
    struct mount_attr attr = {.attr_set = options->set, .attr_clr = options->clear};
    struct mount_attr tree = {.attr_set = options->set_recursive,
                              .attr_clr = options->clear_recursive};
    struct mount_attr propagation = {.propagation = options->propagation};
    int r = 0;

    if (attr.attr_set || attr.attr_clr)
        r = kernel_mount_setattr(mount_fd, 0, &attr);
    if (r == 0 && (tree.attr_set || tree.attr_clr))
        r = kernel_mount_setattr(mount_fd, AT_RECURSIVE, &tree);
    if (r == 0 && propagation.propagation)
        r = kernel_mount_setattr(mount_fd, options->propagation_recursive ? AT_RECURSIVE : 0,
                                 &propagation);
    return r < 0 ? error_errno(err, -r, "set the mount's options") : 0;
}

static int open_bind_source(const struct container *container, const struct oci_mount *mount,
                            bool recursive, struct error *err)
{
    _cleanup_free_ char *path = NULL;

    if (text_empty(mount->source))
        return error_set(err, -EINVAL, "source: a bind mount needs one");
    path = mount->source[0] == '/' ? xstrdup(mount->source)
                                   : xasprintf("%s/%s", container->bundle, mount->source);
    int fd = kernel_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | (recursive ? AT_RECURSIVE : 0));
    return fd < 0 ? error_errno(err, -fd, "source: open %s", path) : fd;
}

static bool is_bind(const struct oci_mount *mount, const struct mount_options *options)
{
    return options->bind || text_equal(mount->type, "bind") || text_equal(mount->type, "rbind");
}

static bool is_recursive_bind(const struct oci_mount *mount, const struct mount_options *options)
{
    return options->bind_recursive || text_equal(mount->type, "rbind");
}

int mounts_open_sources(struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    container->root_tree_fd =
        kernel_open_tree(AT_FDCWD, container->rootfs, OPEN_TREE_CLONE | AT_RECURSIVE);
    if (container->root_tree_fd < 0)
        return error_errno(err, -container->root_tree_fd, "root.path: open %s", container->rootfs);
    container->bind_fds = xnew_array(int, config->mounts_count);
    memset(container->bind_fds, -1, config->mounts_count * sizeof(int));
    for (size_t i = 0; i < config->mounts_count; i++) {
        struct mount_options options;
        int r = mount_options_parse(config->mounts[i]->options, &options, err);
        if (r == 0 && is_bind(config->mounts[i], &options))
            r = container->bind_fds[i] = open_bind_source(
                container, config->mounts[i], is_recursive_bind(config->mounts[i], &options), err);
        mount_options_finish(&options);
        if (r < 0) {
            error_context(err, "mounts[%zu] (%s)", i, config->mounts[i]->destination);
            return r;
        }
        /* A mount from outside must not carry ours back there. */
        struct mount_attr attr = {.propagation = MS_SLAVE};
        if (container->bind_fds[i] >= 0)
            kernel_mount_setattr(container->bind_fds[i], AT_RECURSIVE, &attr);
    }
    return 0;
}

static int make_file(const struct container *container, const char *path, struct error *err)
{
    const char *name;
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(container->root_fd, path, 0755, &name, err);
    if (parent_fd < 0)
        return parent_fd;
    int fd = openat(parent_fd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0 && errno != EEXIST)
        return error_errno(err, errno, "create %s in the root", path);
    close_fd(fd);
    fd = file_open_in_root(container->root_fd, path, O_PATH, 0);
    return fd < 0 ? error_errno(err, -fd, "open %s in the root", path) : fd;
}

/* The place to mount on, made when it is missing: a directory, or a file for a file. proc and sysfs
 * go on real directories only: a link in the image would make others of our writes go astray
 * (CVE-2019-19921). */
static int open_destination(const struct container *container, const struct oci_mount *mount,
                            bool directory, struct error *err)
{
    bool strict = text_equal(mount->type, "proc") || text_equal(mount->type, "sysfs");
    uint64_t resolve = strict ? 0x04 /* RESOLVE_NO_SYMLINKS, linux/openat2.h */ : 0;
    const char *path = mount->destination;
    int fd = file_open_in_root_flags(container->root_fd, path, O_PATH, 0, resolve);

    if (fd == -ELOOP && strict)
        return error_set(err, fd, "destination: %s must not be behind a symbolic link for type %s",
                         path, mount->type);
    if (fd == -ENOENT)
        return directory ? file_mkdir_in_root(container->root_fd, path, 0755, err)
                         : make_file(container, path, err);
    return fd < 0 ? error_errno(err, -fd, "destination: open %s in the root", path) : fd;
}

static int apply_bind(struct container *container, size_t index,
                      const struct mount_options *options, struct error *err)
{
    const struct oci_mount *mount = container->config->mounts[index];
    struct stat source, destination;
    _cleanup_close_ int source_fd =
        container->bind_fds
            ? steal_fd(&container->bind_fds[index])
            : open_bind_source(container, mount, is_recursive_bind(mount, options), err);
    if (source_fd < 0)
        return source_fd;
    if (options->data)
        return error_set(err, -EINVAL, "options: a bind mount does not take '%s'",
                         options->data[0]);
    if (fstat(source_fd, &source) < 0)
        return error_errno(err, errno, "source: stat %s", mount->source);
    _cleanup_close_ int fd = open_destination(container, mount, S_ISDIR(source.st_mode), err);
    if (fd < 0)
        return fd;
    if (fstat(fd, &destination) == 0 && S_ISDIR(source.st_mode) != S_ISDIR(destination.st_mode))
        return error_set(err, -ENOTDIR,
                         "not a directory: cannot mount a directory over a file or a file over a "
                         "directory");
    int r = mounts_set_attributes(source_fd, options, err);
    if (r < 0)
        return r;
    r = kernel_move_mount(source_fd, fd);
    return r < 0 ? error_errno(err, -r, "attach the mount") : 0;
}

/* mount(2), for what fsconfig(2) cannot be told: option strings longer than 255 bytes, as overlay's
 * lowerdir has them. The descriptor's path in our /proc stands for the resolved place. */
static int apply_classic(const struct oci_mount *mount, const struct mount_options *options,
                         int dest_fd, struct error *err)
{
    _cleanup_free_ char *data = strv_join(options->data, ",");
    char place[64];

    if (strlen(data) > MOUNT_DATA_MAX)
        return error_set(err, -E2BIG, "options: longer than %d bytes", MOUNT_DATA_MAX);
    snprintf(place, sizeof(place), "/proc/self/fd/%d", dest_fd);
    int r = kernel_mount(mount->source ? mount->source : mount->type, place, mount->type,
                         classic_flags(options), data);
    return r < 0 ? error_errno(err, -r, "mount %s", mount->type) : 0;
}

static bool needs_classic(const struct mount_options *options)
{
    for (char **item = options->data; item && *item; item++) {
        const char *value = strchr(*item, '=');
        if (value && strlen(value + 1) > FSCONFIG_VALUE_MAX)
            return true;
    }
    return false;
}

/* Its memory is the container's. */
static int copy_up_into(struct container *container, const struct oci_mount *mount, int mount_fd,
                        struct error *err)
{
    int r = container_join_cgroup(container, err);

    if (r < 0)
        return r;
    _cleanup_close_ int from_fd = file_open_in_root(container->root_fd, mount->destination,
                                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (from_fd < 0)
        return error_errno(err, -from_fd, "open %s in the root", mount->destination);
    return mounts_copy_up(from_fd, mount_fd, err);
}

static int apply_filesystem(struct container *container, const struct oci_mount *mount,
                            const struct mount_options *options, struct error *err)
{
    struct mount_options filtered = *options;

    if (text_empty(mount->type))
        return error_set(err, -EINVAL, "type: missing");
    _cleanup_close_ int fd = open_destination(container, mount, true, err);
    if (fd < 0)
        return fd;
    if (text_equal(mount->type, "cgroup") || text_equal(mount->type, "cgroup2"))
        return mounts_cgroup(container, fd, options, err);
    if (needs_classic(options))
        return apply_classic(mount, options, fd, err);
    /* A copied-up tmpfs is filled before it becomes read-only. */
    if (options->copy_up)
        filtered.set &= ~(uint64_t)MOUNT_ATTR_RDONLY;
    _cleanup_close_ int mount_fd =
        mounts_new_filesystem(mount->type, mount->source, &filtered, fd, err);
    if (mount_fd < 0)
        return mount_fd;
    int r = options->copy_up ? copy_up_into(container, mount, mount_fd, err) : 0;
    if (r < 0)
        return r;
    if (options->copy_up || options->propagation || options->set_recursive)
        r = mounts_set_attributes(mount_fd, options, err);
    if (r < 0)
        return r;
    r = kernel_move_mount(mount_fd, fd);
    return r < 0 ? error_errno(err, -r, "attach the mount") : 0;
}

int mounts_apply(struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    for (size_t i = 0; i < config->mounts_count; i++) {
        const struct oci_mount *mount = config->mounts[i];
        struct mount_options options;
        int r = mount_options_parse(mount->options, &options, err);
        if (r == 0)
            r = is_bind(mount, &options) ? apply_bind(container, i, &options, err)
                                         : apply_filesystem(container, mount, &options, err);
        mount_options_finish(&options);
        if (r < 0) {
            error_context(err, "mounts[%zu] (%s)", i, mount->destination);
            return r;
        }
    }
    return 0;
}
