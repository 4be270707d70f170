#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

int file_open_in_root_flags(int root_fd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    struct open_how how = {
        .flags = (unsigned)flags | O_CLOEXEC,
        .mode = (flags & (O_CREAT | O_TMPFILE)) ? mode : 0,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
    };
    long fd;

    /* EAGAIN: a rename or mount elsewhere raced with a ".." (openat2(2)). */
    do
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 ? -errno : (int)fd;
}

int file_open_in_root(int root_fd, const char *path, int flags, mode_t mode)
{
    return file_open_in_root_flags(root_fd, path, flags, mode, 0);
}

enum { MKDIR_LINKS_MAX = 40 }; /* as many as the kernel follows (path_resolution(7)) */

static int mkdir_path(int root_fd, const char *path, mode_t mode, int links, struct error *err);

/* A link to nothing, as an image has /var/lock -> /run/lock before /run is filled: its target is
 * made, inside the root. */
static int mkdir_link_target(int root_fd, int parent_fd, const char *parent, const char *name,
                             mode_t mode, int links, struct error *err)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(parent_fd, name, target, sizeof(target) - 1);

    if (length < 0 || links >= MKDIR_LINKS_MAX)
        return error_errno(err, length < 0 ? EEXIST : ELOOP, "create directory %s/%s in the root",
                           parent, name);
    target[length] = '\0';
    _cleanup_free_ char *path =
        target[0] == '/' ? xstrdup(target) : xasprintf("%s/%s", parent, target);
    return mkdir_path(root_fd, path, mode, links + 1, err);
}

/* Opens or makes the directory `path` (one component longer than what is known to exist). */
static int mkdir_step(int root_fd, const char *path, mode_t mode, int links, struct error *err)
{
    int fd = file_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);
    if (fd != -ENOENT)
        return fd < 0 ? error_errno(err, -fd, "open directory %s in the root", path) : fd;

    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *parent = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup(".");
    _cleanup_close_ int parent_fd =
        file_open_in_root(root_fd, parent[0] ? parent : ".", O_PATH | O_DIRECTORY, 0);
    if (parent_fd < 0)
        return error_errno(err, -parent_fd, "open directory %s in the root", parent);
    const char *name = slash ? slash + 1 : path;
    if (mkdirat(parent_fd, name, mode) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create directory %s in the root", path);
    fd = file_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);
    if (fd == -ENOENT)
        return mkdir_link_target(root_fd, parent_fd, parent, name, mode, links, err);
    return fd < 0 ? error_errno(err, -fd, "open directory %s in the root", path) : fd;
}

/* Mostly only the last component is missing. -ENOENT: it is not that simple. */
static int mkdir_last(int root_fd, const char *path, mode_t mode)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

    if (!slash || slash == path || !name[0] || text_equal(name, ".") || text_equal(name, ".."))
        return -ENOENT;
    _cleanup_free_ char *parent = xstrndup(path, (size_t)(slash - path));
    _cleanup_close_ int parent_fd = file_open_in_root(root_fd, parent, O_PATH | O_DIRECTORY, 0);
    if (parent_fd < 0 || mkdirat(parent_fd, name, mode) < 0)
        return -ENOENT;
    return file_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);
}

static int mkdir_path(int root_fd, const char *path, mode_t mode, int links, struct error *err)
{
    int fd = file_open_in_root(root_fd, path[0] ? path : ".", O_PATH | O_DIRECTORY, 0);
    if (fd >= 0)
        return fd;
    if (fd == -ENOENT)
        fd = mkdir_last(root_fd, path, mode);
    if (fd >= 0)
        return fd;
    if (fd != -ENOENT)
        return error_errno(err, -fd, "open directory %s in the root", path);

    _cleanup_strv_ char **parts = strv_split(path, '/');
    _cleanup_buffer_ struct buffer done = BUFFER_INIT;
    _cleanup_close_ int last = -1;
    for (size_t i = 0; parts && parts[i]; i++) {
        if (!parts[i][0] || text_equal(parts[i], "."))
            continue;
        if (done.length)
            buffer_append_char(&done, '/');
        buffer_append_text(&done, parts[i]);
        close_fd(last);
        last = mkdir_step(root_fd, buffer_text(&done), mode, links, err);
        if (last < 0)
            return last;
    }
    return steal_fd(&last);
}

int file_mkdir_in_root(int root_fd, const char *path, mode_t mode, struct error *err)
{
    return mkdir_path(root_fd, path, mode, 0, err);
}

int file_open_parent_in_root(int root_fd, const char *path, mode_t mode, const char **ret_name,
                             struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;

    if (!name[0] || text_equal(name, ".") || text_equal(name, ".."))
        return error_set(err, -EINVAL, "'%s' does not name a file", path);
    _cleanup_free_ char *parent = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");
    int fd = mode ? file_mkdir_in_root(root_fd, parent, mode, err)
                  : file_open_in_root(root_fd, parent[0] ? parent : ".", O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return mode ? fd : error_errno(err, -fd, "open directory %s in the root", parent);
    *ret_name = name;
    return fd;
}

static int create_file(int root_fd, const char *path, mode_t directory_mode, mode_t mode, int links,
                       struct error *err)
{
    char target[PATH_MAX];
    const char *name;
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(root_fd, path, directory_mode, &name, err);
    if (parent_fd < 0)
        return parent_fd;
    int fd = openat(parent_fd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, mode);
    if (fd >= 0)
        return fd;
    int failure = errno;
    ssize_t length =
        failure == EEXIST ? readlinkat(parent_fd, name, target, sizeof(target) - 1) : -1;
    if (length < 0 || links >= MKDIR_LINKS_MAX)
        return error_errno(err, length < 0 ? failure : ELOOP, "create %s in the root", path);
    target[length] = '\0';
    _cleanup_free_ char *next =
        target[0] == '/' ? xstrdup(target) : xasprintf("%.*s/%s", (int)(name - path), path, target);
    return create_file(root_fd, next, directory_mode, mode, links + 1, err);
}

int file_create_in_root(int root_fd, const char *path, mode_t directory_mode, mode_t mode,
                        struct error *err)
{
    return create_file(root_fd, path, directory_mode, mode, 0, err);
}

int file_read_fd(int fd, size_t limit, char **ret_text, size_t *ret_length, struct error *err)
{
    _cleanup_buffer_ struct buffer content = BUFFER_INIT;
    struct stat status;

    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 &&
        (uint64_t)status.st_size <= limit)
        buffer_reserve(&content, (size_t)status.st_size + 1);
    for (;;) {
        buffer_reserve(&content, 4096);
        ssize_t n = read(fd, content.data + content.length, content.capacity - content.length - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read");
        if (n == 0)
            break;
        content.length += (size_t)n;
        if (content.length > limit)
            return error_set(err, -EFBIG, "larger than the limit of %zu bytes", limit);
    }
    content.data[content.length] = '\0';
    if (ret_length)
        *ret_length = content.length;
    *ret_text = buffer_steal(&content);
    return 0;
}

int file_read_at(int dir_fd, const char *path, size_t limit, char **ret_text, size_t *ret_length,
                 struct error *err)
{
    _cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int r;

    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    r = file_read_fd(fd, limit, ret_text, ret_length, err);
    if (r < 0)
        error_context(err, "%s", path);
    return r;
}

int file_read_foreign(const char *path, size_t limit, char **ret_text, size_t *ret_length,
                      struct error *err)
{
    struct stat status;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open %s", path);
    if (!S_ISREG(status.st_mode)) {
        if (status.st_uid != geteuid() && status.st_uid != 0)
            return error_set(err, -EPERM, "%s is no regular file, and user %u made it", path,
                             status.st_uid);
        return file_read_at(AT_FDCWD, path, limit, ret_text, ret_length, err);
    }
    int r = file_read_fd(fd, limit, ret_text, ret_length, err);
    if (r < 0)
        error_context(err, "%s", path);
    return r;
}

int file_write_all(int fd, const void *data, size_t length)
{
    const char *at = data;

    while (length) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

int file_write_existing_at(int dir_fd, const char *path, const void *data, size_t length,
                           struct error *err)
{
    _cleanup_close_ int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n;

    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    do
        n = write(fd, data, length);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_errno(err, errno, "write to %s", path);
    if ((size_t)n != length)
        return error_set(err, -EIO, "write to %s: only %zd of %zu bytes were taken", path, n,
                         length);
    return 0;
}

int file_replace_at(int dir_fd, const char *path, const void *data, size_t length, mode_t mode,
                    struct error *err)
{
    char suffix[17];

    text_random_hex(suffix, 16);
    _cleanup_free_ char *temporary = xasprintf("%s.%s.tmp", path, suffix);
    _cleanup_close_ int fd =
        openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return error_errno(err, errno, "create %s", temporary);
    int r = file_write_all(fd, data, length);
    if (r == 0 && renameat(dir_fd, temporary, dir_fd, path) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(dir_fd, temporary, 0);
        return error_errno(err, -r, "write %s", path);
    }
    return 0;
}

int file_rename_free(int from_fd, const char *from, int to_fd, const char *to)
{
    long r = syscall(SYS_renameat2, from_fd, from, to_fd, to, RENAME_NOREPLACE);

    return r < 0 ? -errno : 0;
}

int file_rename_free_at(int dir_fd, const char *from, const char *to)
{
    return file_rename_free(dir_fd, from, dir_fd, to);
}

int file_mkdir_parents(const char *path, mode_t mode, struct error *err)
{
    _cleanup_free_ char *copy = xstrdup(path);

    for (char *at = copy + 1; copy[0]; at++) {
        bool end = !*at;
        if (*at != '/' && !end)
            continue;
        *at = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return error_errno(err, errno, "create directory %s", copy);
        if (end)
            break;
        *at = '/';
    }
    return 0;
}

enum { REMOVE_DEPTH_MAX = 64 }; /* folders that are open, and on the stack, at a time */

/* Folders that are deeper than that are moved up into the one that is to be removed, which is gone
 * through again then: who made the tree may have made it deeper than we have descriptors. */
struct removal {
    int top_fd;
    uint64_t moved;
};

static int remove_entries(struct removal *removal, int fd, int depth, const char *path,
                          struct error *err);

static void clear_flags(int fd)
{
    int flags; /* whatever the number of the ioctl says (ioctl_iflags(2)) */

    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
        return;
    flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
    ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* chattr's +i and +a, on the file or on the folder it is in. */
static void make_removable(int dir_fd, const char *name)
{
    struct stat status;

    if (dir_fd != AT_FDCWD)
        clear_flags(dir_fd);
    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
        return;
    _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        clear_flags(fd);
}

/* -EISDIR for folders unless flags say AT_REMOVEDIR; what is not there is removed. */
static int remove_one(int dir_fd, const char *name, int flags)
{
    if (unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT)
        return 0;
    if (errno != EPERM)
        return -errno;
    make_removable(dir_fd, name);
    return unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT ? 0 : -errno;
}

/* A directory on the same mount as dir_fd (RESOLVE_NO_XDEV). -ENOENT: somebody else was faster. */
static int open_to_remove(int dir_fd, const char *name, const char *path, struct error *err)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));

    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    return fd < 0 ? error_errno(err, errno == EXDEV ? EBUSY : errno, "remove %s", path) : (int)fd;
}

static int remove_empty(int dir_fd, const char *name, const char *path, struct error *err)
{
    int r = remove_one(dir_fd, name, AT_REMOVEDIR);

    return r < 0 ? error_errno(err, -r, "remove %s", path) : 0;
}

static int rename_up(struct removal *removal, int dir_fd, const char *name)
{
    char place[32];

    snprintf(place, sizeof(place), ".removed-%llu", (unsigned long long)removal->moved++);
    return renameat(dir_fd, name, removal->top_fd, place) < 0 ? -errno : 0;
}

static int move_up(struct removal *removal, int dir_fd, const char *name, const char *path,
                   struct error *err)
{
    int fd = open_to_remove(dir_fd, name, path, err), r;

    close_fd(fd);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    do {
        r = rename_up(removal, dir_fd, name);
    } while (r == -EEXIST || r == -ENOTEMPTY || r == -ENOTDIR); /* it is taken: the next one */
    if (r == -EPERM) {
        clear_flags(removal->top_fd);
        make_removable(dir_fd, name);
        r = rename_up(removal, dir_fd, name);
    }
    return r < 0 ? error_errno(err, -r, "remove %s", path) : 0;
}

static int remove_below(struct removal *removal, int dir_fd, int depth, const char *name,
                        const char *path, struct error *err)
{
    if (depth >= REMOVE_DEPTH_MAX)
        return move_up(removal, dir_fd, name, path, err);
    int fd = open_to_remove(dir_fd, name, path, err);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int r = remove_entries(removal, fd, depth + 1, path, err);
    return r < 0 ? r : remove_empty(dir_fd, name, path, err);
}

/* Takes fd over. */
static int remove_entries(struct removal *removal, int fd, int depth, const char *path,
                          struct error *err)
{
    _cleanup_closedir_ DIR *dir = fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        close_fd(fd);
        return error_errno(err, errno, "read directory %s", path);
    }
    while ((entry = readdir(dir))) {
        if (text_equal(entry->d_name, ".") || text_equal(entry->d_name, ".."))
            continue;
        int r = remove_one(fd, entry->d_name, 0);
        if (r == 0)
            continue;
        _cleanup_free_ char *below = xasprintf("%s/%s", path, entry->d_name);
        if (r != -EISDIR && r != -EPERM)
            return error_errno(err, -r, "remove %s", below);
        r = remove_below(removal, fd, depth, entry->d_name, below, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int remove_directory(int dir_fd, const char *name, const char *path, struct error *err)
{
    _cleanup_close_ int fd = open_to_remove(dir_fd, name, path, err);
    struct removal removal = {.top_fd = fd};
    uint64_t before;

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    do {
        before = removal.moved;
        int entries_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (entries_fd < 0)
            return error_errno(err, errno, "open %s", path);
        int r = remove_entries(&removal, entries_fd, 0, path, err);
        if (r < 0)
            return r;
    } while (removal.moved > before);
    return remove_empty(dir_fd, name, path, err);
}

int file_remove_tree_at(int dir_fd, const char *path, struct error *err)
{
    int r = remove_one(dir_fd, path, 0);

    if (r == 0)
        return 0;
    if (r != -EISDIR && r != -EPERM)
        return error_errno(err, -r, "remove %s", path);
    /* NO_XDEV counts from dir_fd: the path itself may lie on another mount than dir_fd. */
    _cleanup_free_ char *copy = xstrdup(path);
    char *slash = strrchr(copy, '/');
    if (!slash || slash == copy)
        return remove_directory(dir_fd, path, path, err);
    *slash = '\0';
    _cleanup_close_ int parent = openat(dir_fd, copy, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return error_errno(err, errno, "open %s", copy);
    return remove_directory(parent, slash + 1, path, err);
}

bool file_is_archive(const char *start, size_t length)
{
    static const struct {
        const char *bytes;
        size_t length;
    } known[] = {{"\x1f\x8b", 2},
                 {"BZh", 3},
                 {"\xfd"
                  "7zXZ",
                  5},
                 {"\x28\xb5\x2f\xfd", 4}};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (length >= known[i].length && memcmp(start, known[i].bytes, known[i].length) == 0)
            return true;
    return length >= 262 && memcmp(start + 257, "ustar", 5) == 0;
}
