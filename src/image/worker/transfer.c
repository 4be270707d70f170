/*
 * Copying from one root into another as docker's tar and untar do: what is there gives way, but
 * folders are joined; links are copied, not followed; names of one file stay names of one file.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>

#include "building.h"
#include "limits.h"
#include "worker.h"

enum { BLOCK = 256 * 1024, HARD_LINKS_MAX = 1000000, LINKS_FOLLOWED_MAX = 255 };

void transfer_finish(struct transfer *transfer)
{
    for (size_t i = 0; i < transfer->links_count; i++)
        free(transfer->links[i].path);
    free(transfer->links);
    table_finish(&transfer->links_places);
    transfer->links = NULL;
    transfer->links_count = 0;
}

/* --- folders that lead to a place ------------------------------------------------------------- */

static int make_one(struct transfer *transfer, const char *path, const struct owner *owner,
                    struct error *err)
{
    _cleanup_close_ int fd = file_mkdir_in_root(transfer->target_fd, path, 0755, err);

    if (fd < 0)
        return fd;
    if (owner && fchownat(fd, "", owner->uid, owner->gid, AT_EMPTY_PATH) < 0)
        return error_errno(err, errno, "set the owner of %s", path);
    return 0;
}

int transfer_make_folder(struct transfer *transfer, const char *path, const struct owner *owner,
                         bool *ret_made, struct error *err)
{
    _cleanup_free_ char *part = xstrdup(path);
    size_t length = strlen(path);

    *ret_made = false;
    for (size_t i = 1; i <= length; i++) {
        if (part[i] && part[i] != '/')
            continue;
        char saved = part[i];
        part[i] = '\0';
        int fd = file_open_in_root(transfer->target_fd, part, O_PATH | O_DIRECTORY, 0);
        *ret_made = fd == -ENOENT;
        if (fd == -ENOTDIR)
            return error_set(err, -ENOTDIR, "cannot copy to non-directory: %s", part);
        if (fd < 0 && fd != -ENOENT)
            return error_errno(err, -fd, "open %s", part);
        close_fd(fd);
        int r = fd < 0 ? make_one(transfer, part, owner, err) : 0;
        if (r < 0)
            return r;
        part[i] = saved;
    }
    return 0;
}

/* --- links ------------------------------------------------------------------------------------ */

static void take_component(char **rest, char **ret)
{
    size_t length;

    *rest += strspn(*rest, "/");
    length = strcspn(*rest, "/");
    *ret = length ? xstrndup(*rest, length) : NULL;
    *rest += length;
}

static void drop_component(struct buffer *out)
{
    while (out->length && out->data[--out->length] != '/')
        ;
    if (out->data)
        out->data[out->length] = '\0';
}

/* Nobody else changes the target meanwhile, and what is in `out` has no links. */
int transfer_resolve(const struct transfer *transfer, const char *path, char **ret,
                     struct error *err)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_free_ char *text = xstrdup(path);
    char *rest = text, *name, target[PATH_LENGTH_MAX + 1];
    unsigned links = 0;

    for (take_component(&rest, &name); name; free(name), take_component(&rest, &name)) {
        size_t before = out.length;
        if (text_equal(name, "."))
            continue;
        if (text_equal(name, "..")) {
            drop_component(&out);
            continue;
        }
        buffer_printf(&out, "/%s", name);
        ssize_t n = readlinkat(transfer->target_fd, out.data + 1, target, sizeof(target) - 1);
        if (n < 0)
            continue;
        if (++links > LINKS_FOLLOWED_MAX) {
            free(name);
            return error_set(err, -ELOOP, "%s: too many links", path);
        }
        target[n] = '\0';
        out.length = target[0] == '/' ? 0 : before;
        out.data[out.length] = '\0';
        char *joined = xasprintf("%s/%s", target, rest);
        free(text);
        rest = text = joined;
    }
    *ret = out.length ? buffer_steal(&out) : xstrdup("/");
    return 0;
}

/* --- one file --------------------------------------------------------------------------------- */

static int copy_data(struct transfer *transfer, int from, int to, struct error *err)
{
    for (;;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, 64 << 20, 0);
        if (n == 0)
            return 0;
        if (n > 0) {
            transfer->bytes += (uint64_t)n;
            message_progress("copy", transfer->bytes);
            continue;
        }
        if (errno != EINTR)
            break;
    }
    /* Not between these two file systems. */
    _cleanup_free_ char *block = xmalloc(BLOCK);
    for (ssize_t n; (n = read(from, block, BLOCK)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        int r = n < 0 ? -errno : file_write_all(to, block, (size_t)n);
        if (r < 0)
            return error_errno(err, -r, "copy");
        transfer->bytes += (uint64_t)n;
        message_progress("copy", transfer->bytes);
    }
    return 0;
}

static int copy_capability(int from, int to, struct error *err)
{
    char value[XATTR_LENGTH_MAX];
    ssize_t length = fgetxattr(from, "security.capability", value, sizeof(value));

    if (length > 0 && fsetxattr(to, "security.capability", value, (size_t)length, 0) < 0)
        return error_errno(err, errno, "set its capabilities");
    return 0;
}

static struct owner owner_of(const struct transfer *transfer, const struct stat *status)
{
    return transfer->owner ? *transfer->owner : (struct owner){status->st_uid, status->st_gid};
}

/* Of a file that gets another owner chown clears set-user-ID and capabilities, as docker's builder
 * has it; one that keeps its owner keeps these, too, and a mode that is asked for is what it gets.
 */
static int set_metadata(const struct transfer *transfer, int from, int to,
                        const struct stat *status, struct error *err)
{
    const struct owner owner = owner_of(transfer, status);
    const struct timespec times[2] = {status->st_mtim, status->st_mtim};
    mode_t mode = transfer->mode ? *transfer->mode : status->st_mode & 07777;
    bool clears = transfer->owner && !transfer->mode;
    int r = 0;

    if (clears && fchmod(to, mode) < 0)
        return error_errno(err, errno, "set its mode");
    if (fchown(to, owner.uid, owner.gid) < 0)
        return error_errno(err, errno, "set its owner");
    if (!clears && fchmod(to, mode) < 0)
        return error_errno(err, errno, "set its mode");
    if (!clears && S_ISREG(status->st_mode))
        r = copy_capability(from, to, err);
    if (r == 0 && futimens(to, times) < 0)
        r = error_errno(err, errno, "set its time");
    return r;
}

static struct copied_link *find_link(const struct transfer *transfer, const struct stat *status)
{
    size_t cursor = 0, place;

    if (status->st_nlink < 2)
        return NULL;
    while (table_next(&transfer->links_places, table_hash_file(status), &cursor, &place)) {
        struct copied_link *link = &transfer->links[place];
        if (link->inode == status->st_ino && link->device == status->st_dev)
            return link;
    }
    return NULL;
}

/* `to`: what was made there. link: what was noted of the file before, or NULL. */
static void note_link(struct transfer *transfer, struct copied_link *link,
                      const struct stat *status, int to, const char *path)
{
    struct stat made;

    if (status->st_nlink < 2 || fstat(to, &made) < 0)
        return;
    if (link) {
        free(link->path);
        *link = (struct copied_link){status->st_dev, status->st_ino, xstrdup(path), made.st_ino,
                                     made.st_dev};
        return;
    }
    if (transfer->links_count >= HARD_LINKS_MAX)
        return;
    table_add(&transfer->links_places, table_hash_file(status), transfer->links_count);
    if (transfer->links_count % 64 == 0)
        transfer->links =
            xrealloc(transfer->links, transfer->links_count + 64, sizeof(*transfer->links));
    transfer->links[transfer->links_count++] = (struct copied_link){
        status->st_dev, status->st_ino, xstrdup(path), made.st_ino, made.st_dev};
}

/* Another name of a file that was copied before. 1: that is no longer where it was, since another
 * source has a file of its name. */
static int make_link(const struct transfer *transfer, const struct copied_link *link, int to_fd,
                     const char *name, struct error *err)
{
    const char *first_name;
    _cleanup_close_ int parent =
        file_open_parent_in_root(transfer->target_fd, link->path, 0, &first_name, err);

    struct stat status;

    if (parent < 0)
        return parent;
    if (fstatat(parent, first_name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        status.st_ino != link->made || status.st_dev != link->made_device)
        return 1;
    if (linkat(parent, first_name, to_fd, name, 0) < 0)
        return error_errno(err, errno, "link to %s", link->path);
    return 0;
}

static int copy_regular(struct transfer *transfer, int from, const struct stat *status, int to_fd,
                        const char *name, const char *path, struct error *err)
{
    struct copied_link *link = find_link(transfer, status);
    int r = link ? make_link(transfer, link, to_fd, name, err) : 1;

    if (r <= 0)
        return r;
    _cleanup_close_ int to =
        openat(to_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return error_errno(err, errno, "create");
    r = copy_data(transfer, from, to, err);
    if (r == 0)
        r = set_metadata(transfer, from, to, status, err);
    if (r == 0)
        note_link(transfer, link, status, to, path);
    return r;
}

static int set_outside(const struct transfer *transfer, const struct stat *status, int to_fd,
                       const char *name, struct error *err)
{
    const struct owner owner = owner_of(transfer, status);
    const struct timespec times[2] = {status->st_mtim, status->st_mtim};

    if (fchownat(to_fd, name, owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "set its owner");
    if (utimensat(to_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "set its time");
    return 0;
}

static int copy_symlink(const struct transfer *transfer, int parent_fd, const char *from_name,
                        const struct stat *status, int to_fd, const char *name, struct error *err)
{
    char target[PATH_LENGTH_MAX + 1];
    ssize_t n = readlinkat(parent_fd, from_name, target, sizeof(target) - 1);

    if (n < 0)
        return error_errno(err, errno, "read the link");
    target[n] = '\0';
    if (symlinkat(target, to_fd, name) < 0)
        return error_errno(err, errno, "create");
    return set_outside(transfer, status, to_fd, name, err);
}

static int copy_node(const struct transfer *transfer, const struct stat *status, int to_fd,
                     const char *name, struct error *err)
{
    mode_t mode = transfer->mode ? *transfer->mode : status->st_mode & 07777;

    if (S_ISSOCK(status->st_mode)) /* of no use without its server; docker leaves it out, too */
        return 0;
    if (mknodat(to_fd, name, (status->st_mode & S_IFMT) | mode, status->st_rdev) < 0)
        return error_errno(err, errno, "create");
    return set_outside(transfer, status, to_fd, name, err);
}

static int copy_item(struct transfer *transfer, int parent_fd, const char *from_name, int to_fd,
                     const char *name, const char *path, struct error *err)
{
    struct stat status;

    if (fstatat(parent_fd, from_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "look at it");
    int r = file_remove_tree_at(to_fd, name, err);
    if (r < 0)
        return r;
    if (S_ISLNK(status.st_mode))
        return copy_symlink(transfer, parent_fd, from_name, &status, to_fd, name, err);
    if (!S_ISREG(status.st_mode))
        return copy_node(transfer, &status, to_fd, name, err);
    _cleanup_close_ int from =
        openat(parent_fd, from_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (from < 0)
        return error_errno(err, errno, "open");
    return copy_regular(transfer, from, &status, to_fd, name, path, err);
}

/* Through a descriptor of the file itself: links to it were followed. */
int transfer_file(struct transfer *transfer, int from, const char *to, struct error *err)
{
    const char *name;
    struct stat status;
    _cleanup_close_ int to_fd = file_open_parent_in_root(transfer->target_fd, to, 0, &name, err);

    if (to_fd < 0)
        return to_fd;
    int r = fstat(from, &status) < 0 ? error_errno(err, errno, "look at it")
                                     : file_remove_tree_at(to_fd, name, err);
    if (r == 0)
        r = S_ISREG(status.st_mode) ? copy_regular(transfer, from, &status, to_fd, name, to, err)
                                    : copy_node(transfer, &status, to_fd, name, err);
    if (r < 0)
        error_context(err, "%s", to);
    return r;
}

int transfer_text(struct transfer *transfer, const char *text, const char *to, struct error *err)
{
    const struct owner owner = transfer->owner ? *transfer->owner : (struct owner){0, 0};
    const char *name;
    _cleanup_close_ int to_fd = file_open_parent_in_root(transfer->target_fd, to, 0, &name, err);

    if (to_fd < 0)
        return to_fd;
    int r = file_remove_tree_at(to_fd, name, err);
    if (r < 0)
        return r;
    _cleanup_close_ int fd =
        openat(to_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, errno, "create %s", to);
    r = file_write_all(fd, text, strlen(text));
    if (r < 0)
        return error_errno(err, -r, "write %s", to);
    if (fchown(fd, owner.uid, owner.gid) < 0 ||
        fchmod(fd, transfer->mode ? *transfer->mode : 0644) < 0)
        return error_errno(err, errno, "set the owner of %s", to);
    return 0;
}

/* --- folders ---------------------------------------------------------------------------------- */

static int copy_folder(struct transfer *transfer, int from_fd, int to_fd, const char *path,
                       unsigned depth, struct error *err);

/* A folder in the place of anything else makes that give way, also a link to a folder. */
static int open_joined(int to_fd, const char *name, struct error *err)
{
    int fd = openat(to_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    int r = file_remove_tree_at(to_fd, name, err);
    if (r < 0)
        return r;
    if (mkdirat(to_fd, name, 0755) < 0)
        return error_errno(err, errno, "create");
    fd = openat(to_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open") : fd;
}

static int join_folder(struct transfer *transfer, int parent_fd, int to_fd, const char *name,
                       const char *path, unsigned depth, struct error *err)
{
    _cleanup_close_ int from =
        openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;

    if (from < 0 || fstat(from, &status) < 0)
        return error_errno(err, errno, "open");
    _cleanup_close_ int to = open_joined(to_fd, name, err);
    if (to < 0)
        return to;
    int r = copy_folder(transfer, from, to, path, depth + 1, err);
    return r < 0 ? r : set_metadata(transfer, from, to, &status, err);
}

static int copy_entry(struct transfer *transfer, int from_fd, int to_fd, const char *folder,
                      const struct dirent *entry, unsigned depth, struct error *err)
{
    _cleanup_free_ char *path =
        xasprintf("%s%s%s", folder, text_ends_with(folder, "/") ? "" : "/", entry->d_name);
    struct stat status;

    if (fstatat(from_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "%s", path);
    int r = S_ISDIR(status.st_mode)
                ? join_folder(transfer, from_fd, to_fd, entry->d_name, path, depth, err)
                : copy_item(transfer, from_fd, entry->d_name, to_fd, entry->d_name, path, err);
    if (r < 0 && depth == 0)
        error_context(err, "%s", path);
    return r;
}

static int copy_folder(struct transfer *transfer, int from_fd, int to_fd, const char *path,
                       unsigned depth, struct error *err)
{
    struct dirent **names = NULL;
    int r = 0;

    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "more than %d folders deep", PATH_DEPTH_MAX);
    int count = scandirat(from_fd, ".", &names, NULL, alphasort);
    if (count < 0)
        return error_errno(err, errno, "list %s", path);
    for (int i = 0; i < count; i++) {
        if (r == 0 && !text_equal(names[i]->d_name, ".") && !text_equal(names[i]->d_name, ".."))
            r = copy_entry(transfer, from_fd, to_fd, path, names[i], depth, err);
        free(names[i]);
    }
    free(names);
    return r;
}

int transfer_folder(struct transfer *transfer, int folder_fd, const char *to, struct error *err)
{
    _cleanup_close_ int to_fd =
        file_open_in_root(transfer->target_fd, to, O_RDONLY | O_DIRECTORY, 0);

    if (to_fd < 0)
        return error_errno(err, -to_fd, "open %s", to);
    return copy_folder(transfer, folder_fd, to_fd, to, 0, err);
}
