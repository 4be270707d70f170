#include "entry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "limits.h"
#include "worker.h"

enum { XATTR_NAMES_MAX = 64 * 1024, LINKS_MAX = 1000000, LINKS_STEP = 64 };

struct entry_link {
    dev_t device;
    ino_t inode;
    char *path;
};

/* Owner, mode and time (in seconds) only: names of users are this machine's. */
static struct archive_entry *new_entry(const struct entries *entries, const char *path,
                                       const struct stat *status)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_copy_pathname(entry, path);
    archive_entry_set_mode(entry, status->st_mode);
    archive_entry_set_uid(entry, entries->owner_root ? 0 : status->st_uid);
    archive_entry_set_gid(entry, entries->owner_root ? 0 : status->st_gid);
    archive_entry_set_mtime(entry, status->st_mtim.tv_sec, 0);
    return entry;
}

static int add_xattr(struct archive_entry *entry, int fd, const char *name, struct error *err)
{
    char value[XATTR_LENGTH_MAX];

    /* Overlayfs keeps its own notes there. */
    if (text_starts_with(name, "user.overlay.") ||
        (!text_starts_with(name, "user.") && !text_equal(name, "security.capability")))
        return 0;
    ssize_t length = fgetxattr(fd, name, value, sizeof(value));
    if (length < 0)
        return errno == ENODATA ? 0 : error_errno(err, errno, "read the attribute %s", name);
    archive_entry_xattr_add_entry(entry, name, value, (size_t)length);
    return 0;
}

/* user.* and the capabilities of the open file, but not overlayfs' own notes. */
static int add_xattrs(struct archive_entry *entry, int fd, struct error *err)
{
    char names[XATTR_NAMES_MAX];
    ssize_t length = flistxattr(fd, names, sizeof(names));

    if (length < 0)
        return errno == ENOTSUP ? 0 : error_errno(err, errno, "list its attributes");
    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        int r = add_xattr(entry, fd, name, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The path that the file already has in the tar, or NULL: then this one is noted. */
static const char *find_link(struct entry_links *links, const struct stat *status, const char *path)
{
    size_t cursor = 0, place;

    if (status->st_nlink < 2)
        return NULL;
    uint64_t hash = table_hash_file(status);
    while (table_next(&links->places, hash, &cursor, &place))
        if (links->links[place].inode == status->st_ino &&
            links->links[place].device == status->st_dev)
            return links->links[place].path;
    if (links->count >= LINKS_MAX)
        return NULL;
    table_add(&links->places, hash, links->count);
    if (links->count % LINKS_STEP == 0)
        links->links = xrealloc(links->links, links->count + LINKS_STEP, sizeof(*links->links));
    links->links[links->count++] =
        (struct entry_link){status->st_dev, status->st_ino, xstrdup(path)};
    return NULL;
}

void entries_finish(struct entries *entries)
{
    struct entry_links *links = &entries->links;

    for (size_t i = 0; i < links->count; i++)
        free(links->links[i].path);
    free(links->links);
    table_finish(&links->places);
    *links = (struct entry_links){0};
}

static int write_data(struct entries *entries, int fd, uint64_t size, struct error *err)
{
    struct entry_data *data = &entries->data;

    while (size) {
        size_t wanted = size < sizeof(data->block) ? (size_t)size : sizeof(data->block);
        ssize_t n = read(fd, data->block, wanted);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read");
        if (n == 0) {
            memset(data->block, 0, wanted);
            n = (ssize_t)wanted;
        }
        int r = tar_writer_data(&entries->writer, data->block, (size_t)n, err);
        if (r < 0)
            return r;
        size -= (uint64_t)n;
        data->bytes += (uint64_t)n;
        message_progress(data->step, data->bytes);
    }
    return 0;
}

/* Takes the entry. */
static int write_entry(struct entries *entries, struct archive_entry *entry, struct error *err)
{
    int r = tar_writer_entry(&entries->writer, entry, err);

    entries->count++;
    archive_entry_free(entry);
    return r;
}

static int write_with_xattrs(struct entries *entries, struct archive_entry *entry, int fd,
                             struct error *err)
{
    int r = add_xattrs(entry, fd, err);

    if (r < 0) {
        archive_entry_free(entry);
        return r;
    }
    return write_entry(entries, entry, err);
}

int entries_write_empty(struct entries *entries, const char *path, struct error *err)
{
    const struct stat status = {.st_mode = S_IFREG | 0600};
    struct archive_entry *entry = new_entry(entries, path, &status);

    archive_entry_set_size(entry, 0);
    return write_entry(entries, entry, err);
}

static int write_regular(struct entries *entries, int folder_fd, const char *name, const char *path,
                         struct error *err)
{
    _cleanup_close_ int fd =
        openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;

    if (fd < 0 && (errno == ENOENT || errno == ELOOP))
        return 0;
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open");
    if (!S_ISREG(status.st_mode))
        return 0;
    struct archive_entry *entry = new_entry(entries, path, &status);
    const char *first = find_link(&entries->links, &status, path);
    if (first) {
        archive_entry_copy_hardlink(entry, first);
        return write_entry(entries, entry, err);
    }
    archive_entry_set_size(entry, status.st_size);
    int r = write_with_xattrs(entries, entry, fd, err);
    return r < 0 ? r : write_data(entries, fd, (uint64_t)status.st_size, err);
}

static int write_symlink(struct entries *entries, int folder_fd, const char *name, const char *path,
                         const struct stat *status, struct error *err)
{
    char target[PATH_LENGTH_MAX + 1];
    ssize_t n = readlinkat(folder_fd, name, target, sizeof(target) - 1);

    if (n < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "read the link");
    target[n] = '\0';
    struct archive_entry *entry = new_entry(entries, path, status);
    archive_entry_copy_symlink(entry, target);
    return write_entry(entries, entry, err);
}

static int write_node(struct entries *entries, const char *path, const struct stat *status,
                      struct error *err)
{
    struct archive_entry *entry = new_entry(entries, path, status);

    archive_entry_set_rdev(entry, status->st_rdev);
    return write_entry(entries, entry, err);
}

int entries_write_file(struct entries *entries, int folder_fd, const char *name, const char *path,
                       const struct stat *status, struct error *err)
{
    int r = 0;

    if (S_ISREG(status->st_mode))
        r = write_regular(entries, folder_fd, name, path, err);
    else if (S_ISLNK(status->st_mode))
        r = write_symlink(entries, folder_fd, name, path, status, err);
    else if (!S_ISSOCK(status->st_mode))
        r = write_node(entries, path, status, err);
    if (r < 0)
        error_context(err, "%s", path);
    return r;
}

int entries_write_folder(struct entries *entries, int fd, const char *path, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_errno(err, errno, "%s", path);
    struct archive_entry *entry = new_entry(entries, path[0] ? path : "./", &status);
    int r = write_with_xattrs(entries, entry, fd, err);
    if (r < 0)
        error_context(err, "%s", path);
    return r;
}

int entries_open_folder(int folder_fd, const char *name, struct error *err)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? -ENOENT
                                                                 : error_errno(err, errno, "open");
}

int entries_list(int fd, const char *path, int depth, entries_visit visit, void *data,
                 struct error *err)
{
    struct dirent **names = NULL;
    int r = 0;

    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "%.200s...: more than %d folders deep", path,
                         PATH_DEPTH_MAX);
    int count = scandirat(fd, ".", &names, NULL, alphasort);
    if (count < 0)
        return error_errno(err, errno, "list %s", path);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = visit(data, name, err);
        free(names[i]);
    }
    free(names);
    return r;
}
