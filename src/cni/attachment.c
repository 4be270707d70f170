/*
 * What is on disk of attachments, and the paths of network namespaces.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "internal.h"

enum { ATTACHMENT_BYTES_MAX = 4 * 1024 * 1024, LOCK_DIGITS = 15, FOLDER_TRIES = 100 };

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif

/* --- names ------------------------------------------------------------------------------------ */

char *cni_attachment_name(const char *container, const char *endpoint)
{
    return xasprintf("%s-%s", container, endpoint);
}

bool cni_is_attachment_name(const char *name)
{
    char id[CNI_ID_DIGITS + 1];

    if (strlen(name) != CNI_NAME_LENGTH || name[CNI_ID_DIGITS] != '-')
        return false;
    memcpy(id, name, CNI_ID_DIGITS);
    id[CNI_ID_DIGITS] = '\0';
    return text_is_hex(id, CNI_ID_DIGITS) && text_is_hex(name + CNI_ID_DIGITS + 1, CNI_ID_DIGITS);
}

static char *path_of(const struct cni_request *request, const char *name)
{
    return xasprintf("%s/%s", request->folder, name);
}

/* --- documents -------------------------------------------------------------------------------- */

/* One that nobody can read would be in the way of each start, and is told of but once. */
static void put_aside(const char *path, struct error *err)
{
    _cleanup_free_ char *aside = xasprintf("%s.broken", path);

    if (rename(path, aside) < 0)
        return;
    error_context(err,
                  "an attachment cannot be taken back and is put aside as %s, what its "
                  "plug-ins gave may stay taken",
                  aside);
}

int attachment_read(const struct cni_request *request, const char *name,
                    struct cni_attachment **ret, struct error *err)
{
    _cleanup_free_ char *path = path_of(request, name);
    _cleanup_free_ char *text = NULL;
    size_t length = 0;
    int r = file_read_at(AT_FDCWD, path, ATTACHMENT_BYTES_MAX, &text, &length, err);

    if (r == 0) {
        r = cni_attachment_parse(text, length, path, ret, err);
        if (r < 0)
            put_aside(path, err);
    }
    return r;
}

/* On the disk under its name, or as it was before, whenever the power goes. The container is
 * locked: nobody else writes beside it. */
static int replace(const char *folder, const char *path, const struct buffer *text,
                   struct error *err)
{
    _cleanup_free_ char *beside = xasprintf("%s.new", path);
    _cleanup_close_ int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = folder_fd < 0 || fd < 0 ? -errno : file_write_all(fd, text->data, text->length);

    if (r == 0 && (fdatasync(fd) < 0 || rename(beside, path) < 0 || fsync(folder_fd) < 0))
        r = -errno;
    if (r == 0)
        return 0;
    unlink(beside);
    return error_errno(err, -r, "write %s", path);
}

int attachment_write(const struct cni_request *request, const struct cni_attachment *attachment,
                     struct error *err)
{
    _cleanup_free_ char *name = cni_attachment_name(attachment->container, attachment->endpoint);
    _cleanup_free_ char *path = path_of(request, name);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = file_mkdir_parents(request->folder, 0700, err);

    cni_attachment_write(attachment, &text);
    return r < 0 ? r : replace(request->folder, path, &text, err);
}

int attachment_delete(const struct cni_request *request, const struct cni_attachment *attachment,
                      struct error *err)
{
    _cleanup_free_ char *name = cni_attachment_name(attachment->container, attachment->endpoint);
    _cleanup_free_ char *path = path_of(request, name);

    return unlink(path) < 0 && errno != ENOENT ? error_errno(err, errno, "delete %s", path) : 0;
}

char **attachment_list(const struct cni_request *request, const char *container)
{
    _cleanup_closedir_ DIR *dir = opendir(request->folder);
    struct dirent *entry;
    char **names = NULL;

    while (dir && (entry = readdir(dir))) {
        if (cni_is_attachment_name(entry->d_name) && text_starts_with(entry->d_name, container))
            strv_append(&names, entry->d_name);
    }
    return names;
}

/* One file for all, a byte of it for each container. */
int attachment_lock(const struct cni_request *request, const char *container, int *ret_fd,
                    struct error *err)
{
    _cleanup_free_ char *path = path_of(request, "lock");
    char digits[LOCK_DIGITS + 1];
    int r = file_mkdir_parents(request->folder, 0700, err);

    if (r < 0)
        return r;
    snprintf(digits, sizeof(digits), "%s", container);
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = (off_t)strtoull(digits, NULL, 16),
                         .l_len = 1};
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    while ((r = fcntl(fd, F_OFD_SETLKW, &lock)) < 0 && errno == EINTR)
        ;
    if (r < 0)
        return error_errno(err, errno, "lock %s", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* --- namespaces ------------------------------------------------------------------------------- */

char *namespace_path(const struct cni_request *request, const char *container)
{
    return xasprintf("%s/%s", request->namespaces, container);
}

/* The folder goes with the last of its files, which may be another container's just now. */
static int make_file(const char *folder, const char *path, struct error *err)
{
    int r = -ENOENT;

    for (int i = 0; r == -ENOENT && i < FOLDER_TRIES; i++) {
        r = file_mkdir_parents(folder, 0700, err);
        if (r < 0)
            return r;
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
        r = fd < 0 ? -errno : 0;
    }
    return r < 0 ? error_errno(err, -r, "create %s", path) : 0;
}

int namespace_bind(const struct cni_request *request, const char *container, int fd,
                   struct error *err)
{
    _cleanup_free_ char *path = namespace_path(request, container);
    char source[32];

    namespace_unbind(request, container);
    int r = make_file(request->namespaces, path, err);
    if (r < 0)
        return r;
    snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
    if (mount(source, path, NULL, MS_BIND, NULL) < 0)
        return error_errno(err, errno, "bind a network namespace to %s", path);
    return 0;
}

bool namespace_is_bound(const char *path)
{
    struct statfs status;

    return statfs(path, &status) == 0 && status.f_type == NSFS_MAGIC;
}

bool namespace_is_same(const char *path, int fd)
{
    struct stat bound, wanted;

    return stat(path, &bound) == 0 && fstat(fd, &wanted) == 0 && bound.st_dev == wanted.st_dev &&
           bound.st_ino == wanted.st_ino;
}

void namespace_unbind(const struct cni_request *request, const char *container)
{
    _cleanup_free_ char *path = namespace_path(request, container);

    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    unlink(path);
    rmdir(request->namespaces); /* the last one */
}
