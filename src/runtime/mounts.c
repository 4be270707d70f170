#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "annotations.h"
#include "kernel.h"
#include "labels.h"
#include "mounts.h"

enum {
    MOUNTS_MAX = 4096,
    PROC_ROOT_INODE = 1, /* linux/proc_ns.h: of every procfs */
};

/* Engines give the place in the root or, some of them, on the host. */
static const char *strip_root(const char *rootfs, const char *path)
{
    size_t length = strlen(rootfs);

    if (strncmp(path, rootfs, length) == 0 && path[length] == '/')
        return path + length;
    return path;
}

static bool is_below_root(const char *rootfs, const char *path)
{
    return text_equal(path, rootfs) || strip_root(rootfs, path) != path;
}

static int parse_bind(struct container *container, struct mount_entry *entry, struct error *err)
{
    const char *source = entry->mount->source;

    if (text_empty(source))
        return error_set(err, -EINVAL, "source: a bind mount needs one");
    /* The kernel would drop them without a word. */
    if (entry->options.data)
        return error_set(err, -EINVAL,
                         "options: '%s': bind mounts cannot have any filesystem-specific options "
                         "applied",
                         entry->options.data[0]);
    entry->source =
        source[0] == '/' ? xstrdup(source) : xasprintf("%s/%s", container->bundle, source);
    entry->source_in_root = is_below_root(container->rootfs, entry->source);
    if (entry->source_in_root) {
        const char *below = entry->source + strlen(container->rootfs);
        char *path = xstrdup(below[0] ? below : "/");
        free(entry->source);
        entry->source = path;
    }
    return 0;
}

static bool has_users(const struct container *container)
{
    const struct oci_linux *config = container->config->linux;

    for (size_t i = 0; config && i < config->namespaces_count; i++) {
        if (text_equal(config->namespaces[i]->type, "user"))
            return true;
    }
    return false;
}

static int parse_mapping(const struct container *container, struct mount_entry *entry,
                         struct error *err)
{
    const struct oci_mount *mount = entry->mount;
    bool given = mount->uid_mappings_count || mount->gid_mappings_count;

    entry->options.id_map |= given;
    if (!entry->options.id_map)
        return 0;
    if (!entry->bind)
        return error_set(err, -EINVAL, "id-mapped mounts are only supported for bind-mounts");
    if (given && (!mount->uid_mappings_count || !mount->gid_mappings_count))
        return error_set(err, -EINVAL,
                         "%s: id-mapped mounts must have both uid and gid mappings specified",
                         mount->uid_mappings_count ? "gidMappings" : "uidMappings");
    if (!given && !entry->options.id_map_ranges && !has_users(container))
        return error_set(err, -EINVAL,
                         "uidMappings: id-mapped mounts must have both uid and gid mappings "
                         "specified, or the container a user namespace");
    return 0;
}

static void add_label(const struct oci_config *config, struct mount_entry *entry)
{
    char *label =
        labels_mount_option(config->linux, entry->mount->type,
                            annotation_value(config->annotations, ANNOTATION_CONTEXT_TYPE));

    if (label)
        strv_take(&entry->options.data, label);
}

static int parse_entry(struct container *container, const struct oci_mount *mount,
                       struct mount_entry *entry, struct error *err)
{
    *entry = (struct mount_entry){
        .mount = mount,
        .destination = strip_root(container->rootfs, mount->destination),
        .source_fd = -1,
        .user_fd = -1,
        .late_fd = -1,
        .attached_fd = -1,
    };
    int r = mount_options_parse(mount->options, &entry->options, err);
    if (r < 0) {
        error_context(err, "options");
        return r;
    }
    if (text_empty(mount->destination))
        return error_set(err, -EINVAL, "destination: must not be empty");
    if (mount->destination[0] != '/')
        strv_take(&container->warnings,
                  xasprintf("mount destination %s is not absolute. Support for non-absolute mount "
                            "destinations will be removed in a future release.",
                            mount->destination));
    entry->bind_recursive = entry->options.bind_recursive || text_equal(mount->type, "rbind");
    entry->bind = entry->options.bind || entry->bind_recursive || text_equal(mount->type, "bind");
    if (entry->bind && !entry->options.remount)
        r = parse_bind(container, entry, err);
    else if (text_empty(mount->type) && !entry->options.remount)
        r = error_set(err, -EINVAL, "type: missing");
    else if (!entry->options.remount)
        add_label(container->config, entry);
    return r < 0 ? r : parse_mapping(container, entry, err);
}

int mounts_parse(struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    if (config->mounts_count > MOUNTS_MAX)
        return error_set(err, -E2BIG, "mounts: more than %d", MOUNTS_MAX);
    container->mounts = xnew_array(struct mount_entry, config->mounts_count);
    for (size_t i = 0; i < config->mounts_count; i++) {
        int r = parse_entry(container, config->mounts[i], &container->mounts[i], err);
        container->mounts_count = i + 1;
        if (r < 0) {
            error_context(err, "invalid mount mounts[%zu] (%s)", i, config->mounts[i]->destination);
            return r;
        }
    }
    return 0;
}

void mounts_finish(struct container *container)
{
    for (size_t i = 0; i < container->mounts_count; i++) {
        struct mount_entry *entry = &container->mounts[i];
        mount_options_finish(&entry->options);
        free(entry->source);
        close_fd(entry->source_fd);
        close_fd(entry->user_fd);
        close_fd(entry->late_fd);
        close_fd(entry->attached_fd);
    }
    free(container->mounts);
    container->mounts = NULL;
    container->mounts_count = 0;
}

/* Where a file is to be mounted on a path that ends in a link to nothing, the link's target is
 * made. */
static int make_file(const struct container *container, const char *path, struct error *err)
{
    int fd = file_create_in_root(container->root_fd, path, 0755, 0644, err);

    if (fd < 0)
        return fd;
    close(fd);
    fd = file_open_in_root(container->root_fd, path, O_PATH, 0);
    return fd < 0 ? error_errno(err, -fd, "open %s in the root", path) : fd;
}

/* proc and sysfs go on real directories only: a link in the image would make others of our writes
 * go astray (CVE-2019-19921). */
static bool is_strict(const struct oci_mount *mount)
{
    return text_equal(mount->type, "proc") || text_equal(mount->type, "sysfs");
}

/* What may be mounted inside of /proc: what lxcfs has its own files for. */
static const char *const proc_places[] = {
    "/cpuinfo",
    "/diskstats",
    "/meminfo",
    "/stat",
    "/swaps",
    "/uptime",
    "/loadavg",
    "/slabinfo",
    "/sys/kernel/ns_last_pid",
    "/sys/crypto/fips_enabled",
};

/* Whether the place on a procfs is one of those: by identity, since paths can be linked. */
static bool is_allowed_in_proc(const struct container *container, const struct stat *place)
{
    for (size_t i = 0; i < ARRAY_SIZE(proc_places); i++) {
        struct stat status;
        _cleanup_free_ char *path = xasprintf("/proc%s", proc_places[i]);
        _cleanup_close_ int fd =
            file_open_in_root_flags(container->root_fd, path, O_PATH, 0, RESOLVE_NO_SYMLINKS);
        if (fd >= 0 && fstat(fd, &status) == 0 && status.st_dev == place->st_dev &&
            status.st_ino == place->st_ino)
            return true;
    }
    return false;
}

static bool is_proc(const char *path)
{
    size_t start = strspn(path, "/");

    return text_starts_with(path + start, "proc") &&
           strspn(path + start + 4, "/") == strlen(path + start + 4);
}

/* Nothing but a procfs goes on /proc, and nothing of others inside: whoever reads or writes there,
 * we included, relies on it (CVE-2019-16884). */
static int check_proc(const struct container *container, const struct mount_entry *entry,
                      int dest_fd, struct error *err)
{
    struct statfs filesystem;
    struct stat status;
    bool on_proc = is_proc(entry->destination);

    if (fstatfs(dest_fd, &filesystem) < 0)
        return error_errno(err, errno, "destination: stat %s", entry->destination);
    if (filesystem.f_type == PROC_SUPER_MAGIC) {
        if (fstat(dest_fd, &status) < 0)
            return error_errno(err, errno, "destination: stat %s", entry->destination);
        if (status.st_ino != PROC_ROOT_INODE)
            return is_allowed_in_proc(container, &status)
                       ? 0
                       : error_set(err, -EPERM,
                                   "\"%s\" cannot be mounted because it is inside /proc",
                                   entry->destination);
        on_proc = true;
    }
    bool is_new = !entry->bind && text_equal(entry->mount->type, "proc");
    if (!on_proc || is_new || entry->options.remount)
        return 0;
    if (entry->bind && entry->source_fd >= 0 && fstatfs(entry->source_fd, &filesystem) == 0 &&
        filesystem.f_type == PROC_SUPER_MAGIC)
        return 0;
    return error_set(err, -EPERM, "\"%s\" cannot be mounted because it is not of type proc",
                     entry->destination);
}

int mounts_open_destination(struct container *container, const struct mount_entry *entry,
                            bool directory, bool *ret_made, struct error *err)
{
    bool strict = is_strict(entry->mount);
    const char *path = entry->destination;
    int flags = O_PATH | (entry->options.destination_nofollow ? O_NOFOLLOW : 0) |
                (strict ? O_DIRECTORY : 0);
    int fd = file_open_in_root_flags(container->root_fd, path, flags, 0,
                                     strict ? RESOLVE_NO_SYMLINKS : 0);
    bool made = fd == -ENOENT;

    if (made)
        fd = directory ? file_mkdir_in_root(container->root_fd, path, 0755, err)
                       : make_file(container, path, err);
    else if (strict && (fd == -ELOOP || fd == -ENOTDIR))
        return error_set(err, fd, "filesystem \"%s\" must be mounted on ordinary directory",
                         entry->mount->type);
    else if (fd < 0)
        return error_errno(err, -fd, "destination: open %s in the root", path);
    if (fd < 0)
        return fd;
    if (ret_made)
        *ret_made = made;
    int r = check_proc(container, entry, fd, err);
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

static struct mount_place place_of(int fd)
{
    struct mount_place place = {0};

    kernel_mount_id(fd, &place.mount, &place.inode);
    return place;
}

int mounts_attach(struct container *container, int mount_fd, int dest_fd, struct error *err)
{
    struct mount_place place = place_of(dest_fd);
    bool on_root =
        place.inode == container->root_place.inode && place.mount == container->root_place.mount;
    int r = kernel_move_mount(mount_fd, dest_fd);

    if (r < 0)
        return error_errno(err, -r, "attach the mount");
    if (!on_root)
        return 0;
    int fd = openat(mount_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open the new root");
    close_fd(container->root_fd);
    container->root_fd = fd;
    container->root_place = place_of(fd);
    return 0;
}

bool mounts_is_root(const struct container *container, int fd)
{
    struct mount_place root = place_of(container->root_fd), place = place_of(fd);

    return place.inode == root.inode && place.mount == root.mount;
}

int mounts_apply_entry(struct container *container, struct mount_entry *entry, struct error *err)
{
    if (entry->options.remount)
        return mounts_remount(container, entry, err);
    return entry->bind ? mounts_bind(container, entry, err)
                       : mounts_filesystem(container, entry, err);
}

int mounts_apply(struct container *container, struct error *err)
{
    container->root_place = place_of(container->root_fd);
    for (size_t i = 0; i < container->mounts_count; i++) {
        struct mount_entry *entry = &container->mounts[i];
        int r = mounts_apply_entry(container, entry, err);
        if (r < 0) {
            error_context(err,
                          "error during container init: error mounting \"%s\" to rootfs at "
                          "\"%s\": mounts[%zu]",
                          entry->mount->source ? entry->mount->source : "",
                          entry->mount->destination, i);
            return r;
        }
    }
    return 0;
}

/* Who shares the root's directory with us could have moved the place meanwhile. */
static int verify_proc(struct container *container, struct error *err)
{
    struct statfs filesystem;
    struct stat status;
    _cleanup_close_ int fd = file_open_in_root_flags(container->root_fd, "/proc",
                                                     O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);

    if (fd < 0 || fstatfs(fd, &filesystem) < 0 || fstat(fd, &status) < 0)
        return error_errno(err, fd < 0 ? -fd : errno, "verify /proc");
    if (filesystem.f_type != PROC_SUPER_MAGIC || status.st_ino != PROC_ROOT_INODE)
        return error_set(err, -EPERM, "/proc was moved while the container was made");
    return 0;
}

int mounts_complete(struct container *container, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < container->mounts_count; i++) {
        struct mount_entry *entry = &container->mounts[i];
        struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
        if (entry->late_fd >= 0) {
            r = kernel_mount_setattr(entry->late_fd, 0, &attr);
            if (r < 0)
                error_errno(err, -r, "make %s read-only", entry->destination);
        }
        if (r == 0 && text_equal(entry->mount->type, "proc") && is_proc(entry->destination))
            r = verify_proc(container, err);
        if (r < 0)
            error_context(err, "mounts[%zu]", i);
    }
    return r;
}
