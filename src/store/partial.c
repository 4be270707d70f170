/*
 * ROOT/partial/HEX: beginnings of blobs sha256:HEX, which pulls that failed have left. Nothing of
 * them is known to be right; the worker sums up the whole in the end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/pull.h>

#include "internal.h"

static const char prefix[] = "partial-"; /* in a staging folder's content/ */

enum { DAY_SECONDS = 24 * 60 * 60 };

static int open_folder(int dir_fd, const char *name)
{
    return openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static DIR *list_folder(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    if (!dir)
        close_fd(copy);
    else
        rewinddir(dir);
    return dir;
}

struct kept {
    char hex[64 + 1];
    time_t time;
    uint64_t size;
};

static int newest_first(const void *a, const void *b)
{
    const struct kept *left = a, *right = b;

    return (left->time < right->time) - (left->time > right->time);
}

static void trim(int partial_fd)
{
    _cleanup_closedir_ DIR *dir = list_folder(partial_fd);
    _cleanup_free_ struct kept *kept = NULL;
    struct dirent *entry;
    size_t count = 0;
    uint64_t total = 0;

    while (dir && (entry = readdir(dir))) {
        struct stat status;
        if (!text_is_hex(entry->d_name, 64) ||
            fstatat(partial_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        kept = xrealloc(kept, count + 1, sizeof(*kept));
        kept[count] = (struct kept){.time = status.st_mtime, .size = (uint64_t)status.st_size};
        memcpy(kept[count++].hex, entry->d_name, 64);
    }
    if (count)
        qsort(kept, count, sizeof(*kept), newest_first);
    for (size_t i = 0; i < count; i++) {
        total += kept[i].size;
        if (i >= STORE_PARTIALS_MAX || total > STORE_PARTIAL_TOTAL ||
            time(NULL) - kept[i].time > (time_t)STORE_PARTIAL_DAYS * DAY_SECONDS)
            unlinkat(partial_fd, kept[i].hex, 0);
    }
}

/* Only files that a worker can have made; a larger one that is there already stays. */
static void keep_file(int content_fd, const char *name, int partial_fd)
{
    const char *hex = name + strlen(prefix);
    struct stat status, there;

    if (!text_is_hex(hex, 64) || fstatat(content_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(status.st_mode) || status.st_nlink != 1 ||
        (uint64_t)status.st_size < STORE_PARTIAL_MIN)
        return;
    if (fstatat(partial_fd, hex, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        there.st_size >= status.st_size)
        return;
    renameat(content_fd, name, partial_fd, hex);
}

void partials_keep(struct store *store, const char *staging_name)
{
    _cleanup_free_ char *path = xasprintf("%s/content", staging_name);
    _cleanup_close_ int content_fd = open_folder(store->staging_fd, path);
    _cleanup_close_ int partial_fd = -1;
    struct dirent *entry;

    if (content_fd < 0)
        return;
    _cleanup_closedir_ DIR *dir = list_folder(content_fd);
    while (dir && (entry = readdir(dir))) {
        if (!text_starts_with(entry->d_name, prefix))
            continue;
        if (partial_fd < 0) {
            mkdirat(store->root_fd, "partial", 0700);
            partial_fd = open_folder(store->root_fd, "partial");
        }
        if (partial_fd >= 0)
            keep_file(content_fd, entry->d_name, partial_fd);
    }
    if (partial_fd >= 0)
        trim(partial_fd);
}

/* All of them: which one the worker will want nobody knows yet. */
int partials_take(struct store_staging *staging, struct error *err)
{
    _cleanup_close_ int partial_fd = open_folder(staging->store->root_fd, "partial");
    struct dirent *entry;

    if (partial_fd < 0)
        return 0;
    trim(partial_fd);
    if (mkdirat(staging->fd, "content", 0700) < 0)
        return error_errno(err, errno, "create a folder in staging");
    _cleanup_close_ int content_fd = open_folder(staging->fd, "content");
    _cleanup_closedir_ DIR *dir = list_folder(partial_fd);
    while (content_fd >= 0 && dir && (entry = readdir(dir))) {
        if (!text_is_hex(entry->d_name, 64))
            continue;
        _cleanup_free_ char *name = xasprintf("%s%s", prefix, entry->d_name);
        renameat(partial_fd, entry->d_name, content_fd, name);
    }
    return 0;
}
