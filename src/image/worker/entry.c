#include "entry.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "limits.h"
#include "worker.h"

enum { XATTR_NAMES_MAX = 64 * 1024, LINKS_MAX = 1000000, LINKS_STEP = 64 };

struct entry_link {
    dev_t device;
    ino_t inode;
    char *path;
};

struct archive_entry *entry_new(const char *path, const struct stat *status)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_copy_pathname(entry, path);
    archive_entry_set_mode(entry, status->st_mode);
    archive_entry_set_uid(entry, status->st_uid);
    archive_entry_set_gid(entry, status->st_gid);
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

int entry_add_xattrs(struct archive_entry *entry, int fd, struct error *err)
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

const char *entry_links_find(struct entry_links *links, const struct stat *status, const char *path)
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

void entry_links_finish(struct entry_links *links)
{
    for (size_t i = 0; i < links->count; i++)
        free(links->links[i].path);
    free(links->links);
    table_finish(&links->places);
    *links = (struct entry_links){0};
}

int entry_write_data(struct entry_data *data, struct tar_writer *writer, int fd, uint64_t size,
                     struct error *err)
{
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
        int r = tar_writer_data(writer, data->block, (size_t)n, err);
        if (r < 0)
            return r;
        size -= (uint64_t)n;
        data->bytes += (uint64_t)n;
        message_progress(data->step, data->bytes);
    }
    return 0;
}
