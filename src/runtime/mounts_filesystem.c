/*
 * New file systems.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "container_cgroup.h"
#include "kernel.h"
#include "labels.h"
#include "mounts.h"

enum {
    FSCONFIG_VALUE_MAX = 255, /* fsconfig(2) takes strings of 256 bytes with their NUL */
    MOUNT_DATA_MAX = 4095,    /* mount(2) takes a page */
};

/* Flags that belong to the file system and not to the mount. */
static const struct {
    unsigned long flag;
    const char *name;
} filesystem_flags[] = {
    {MS_SYNCHRONOUS, "sync"},
    {MS_DIRSYNC, "dirsync"},
    {MS_MANDLOCK, "mand"},
    {MS_LAZYTIME, "lazytime"},
};

/* Of these there is only one or nothing that could be written to: the mount is read-only, they are
 * not. */
static char *const kernel_types[] = {"tmpfs",  "proc",   "sysfs",   "devpts",
                                     "mqueue", "cgroup", "cgroup2", NULL};

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
    return 0;
}

static int set_flags(int fs_fd, const char *type, unsigned long set, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(filesystem_flags); i++) {
        if (set & filesystem_flags[i].flag)
            r = kernel_fsconfig_flag(fs_fd, filesystem_flags[i].name);
        if (r < 0)
            return error_errno(err, -r, "options: '%s' on %s", filesystem_flags[i].name, type);
    }
    if ((set & MS_RDONLY) && !strv_contains(kernel_types, type))
        r = kernel_fsconfig_flag(fs_fd, "ro");
    return r < 0 ? error_errno(err, -r, "options: 'ro' on %s", type) : 0;
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

static int create(int fs_fd, const char *type, struct error *err)
{
    char message[256];
    int r = kernel_fsconfig_create(fs_fd);

    if (r == 0)
        return 0;
    kernel_fs_message(fs_fd, message, sizeof(message));
    return error_errno(err, -r, "create the %s file system%s%s", type, message[0] ? ": " : "",
                       message);
}

int mounts_new_filesystem(const char *type, const char *source, const struct mount_options *options,
                          int mode_from, struct error *err)
{
    _cleanup_close_ int fs_fd = kernel_fsopen(type);

    if (fs_fd == -ENODEV)
        return error_set(err, fs_fd, "type: this kernel has no file system '%s'", type);
    if (fs_fd < 0)
        return error_errno(err, -fs_fd, "open a file system of type '%s'", type);
    int r = text_empty(source) ? 0 : kernel_fsconfig_string(fs_fd, "source", source);
    if (r < 0)
        return error_errno(err, -r, "source '%s' of %s", source, type);
    if (text_equal(type, "tmpfs") && mode_from >= 0 && !mount_options_value(options, "mode"))
        r = set_mode(fs_fd, mode_from, err);
    if (r == 0)
        r = set_data(fs_fd, type, options, err);
    if (r == 0)
        r = set_flags(fs_fd, type, options->set, err);
    if (r == 0)
        r = create(fs_fd, type, err);
    if (r < 0)
        return r;
    int mount_fd = kernel_fsmount(fs_fd, (unsigned)mount_options_attributes(options->set));
    return mount_fd < 0 ? error_errno(err, -mount_fd, "mount %s", type) : mount_fd;
}

/* mount(2), for what fsconfig(2) cannot be told: values longer than 255 bytes, as overlay's
 * lowerdir has them, several options in one string, and inode versions. The descriptor's path in
 * our /proc stands for the resolved place. */
static int mount_classic(struct container *container, const struct mount_entry *entry, int dest_fd,
                         struct error *err)
{
    const struct oci_mount *mount = entry->mount;
    _cleanup_free_ char *data = strv_join(entry->options.data, ",");
    char place[64];

    if (container->running)
        return error_set(err, -ENOTSUP,
                         "options: a running container gets no values of more than %d bytes, and "
                         "no commas in them",
                         FSCONFIG_VALUE_MAX);
    if (strlen(data) > MOUNT_DATA_MAX)
        return error_set(err, -E2BIG, "options: longer than %d bytes", MOUNT_DATA_MAX);
    snprintf(place, sizeof(place), "/proc/self/fd/%d", dest_fd);
    int r = kernel_mount(mount->source ? mount->source : mount->type, place, mount->type,
                         entry->options.set, data);
    if (r < 0)
        return error_errno(err, -r, "mount %s", mount->type);
    if (!entry->options.propagation_count && !entry->options.set_recursive &&
        !entry->options.clear_recursive)
        return 0;
    _cleanup_close_ int fd = file_open_in_root(container->root_fd, entry->destination, O_PATH, 0);
    if (fd < 0)
        return error_errno(err, -fd, "destination: open %s in the root", entry->destination);
    return mounts_set_tree(fd, &entry->options, err);
}

static bool needs_classic(const struct mount_options *options)
{
    if (options->set & MS_I_VERSION)
        return true;
    for (char **item = options->data; item && *item; item++) {
        const char *value = strchr(*item, '=');
        if (strchr(*item, ',') || (value && strlen(value + 1) > FSCONFIG_VALUE_MAX))
            return true;
    }
    return false;
}

/* sysfs belongs to a network namespace: with a user namespace and another's network the kernel
 * does not give a new one, and the host's stands in for it, as with crun. With it come the host's
 * cgroups, of which some may be the caller's to write to (CVE-2023-25809). */
static int copy_host_sysfs(const struct mount_options *options, struct error *err)
{
    _cleanup_close_ int fd = kernel_open_tree(AT_FDCWD, "/sys", OPEN_TREE_CLONE | AT_RECURSIVE);
    int r = fd < 0 ? fd : mounts_add_flags(fd, options->set, true);

    return r < 0 ? error_errno(err, -r, "bind the host's /sys") : steal_fd(&fd);
}

static int make_filesystem(struct container *container, const struct mount_entry *entry,
                           const struct mount_options *options, int mode_from, struct error *err)
{
    const struct oci_mount *mount = entry->mount;
    uint64_t own = container_own_namespaces(container);
    _cleanup_close_ int fd =
        mounts_new_filesystem(mount->type, mount->source, options, mode_from, err);

    /* In a container that runs /sys is its own, or whatever it has put there. */
    if (fd == -EPERM && text_equal(mount->type, "sysfs") && !(own & CLONE_NEWNET) &&
        !container->running)
        return copy_host_sysfs(options, err);
    int r = fd < 0 ? fd : labels_set_mount(fd, container->config->linux, mount->type, err);
    return r < 0 ? r : steal_fd(&fd);
}

/* Its memory is the container's. */
static int copy_up_into(struct container *container, const struct mount_entry *entry, int mount_fd,
                        struct error *err)
{
    int r = container_join_cgroup(container, err);

    if (r < 0)
        return r;
    _cleanup_close_ int from_fd =
        file_open_in_root(container->root_fd, entry->destination, O_RDONLY | O_DIRECTORY, 0);
    if (from_fd < 0)
        return error_errno(err, -from_fd, "open %s in the root", entry->destination);
    return mounts_copy_up(from_fd, mount_fd, container->proc_fd, err);
}

/* More is made in them: other mounts' places, devices, what is copied up. */
static bool is_filled_later(const struct mount_entry *entry)
{
    const char *path = entry->destination + strspn(entry->destination, "/");

    return text_equal(entry->mount->type, "tmpfs") ||
           (text_starts_with(path, "dev") && strspn(path + 3, "/") == strlen(path + 3));
}

static int attach_filesystem(struct container *container, struct mount_entry *entry, int mount_fd,
                             int dest_fd, bool late, struct error *err)
{
    int r = entry->options.copy_up ? copy_up_into(container, entry, mount_fd, err) : 0;

    if (r == 0)
        r = mounts_set_tree(mount_fd, &entry->options, err);
    if (r == 0)
        r = mounts_attach(container, mount_fd, dest_fd, err);
    if (r == 0 && container->running) {
        entry->attached_fd = fcntl(mount_fd, F_DUPFD_CLOEXEC, 0);
        r = entry->attached_fd < 0 ? error_errno(err, errno, "copy a descriptor") : 0;
    }
    if (r < 0 || !late)
        return r;
    entry->late_fd = fcntl(mount_fd, F_DUPFD_CLOEXEC, 0);
    return entry->late_fd < 0 ? error_errno(err, errno, "copy a descriptor") : 0;
}

int mounts_filesystem(struct container *container, struct mount_entry *entry, struct error *err)
{
    const char *type = entry->mount->type;
    struct mount_options options = entry->options;
    bool made, late = (options.set & MS_RDONLY) && is_filled_later(entry);
    _cleanup_close_ int fd = mounts_open_destination(container, entry, true, &made, err);

    if (fd < 0)
        return fd;
    if (text_equal(type, "cgroup") ||
        (text_equal(type, "cgroup2") && container->cgroup.ops->version == 2))
        return mounts_cgroup(container, entry, fd, err);
    if (needs_classic(&options))
        return mount_classic(container, entry, fd, err);
    if (late)
        options.set &= ~(unsigned long)MS_RDONLY;
    _cleanup_close_ int mount_fd = make_filesystem(container, entry, &options, made ? -1 : fd, err);
    return mount_fd < 0 ? mount_fd : attach_filesystem(container, entry, mount_fd, fd, late, err);
}
