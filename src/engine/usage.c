/* How much is in a folder. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/text.h>

#include "volumes.h"

enum { DEPTH_MAX = 1024, SEEN_START = 64 };

/* Files with several names that were counted: a hash table of inode numbers, 0 is free. */
struct seen {
    ino_t *inodes;
    size_t size, count;
};

static bool put(struct seen *seen, ino_t inode)
{
    size_t at = (size_t)(inode * 0x9e3779b97f4a7c15ULL) & (seen->size - 1);

    while (seen->inodes[at]) {
        if (seen->inodes[at] == inode)
            return false;
        at = (at + 1) & (seen->size - 1);
    }
    seen->inodes[at] = inode;
    seen->count++;
    return true;
}

/* Whether it is new. */
static bool note(struct seen *seen, ino_t inode)
{
    if (seen->count * 2 >= seen->size) {
        struct seen larger = {.size = seen->size ? seen->size * 2 : SEEN_START};
        larger.inodes = xnew_array(ino_t, larger.size);
        for (size_t i = 0; i < seen->size; i++)
            if (seen->inodes[i])
                put(&larger, seen->inodes[i]);
        free(seen->inodes);
        *seen = larger;
    }
    return put(seen, inode);
}

/* What vanishes meanwhile is not counted, nor what is mounted there. */
static uint64_t add_up(int fd, dev_t device, int depth, struct seen *seen)
{
    _cleanup_closedir_ DIR *folder = fdopendir(fd);
    uint64_t total = 0;
    struct stat status;

    if (!folder)
        close_fd(fd);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        const char *name = entry->d_name;
        if (text_equal(name, ".") || text_equal(name, "..") ||
            fstatat(dirfd(folder), name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
            status.st_dev != device)
            continue;
        if (!S_ISDIR(status.st_mode)) {
            if (status.st_nlink < 2 || note(seen, status.st_ino))
                total += (uint64_t)status.st_size;
            continue;
        }
        int below = depth < DEPTH_MAX ? openat(dirfd(folder), name,
                                               O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                                      : -1;
        if (below >= 0)
            total += add_up(below, device, depth + 1, seen);
    }
    return total;
}

uint64_t folder_usage(int fd)
{
    struct seen seen = {0};
    struct stat status;
    uint64_t total = 0;

    if (fd >= 0 && fstat(fd, &status) == 0)
        total = add_up(fd, status.st_dev, 0, &seen);
    free(seen.inodes);
    return total;
}
