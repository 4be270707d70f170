/*
 * What a mount allows: its flags, those of the mounts below it, and its propagation.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/vfs.h>

#include <base/cleanup.h>

#include "kernel.h"
#include "mounts.h"

enum {
    MS_ATIME = MS_NOATIME | MS_RELATIME | MS_STRICTATIME | MS_NODIRATIME,
    /* What the kernel locks when a less privileged mount namespace gets a copy
     * (mount_namespaces(7), "Restrictions on mount namespaces"). */
    MS_LOCKABLE = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_ATIME,
};

/* f_flags of statfs(2) -> MS_*. */
static const struct {
    unsigned long statfs, flag;
} statfs_flags[] = {
    {0x0001, MS_RDONLY},  {0x0002, MS_NOSUID},     {0x0004, MS_NODEV},    {0x0008, MS_NOEXEC},
    {0x0400, MS_NOATIME}, {0x0800, MS_NODIRATIME}, {0x1000, MS_RELATIME}, {0x2000, MS_NOSYMFOLLOW},
};

static int flags_of(int mount_fd, unsigned long *ret)
{
    struct statfs status;

    if (fstatfs(mount_fd, &status) < 0)
        return -errno;
    *ret = 0;
    for (size_t i = 0; i < ARRAY_SIZE(statfs_flags); i++) {
        if ((unsigned long)status.f_flags & statfs_flags[i].statfs)
            *ret |= statfs_flags[i].flag;
    }
    if (!(*ret & (MS_NOATIME | MS_RELATIME)))
        *ret |= MS_STRICTATIME;
    return 0;
}

static int set_flags(int mount_fd, unsigned long flags)
{
    struct mount_attr attr = {
        .attr_clr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                    MOUNT_ATTR_NOSYMFOLLOW,
        .attr_set = mount_options_attributes(flags),
    };

    if (flags & MS_ATIME)
        attr.attr_clr |= MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
    return kernel_mount_setattr(mount_fd, 0, &attr);
}

int mounts_add_flags(int mount_fd, unsigned long flags, bool recursive)
{
    struct mount_attr attr = {.attr_set = mount_options_attributes(flags)};

    if (!attr.attr_set)
        return 0;
    /* mount_setattr(2): the kinds of access times are values of one field. */
    if (flags & MS_ATIME)
        attr.attr_clr = MOUNT_ATTR__ATIME;
    return kernel_mount_setattr(mount_fd, recursive ? AT_RECURSIVE : 0, &attr);
}

/* Whether the kernel would refuse, were all flags of the source locked. */
static bool breaks_lock(unsigned long source, unsigned long flags)
{
    const unsigned long plain = MS_LOCKABLE & ~(unsigned long)MS_ATIME;

    if (source & ~flags & plain)
        return true;
    return (flags & MS_ATIME) && mount_options_attributes(flags & MS_ATIME) !=
                                     mount_options_attributes(source & MS_ATIME);
}

/* Locked flags that nobody named are kept; one that is named otherwise is refused. */
static int set_with_locked(int mount_fd, const struct mount_options *options, unsigned long source,
                           struct error *err)
{
    unsigned long atime = options->set & MS_ATIME;
    int r = -EPERM;

    if (!(source & options->cleared & MS_LOCKABLE) && (!atime || atime == (source & MS_ATIME)))
        r = set_flags(mount_fd, options->set | (source & MS_LOCKABLE));
    if (r == -EPERM)
        return error_set(err, r,
                         "options: operation not permitted: the source is mounted with flags that "
                         "a user namespace must keep");
    return r < 0 ? error_errno(err, -r, "options: set the flags") : 0;
}

int mounts_set_bind_flags(int mount_fd, const struct mount_options *options, bool emulate_locks,
                          struct error *err)
{
    unsigned long source = 0;
    int r = -EPERM;

    if (!options->set && !options->cleared)
        return 0;
    if (emulate_locks && flags_of(mount_fd, &source) < 0)
        return error_errno(err, errno, "source: statfs");
    if (!emulate_locks || !breaks_lock(source, options->set))
        r = set_flags(mount_fd, options->set);
    if (r != -EPERM)
        return r < 0 ? error_errno(err, -r, "options: set the flags") : 0;
    if (flags_of(mount_fd, &source) < 0)
        return error_errno(err, errno, "source: statfs");
    return set_with_locked(mount_fd, options, source, err);
}

int mounts_set_tree(int mount_fd, const struct mount_options *options, struct error *err)
{
    struct mount_attr tree = {.attr_set = options->set_recursive,
                              .attr_clr = options->clear_recursive};
    int r = 0;

    if (tree.attr_set || tree.attr_clr)
        r = kernel_mount_setattr(mount_fd, AT_RECURSIVE, &tree);
    if (r < 0)
        return error_errno(err, -r, "options: set the flags of the whole tree");
    for (unsigned i = 0; r == 0 && i < options->propagation_count; i++) {
        unsigned long kind = options->propagation[i];
        struct mount_attr propagation = {.propagation = kind & ~(unsigned long)MS_REC};
        r = kernel_mount_setattr(mount_fd, kind & MS_REC ? AT_RECURSIVE : 0, &propagation);
    }
    return r < 0 ? error_errno(err, -r, "options: set the propagation") : 0;
}
