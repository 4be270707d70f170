#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "flush.h"
#include "limits.h"
#include "unpack.h"
#include "whiteout.h"

enum { FLUSH_SIZE = 1024 * 1024 }; /* of a file whose writing begins when it is complete */

/* What one entry is, after its path was cleaned. */
struct item {
    struct archive_entry *entry;
    char *path;       /* clean, owned; "" is the root */
    const char *name; /* last component, in path */
    int parent_fd;    /* borrowed */
};

void unpack_init(struct unpack *unpack, int root_fd)
{
    *unpack = (struct unpack){.root_fd = root_fd, .parent_fd = -1};
}

void unpack_finish(struct unpack *unpack)
{
    free(unpack->parent_path);
    close_fd(unpack->parent_fd);
    for (size_t i = 0; unpack->implicit && i < unpack->implicit_count; i++)
        free(unpack->implicit[i]);
    free(unpack->implicit);
    table_finish(&unpack->implicit_places);
    table_finish(&unpack->times_places);
    for (size_t i = 0; i < unpack->times_count; i++)
        free(unpack->times[i].path);
    free(unpack->times);
    unpack_init(unpack, -1);
}

static void forget_parent(struct unpack *unpack)
{
    free(steal_ptr(unpack->parent_path));
    close_fd(steal_fd(&unpack->parent_fd));
}

static int note_implicit(struct unpack *unpack, const char *path, struct error *err)
{
    if (unpack->rules)
        return 0;
    if (unpack->implicit_count >= IMPLICIT_FOLDERS_MAX)
        return error_set(err, -EFBIG, "more than %d folders without an entry of their own",
                         IMPLICIT_FOLDERS_MAX);
    if (unpack->implicit_count % 256 == 0)
        unpack->implicit = xrealloc(unpack->implicit, unpack->implicit_count + 257, sizeof(char *));
    table_add(&unpack->implicit_places, table_hash_text(path), unpack->implicit_count);
    unpack->implicit[unpack->implicit_count++] = xstrdup(path);
    unpack->implicit[unpack->implicit_count] = NULL;
    return 0;
}

/* A slash between the two places, near the middle; 0: there is none. */
static size_t middle_slash(const char *path, size_t after, size_t before)
{
    size_t middle = after + (before - after) / 2;

    for (size_t at = middle; at > after; at--)
        if (path[at] == '/')
            return at;
    for (size_t at = middle + 1; at < before; at++)
        if (path[at] == '/')
            return at;
    return 0;
}

/* The longest beginning of the path that is there. By halves: through links, which may follow each
 * other, a look at a path can take as long as many thousand others. */
static int open_beginning(const struct unpack *unpack, const char *path, size_t *ret_length,
                          struct error *err)
{
    _cleanup_close_ int found = file_open_in_root(unpack->root_fd, ".", O_PATH | O_DIRECTORY, 0);
    size_t there = 0, missing = strlen(path), at;

    while (found >= 0 && (at = middle_slash(path, there, missing))) {
        _cleanup_free_ char *part = xstrndup(path, at);
        int fd = file_open_in_root(unpack->root_fd, part, O_PATH | O_DIRECTORY, 0);
        if (fd == -ENOENT) {
            missing = at;
            continue;
        }
        if (fd < 0)
            return error_errno(err, -fd, "open its folder '%s'", part);
        close_fd(found);
        found = fd;
        there = at;
    }
    if (found < 0)
        return error_errno(err, -found, "open the root");
    *ret_length = there;
    return steal_fd(&found);
}

/* path is that of the new folder, the last component of which is name. */
static int make_implicit(struct unpack *unpack, int above_fd, const char *path, const char *name,
                         struct error *err)
{
    if (mkdirat(above_fd, name, 0755) < 0)
        return error_errno(err, errno, "create its folder '%s'", path);
    int r = note_implicit(unpack, path, err);
    if (r < 0)
        return r;
    int fd = openat(above_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open its folder '%s'", path) : fd;
}

/* Finds or makes the folder. */
static int open_parent(struct unpack *unpack, const char *parent, struct error *err)
{
    size_t at = 0;
    int fd = file_open_in_root(unpack->root_fd, parent[0] ? parent : ".", O_PATH | O_DIRECTORY, 0);

    if (fd != -ENOENT)
        return fd < 0 ? error_errno(err, -fd, "open its folder '%s'", parent) : fd;
    fd = open_beginning(unpack, parent, &at, err);
    while (fd >= 0 && parent[at]) {
        size_t begin = at + (parent[at] == '/');
        at = begin + strcspn(parent + begin, "/");
        _cleanup_free_ char *path = xstrndup(parent, at);
        int below = make_implicit(unpack, fd, path, path + begin, err);
        close_fd(fd);
        fd = below;
    }
    return fd;
}

static int find_parent(struct unpack *unpack, struct item *item, struct error *err)
{
    char *slash = strrchr(item->path, '/');
    size_t length = slash ? (size_t)(slash - item->path) : 0;

    item->name = slash ? slash + 1 : item->path;
    if (unpack->parent_path && strlen(unpack->parent_path) == length &&
        !memcmp(unpack->parent_path, item->path, length)) {
        item->parent_fd = unpack->parent_fd;
        return 0;
    }
    forget_parent(unpack);
    _cleanup_free_ char *parent = xstrndup(item->path, length);
    int fd = open_parent(unpack, parent, err);
    if (fd < 0)
        return fd;
    unpack->parent_path = steal_ptr(parent);
    unpack->parent_fd = item->parent_fd = fd;
    return 0;
}

/* Where a folder gave way to a file, a link or a whiteout, umoci writes whiteouts of the folder's
 * files, too: they have nothing left to hide. */
static bool parent_is_no_folder(int open_parent_result)
{
    return open_parent_result == -ENOTDIR || open_parent_result == -EEXIST ||
           open_parent_result == -ELOOP;
}

/* docker's NoOverwriteDirNonDir. */
static int check_kind(const struct item *item, struct error *err)
{
    bool folder = archive_entry_filetype(item->entry) == AE_IFDIR;
    struct stat status;

    if (fstatat(item->parent_fd, item->name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        S_ISDIR(status.st_mode) == folder)
        return 0;
    return error_set(err, -ENOTDIR, "cannot overwrite %s \"/%s\" with %s",
                     folder ? "non-directory" : "directory", item->path,
                     folder ? "directory" : "non-directory");
}

/* A later entry of the same path wins (docker and containerd agree). */
static int remove_existing(struct unpack *unpack, const struct item *item, struct error *err)
{
    int r = unpack->rules && unpack->rules->keep_kind ? check_kind(item, err) : 0;

    if (r == 0)
        r = file_remove_tree_at(item->parent_fd, item->name, err);

    forget_parent(unpack); /* it may have been what was removed */
    return r;
}

static struct timespec modification_time(struct archive_entry *entry)
{
    return (struct timespec){archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
}

/* Attributes that the layer may set. Overlayfs' own would change what the layer means when it is
 * mounted; the rest (security modules, ACLs, trusted) belongs to the machine that made the image.
 */
static int check_xattr(const struct unpack *unpack, const char *name, bool *ret_wanted,
                       struct error *err)
{
    bool overlay =
        text_starts_with(name, "user.overlay.") || text_starts_with(name, "trusted.overlay.");

    if (overlay && unpack->rules) {
        *ret_wanted = false;
        return 0;
    }
    if (overlay)
        return error_set(err, -EBADMSG, "the attribute %s is not allowed in a layer", name);
    *ret_wanted = text_equal(name, "security.capability") || text_starts_with(name, "user.");
    return 0;
}

/* What a file system, or one without the right to, cannot keep is left out by `cp`, as by others.
 */
static bool may_lack(const struct unpack *unpack)
{
    return unpack->rules && (errno == ENOTSUP || errno == EPERM);
}

static int set_xattrs(const struct unpack *unpack, int fd, struct archive_entry *entry,
                      struct error *err)
{
    const char *name;
    const void *value;
    size_t length;

    if (archive_entry_xattr_reset(entry) == 0)
        return 0;
    while (archive_entry_xattr_next(entry, &name, &value, &length) == ARCHIVE_OK) {
        bool wanted;
        int r = check_xattr(unpack, name, &wanted, err);
        if (r < 0)
            return r;
        if (!wanted)
            continue;
        if (length > XATTR_LENGTH_MAX)
            return error_set(err, -EFBIG, "the attribute %s is larger than %d bytes", name,
                             XATTR_LENGTH_MAX);
        if (fsetxattr(fd, name, value, length, 0) < 0 && !may_lack(unpack))
            return error_errno(err, errno, "set the attribute %s", name);
    }
    return 0;
}

/* Whose a file will be; (uid_t)-1 and (gid_t)-1: it stays as it was made. */
struct owner {
    uid_t uid;
    gid_t gid;
};

static int owner_for(const struct unpack *unpack, struct archive_entry *entry, struct owner *ret,
                     struct error *err)
{
    la_int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

    if (unpack->rules && unpack->rules->keep_owner) {
        *ret = (struct owner){(uid_t)-1, (gid_t)-1};
        return 0;
    }
    if (unpack->rules && unpack->rules->given_owner) {
        *ret = (struct owner){unpack->rules->uid, unpack->rules->gid};
        return 0;
    }
    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return error_set(err, -EBADMSG, "its owner %lld:%lld is out of range", (long long)uid,
                         (long long)gid);
    *ret = (struct owner){(uid_t)uid, (gid_t)gid};
    return 0;
}

/* Owner, mode and attributes by a descriptor of a regular file or folder, in the order that keeps
 * set-user-ID bits and capabilities: chown clears them. */
static int set_metadata(const struct unpack *unpack, int fd, struct archive_entry *entry,
                        struct error *err)
{
    mode_t mode = archive_entry_perm(entry) & 07777;
    struct owner owner;
    int r = owner_for(unpack, entry, &owner, err);

    if (r < 0)
        return r;
    if (fchown(fd, owner.uid, owner.gid) < 0)
        return error_errno(err, errno, "set its owner %u:%u", owner.uid, owner.gid);
    if (fchmod(fd, mode) < 0)
        return error_errno(err, errno, "set its mode %o", mode);
    return set_xattrs(unpack, fd, entry, err);
}

static int copy_data(int fd, struct tar *tar, uint64_t size, struct error *err)
{
    const void *block;
    size_t length;
    int64_t offset, end = 0;
    uint64_t begun = 0;
    int r;

    while ((r = tar_data(tar, &block, &length, &offset, err)) > 0) {
        if (offset < end || (uint64_t)offset + length > size)
            return error_set(err, -EBADMSG, "its data does not fit its size");
        if (offset != end && lseek(fd, offset, SEEK_SET) < 0)
            return error_errno(err, errno, "seek");
        r = file_write_all(fd, block, length);
        if (r < 0)
            return error_errno(err, -r, "write");
        end = offset + (int64_t)length;
        flush_begin(fd, (uint64_t)end, &begun);
    }
    if (r < 0)
        return r;
    if ((uint64_t)end < size && ftruncate(fd, (off_t)size) < 0)
        return error_errno(err, errno, "set its size %llu", (unsigned long long)size);
    return 0;
}

static int create_file(struct unpack *unpack, struct item *item, struct tar *tar, struct error *err)
{
    la_int64_t size = archive_entry_size(item->entry);

    if (size < 0 || (uint64_t)size > LAYER_BYTES_MAX - unpack->bytes)
        return error_set(err, -EFBIG,
                         "the files of the layer are larger than %llu GiB "
                         "(LAYER_BYTES_MAX)",
                         LAYER_BYTES_MAX >> 30);
    unpack->bytes += (uint64_t)size;
    _cleanup_close_ int fd = openat(item->parent_fd, item->name,
                                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? -EEXIST : error_errno(err, errno, "create");
    int r = copy_data(fd, tar, (uint64_t)size, err);
    if (size >= FLUSH_SIZE) /* what flush_begin has left of it */
        sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    if (r == 0)
        r = set_metadata(unpack, fd, item->entry, err);
    struct timespec times[2] = {modification_time(item->entry), modification_time(item->entry)};
    if (r == 0 && futimens(fd, times) < 0)
        r = error_errno(err, errno, "set its time");
    return r;
}

static void note_time(struct unpack *unpack, const struct item *item)
{
    uint64_t hash = table_hash_text(item->path);
    size_t cursor = 0, place;

    /* Once for each folder, however often it comes. */
    while (table_next(&unpack->times_places, hash, &cursor, &place)) {
        if (!text_equal(unpack->times[place].path, item->path))
            continue;
        unpack->times[place].time = modification_time(item->entry);
        return;
    }
    table_add(&unpack->times_places, hash, unpack->times_count);
    if (unpack->times_count % 256 == 0)
        unpack->times = xrealloc(unpack->times, unpack->times_count + 256, sizeof(*unpack->times));
    unpack->times[unpack->times_count++] =
        (struct folder_time){xstrdup(item->path), modification_time(item->entry)};
}

/* The entry of a folder that was made implicitly comes after its contents in some archives. */
static void forget_implicit(struct unpack *unpack, const char *path)
{
    uint64_t hash = table_hash_text(path);
    size_t cursor = 0, place;

    while (table_next(&unpack->implicit_places, hash, &cursor, &place)) {
        if (unpack->implicit[place] && text_equal(unpack->implicit[place], path))
            free(steal_ptr(unpack->implicit[place]));
    }
}

static void close_gaps(struct unpack *unpack)
{
    size_t kept = 0;

    for (size_t i = 0; i < unpack->implicit_count; i++)
        if (unpack->implicit[i])
            unpack->implicit[kept++] = unpack->implicit[i];
    unpack->implicit_count = kept;
    if (unpack->implicit)
        unpack->implicit[kept] = NULL;
}

static int create_folder(struct unpack *unpack, struct item *item, struct error *err)
{
    bool root = !item->path[0];

    if (!root && mkdirat(item->parent_fd, item->name, 0700) < 0) {
        struct stat status;
        if (errno != EEXIST)
            return error_errno(err, errno, "create");
        if (fstatat(item->parent_fd, item->name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            return error_errno(err, errno, "create");
        if (!S_ISDIR(status.st_mode))
            return -EEXIST;
        forget_implicit(unpack, item->path);
    }
    _cleanup_close_ int fd =
        root ? openat(unpack->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
             : openat(item->parent_fd, item->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open");
    note_time(unpack, item);
    return set_metadata(unpack, fd, item->entry, err);
}

/* Owner and times of what cannot be opened: links, devices, pipes. */
static int set_owner_and_time(const struct unpack *unpack, const struct item *item,
                              struct error *err)
{
    struct timespec times[2] = {modification_time(item->entry), modification_time(item->entry)};
    struct owner owner;
    int r = owner_for(unpack, item->entry, &owner, err);

    if (r < 0)
        return r;
    if (fchownat(item->parent_fd, item->name, owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "set its owner");
    if (utimensat(item->parent_fd, item->name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "set its time");
    return 0;
}

/* The target is text: whoever follows it later does so inside a root. */
static int create_symlink(const struct unpack *unpack, const struct item *item, struct error *err)
{
    const char *target = archive_entry_symlink(item->entry);

    if (!target)
        target = archive_entry_symlink_utf8(item->entry);
    if (text_empty(target))
        return error_set(err, -EBADMSG, "a symbolic link without a target");
    if (symlinkat(target, item->parent_fd, item->name) < 0)
        return errno == EEXIST ? -EEXIST : error_errno(err, errno, "create");
    return set_owner_and_time(unpack, item, err);
}

static int create_node(const struct unpack *unpack, const struct item *item, mode_t type,
                       struct error *err)
{
    dev_t device = S_ISFIFO(type) ? 0 : archive_entry_rdev(item->entry);

    /* umask is 0 in the worker. */
    if (mknodat(item->parent_fd, item->name, type | (archive_entry_perm(item->entry) & 07777),
                device) < 0)
        return errno == EEXIST ? -EEXIST : error_errno(err, errno, "create");
    return set_owner_and_time(unpack, item, err);
}

/* An entry's path, or the target of a hard link, in the root. Owned. */
static int path_in_root(const struct unpack *unpack, const char *text, char **ret,
                        struct error *err)
{
    const struct unpack_rules *rules = unpack->rules;
    _cleanup_free_ char *path = NULL;
    int r = tar_clean_path(text, &path, err);

    if (r < 0 || !rules) {
        *ret = steal_ptr(path);
        return r;
    }
    *ret = path[0] && rules->base[0] ? xasprintf("%s/%s", rules->base, path) : steal_ptr(path);
    return 0;
}

/* The target's path is one inside the layer, its last component is not followed. */
static int create_hard_link(struct unpack *unpack, const struct item *item, const char *target,
                            struct error *err)
{
    _cleanup_free_ char *path = NULL;
    int r = path_in_root(unpack, target, &path, err);

    if (r < 0)
        return error_context(err, "hard link to '%s'", target), r;
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *parent = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup(".");
    _cleanup_close_ int parent_fd =
        file_open_in_root(unpack->root_fd, parent, O_PATH | O_DIRECTORY, 0);
    if (parent_fd < 0)
        return error_errno(err, -parent_fd, "hard link to '%s'", target);
    const char *name = slash ? slash + 1 : path;
    struct stat from, to;
    if (fstatat(parent_fd, name, &from, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "hard link to '%s', which the layer does not have", target);
    if (fstatat(item->parent_fd, item->name, &to, AT_SYMLINK_NOFOLLOW) == 0 &&
        from.st_dev == to.st_dev && from.st_ino == to.st_ino)
        return 0; /* to itself, or made before */
    if (linkat(parent_fd, name, item->parent_fd, item->name, 0) < 0)
        return errno == EEXIST ? -EEXIST : error_errno(err, errno, "hard link to '%s'", target);
    return 0;
}

static int create_item(struct unpack *unpack, struct item *item, struct tar *tar, struct error *err)
{
    const char *hard_link = archive_entry_hardlink(item->entry);
    mode_t type = archive_entry_filetype(item->entry);

    if (!hard_link)
        hard_link = archive_entry_hardlink_utf8(item->entry);
    if (hard_link)
        return create_hard_link(unpack, item, hard_link, err);
    switch (type) {
    case AE_IFREG:
        return create_file(unpack, item, tar, err);
    case AE_IFDIR:
        return create_folder(unpack, item, err);
    case AE_IFLNK:
        return create_symlink(unpack, item, err);
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
        return create_node(unpack, item, type, err);
    default:
        return error_set(err, -EBADMSG, "an entry of unknown type %o", type);
    }
}

/* What is at the place of the new entry gives way. A folder that takes the place of a whiteout of
 * this layer hides the folder below: it is opaque. */
static int replace_item(struct unpack *unpack, struct item *item, struct tar *tar,
                        struct error *err)
{
    bool was_whiteout = !unpack->rules && whiteout_is(item->parent_fd, item->name);
    int r = remove_existing(unpack, item, err);

    if (r == 0)
        r = find_parent(unpack, item, err);
    if (r == 0)
        r = create_item(unpack, item, tar, err);
    if (r == 0 && was_whiteout && archive_entry_filetype(item->entry) == AE_IFDIR)
        r = whiteout_set_opaque(item->parent_fd, item->name, err);
    return r == -EEXIST ? error_set(err, -EEXIST, "its place is taken") : r;
}

static int unpack_item(struct unpack *unpack, struct item *item, struct tar *tar, struct error *err)
{
    const char *path = tar_path(item->entry);

    if (!path)
        return error_set(err, -EBADMSG, "an entry without a path");
    int r = path_in_root(unpack, path, &item->path, err);
    if (r < 0)
        return r;
    if (!item->path[0] && unpack->rules)
        return 0; /* the folder that gets it all stays as it is */
    if (!item->path[0])
        return archive_entry_filetype(item->entry) == AE_IFDIR
                   ? create_folder(unpack, item, err)
                   : error_set(err, -EBADMSG, "the root of a layer must be a folder");
    bool plain = unpack->rules;
    _cleanup_error_ struct error reason = ERROR_INIT;
    r = find_parent(unpack, item, &reason);
    if (r < 0 && !plain && whiteout_is_name(item->name) && parent_is_no_folder(r))
        return 0;
    if (r < 0)
        return error_move(err, &reason);
    if (!plain && whiteout_is_name(item->name))
        return whiteout_apply(item->parent_fd, item->name, err);
    r = create_item(unpack, item, tar, err);
    if (r == -EEXIST && (!err || !err->code))
        r = replace_item(unpack, item, tar, err);
    return r;
}

int unpack_entry(struct unpack *unpack, struct tar *tar, struct archive_entry *entry,
                 struct error *err)
{
    struct item item = {.entry = entry, .parent_fd = -1};
    const char *path = tar_path(entry);
    int r;

    if (++unpack->entries > LAYER_ENTRIES_MAX)
        return error_set(err, -EFBIG, "more than %d entries (LAYER_ENTRIES_MAX)",
                         LAYER_ENTRIES_MAX);
    r = unpack_item(unpack, &item, tar, err);
    if (r < 0)
        error_context(err, "entry %llu '%.200s'", (unsigned long long)unpack->entries,
                      path ? path : "");
    free(item.path);
    return r;
}

int unpack_complete(struct unpack *unpack, struct error *err)
{
    close_gaps(unpack);
    for (size_t i = 0; i < unpack->times_count; i++) {
        const struct folder_time *folder = &unpack->times[i];
        const struct timespec times[2] = {folder->time, folder->time};
        _cleanup_close_ int fd = file_open_in_root(
            unpack->root_fd, folder->path[0] ? folder->path : ".", O_RDONLY | O_DIRECTORY, 0);
        if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) /* replaced by a later entry */
            continue;
        if (fd < 0 || futimens(fd, times) < 0)
            return error_errno(err, fd < 0 ? -fd : errno, "set the time of '%s'", folder->path);
    }
    return 0;
}
