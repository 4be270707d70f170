/*
 * Is a layer's folder still what its blob says? The blob is unpacked once more, into staging, and
 * the two trees are compared. The fresh one stays in staging, for a repair.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "limits.h"
#include "load.h"
#include "worker.h"

enum { DIFFERENCES_MAX = 20, BLOCK = 128 * 1024, NAMES_MAX = 64 * 1024 };

struct compare {
    char **differences;
    size_t count;
    char *const *implicit; /* folders without an entry: owner and mode come from elsewhere */
    size_t implicit_count;
    uint64_t bytes;
    char wanted[BLOCK], found[BLOCK];
};

static bool is_full(const struct compare *compare)
{
    return compare->count >= DIFFERENCES_MAX;
}

/* A name in a layer may be any bytes: what is no ASCII is shown as question marks. */
static void differ(struct compare *compare, const char *path, const char *how)
{
    if (is_full(compare))
        return;
    char *text = xasprintf("%s: %s", path[0] ? path : "/", how);
    for (char *at = text; *at; at++)
        if (*at < ' ' || *at > '~')
            *at = '?';
    strv_take(&compare->differences, text);
    compare->count++;
}

static bool is_implicit(const struct compare *compare, const char *path)
{
    for (size_t i = 0; i < compare->implicit_count; i++)
        if (text_equal(compare->implicit[i], path))
            return true;
    return false;
}

/* The pair of an attribute's values, of files of the same name. */
static bool same_value(struct compare *compare, const int fds[2], const char *name)
{
    ssize_t wanted = fgetxattr(fds[0], name, compare->wanted, sizeof(compare->wanted));
    ssize_t found = fgetxattr(fds[1], name, compare->found, sizeof(compare->found));

    return wanted == found &&
           (wanted <= 0 || !memcmp(compare->wanted, compare->found, (size_t)wanted));
}

/* What unpacking sets; a security module's labels are the machine's. */
static bool is_of_layer(const char *name)
{
    return text_starts_with(name, "user.") || text_equal(name, "security.capability");
}

static void compare_attributes(struct compare *compare, const int fds[2], const char *path)
{
    char names[NAMES_MAX];

    for (size_t side = 0; side < 2; side++) {
        ssize_t length = flistxattr(fds[side], names, sizeof(names));
        for (const char *name = names; length > 0 && name < names + length;
             name += strlen(name) + 1) {
            if (is_of_layer(name) && !same_value(compare, fds, name)) {
                differ(compare, path, "its attributes are others");
                return;
            }
        }
    }
}

static ssize_t read_block(int fd, char *block)
{
    size_t length = 0;

    while (length < BLOCK) {
        ssize_t n = read(fd, block + length, BLOCK - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : (ssize_t)length;
        length += (size_t)n;
    }
    return (ssize_t)length;
}

static void compare_content(struct compare *compare, const int fds[2], const char *path)
{
    for (;;) {
        ssize_t wanted = read_block(fds[0], compare->wanted);
        ssize_t found = read_block(fds[1], compare->found);
        if (found < 0) {
            differ(compare, path, "it cannot be read");
            return;
        }
        if (wanted != found || memcmp(compare->wanted, compare->found, (size_t)wanted)) {
            differ(compare, path, "its content is another");
            return;
        }
        if (wanted == 0)
            return;
        compare->bytes += (uint64_t)wanted;
        message_progress("compare a layer", compare->bytes);
    }
}

static void open_pair(const int folders[2], const char *name, int flags, int ret[2])
{
    for (size_t side = 0; side < 2; side++)
        ret[side] =
            openat(folders[side], name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags);
}

static void close_pair(int fds[2])
{
    close_fd(fds[0]);
    close_fd(fds[1]);
}

static void compare_files(struct compare *compare, const int folders[2], const char *name,
                          const char *path)
{
    int fds[2];

    open_pair(folders, name, 0, fds);
    if (fds[0] < 0 || fds[1] < 0) {
        differ(compare, path, "it cannot be opened");
    } else {
        compare_attributes(compare, fds, path);
        compare_content(compare, fds, path);
    }
    close_pair(fds);
}

static void compare_targets(struct compare *compare, const int folders[2], const char *name,
                            const char *path)
{
    ssize_t wanted = readlinkat(folders[0], name, compare->wanted, sizeof(compare->wanted));
    ssize_t found = readlinkat(folders[1], name, compare->found, sizeof(compare->found));

    if (wanted != found || wanted < 0 || memcmp(compare->wanted, compare->found, (size_t)wanted))
        differ(compare, path, "it leads elsewhere");
}

static void compare_folders(struct compare *compare, const int folders[2], const char *path);

static void compare_inside(struct compare *compare, const int folders[2], const char *name,
                           const char *path)
{
    int fds[2];

    open_pair(folders, name, O_DIRECTORY, fds);
    if (fds[0] < 0 || fds[1] < 0) {
        differ(compare, path, "it cannot be opened");
    } else {
        if (!is_implicit(compare, path))
            compare_attributes(compare, fds, path);
        compare_folders(compare, fds, path);
    }
    close_pair(fds);
}

static bool same_owner_and_mode(const struct stat *wanted, const struct stat *found)
{
    return wanted->st_mode == found->st_mode && wanted->st_uid == found->st_uid &&
           wanted->st_gid == found->st_gid;
}

/* A folder's own times change with what is in it, and with whiteouts behind its entry. */
static bool same_time(const struct stat *wanted, const struct stat *found)
{
    return wanted->st_mtim.tv_sec == found->st_mtim.tv_sec &&
           wanted->st_mtim.tv_nsec == found->st_mtim.tv_nsec;
}

static void compare_items(struct compare *compare, const int folders[2], const char *name,
                          const char *path)
{
    struct stat wanted, found;

    if (fstatat(folders[0], name, &wanted, AT_SYMLINK_NOFOLLOW) < 0 ||
        fstatat(folders[1], name, &found, AT_SYMLINK_NOFOLLOW) < 0) {
        differ(compare, path, "it cannot be read");
        return;
    }
    if ((wanted.st_mode & S_IFMT) != (found.st_mode & S_IFMT)) {
        differ(compare, path, "it is of another type");
        return;
    }
    bool folder = S_ISDIR(wanted.st_mode);
    if (!(folder && is_implicit(compare, path)) && !same_owner_and_mode(&wanted, &found))
        differ(compare, path, "its owner or mode is another");
    if (!folder && !same_time(&wanted, &found))
        differ(compare, path, "its time is another");
    if (!folder && (wanted.st_nlink != found.st_nlink || wanted.st_rdev != found.st_rdev))
        differ(compare, path, "it is another file");
    if (S_ISREG(wanted.st_mode) && wanted.st_size != found.st_size)
        differ(compare, path, "its size is another");
    else if (S_ISREG(wanted.st_mode))
        compare_files(compare, folders, name, path);
    else if (S_ISLNK(wanted.st_mode))
        compare_targets(compare, folders, name, path);
    else if (folder)
        compare_inside(compare, folders, name, path);
}

static int by_text(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* Sorted, owned. */
static char **list_names(int folder_fd)
{
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    char **names = NULL;
    size_t count = 0;
    struct dirent *entry;

    while (directory && (entry = readdir(directory))) {
        if (text_equal(entry->d_name, ".") || text_equal(entry->d_name, ".."))
            continue;
        if (count % 64 == 0)
            names = xrealloc(names, count + 65, sizeof(*names));
        names[count++] = xstrdup(entry->d_name);
    }
    if (names) {
        names[count] = NULL;
        qsort(names, count, sizeof(*names), by_text);
    }
    return names;
}

static void compare_folders(struct compare *compare, const int folders[2], const char *path)
{
    _cleanup_strv_ char **wanted = list_names(folders[0]);
    _cleanup_strv_ char **found = list_names(folders[1]);
    char *const *left = wanted, *const *right = found;

    while (!is_full(compare) && ((left && *left) || (right && *right))) {
        int order = !left || !*left ? 1 : !right || !*right ? -1 : strcmp(*left, *right);
        _cleanup_free_ char *inside =
            xasprintf("%s%s%s", path, path[0] ? "/" : "", order > 0 ? *right : *left);
        if (order < 0)
            differ(compare, inside, "it is missing");
        else if (order > 0)
            differ(compare, inside, "it is not of this layer");
        else
            compare_items(compare, folders, *left, inside);
        left += order <= 0;
        right += order >= 0;
    }
}

static int compare_layer(const struct load *load, struct image_worker_result *result,
                         struct error *err)
{
    const struct staged_layer *layer = &load->layers[0];
    _cleanup_free_ char *name = xasprintf("layers/%s", layer->diff_id + strlen("sha256:"));
    _cleanup_close_ int fresh = openat(load->staging_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fresh < 0)
        return error_errno(err, errno, "open the unpacked layer");
    struct compare *compare = xnew(struct compare);
    const int folders[2] = {fresh, IMAGE_FD_SOURCE};
    compare->implicit = layer->implicit;
    compare->implicit_count = layer->implicit_count;
    compare_folders(compare, folders, "");
    result->differences = steal_ptr(compare->differences);
    result->differences_count = compare->count;
    free(compare);
    return 0;
}

int worker_verify(const struct image_worker_verify *request, struct image_worker_result **ret,
                  struct error *err)
{
    struct load load = {.staging_fd = IMAGE_FD_STAGING, .result = xnew(struct image_worker_result)};
    _cleanup_stream_ struct stream *stream = stream_from_fd(IMAGE_FD_ARCHIVE_IN);
    int r = 0;

    if (mkdirat(load.staging_fd, "layers", 0700) < 0 ||
        mkdirat(load.staging_fd, "content", 0700) < 0)
        r = error_errno(err, errno, "create folders in staging");
    if (r == 0)
        r = load_layer(&load, "blob", stream, err);
    if (r == 0 && request->compare)
        r = compare_layer(&load, load.result, err);
    if (r == 0) {
        load.result->layer = load_report_layer(&load.layers[0]);
        *ret = steal_ptr(load.result);
    }
    load_finish(&load);
    return r;
}
