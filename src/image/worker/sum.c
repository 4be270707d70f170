/* What makes two COPYs the same: the digest of everything that they bring into the image. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "building.h"
#include "limits.h"
#include "worker.h"

enum { BLOCK = 256 * 1024 };

struct sum {
    EVP_MD_CTX *hash;
    bool with_owners;
    uint64_t bytes;
    char block[BLOCK];
};

/* Each text with its length in front, so that no two lists look the same. */
static void add_text(struct sum *sum, const char *text)
{
    uint64_t length = strlen(text);

    EVP_DigestUpdate(sum->hash, &length, sizeof(length));
    EVP_DigestUpdate(sum->hash, text, length);
}

static void add_number(struct sum *sum, uint64_t number)
{
    EVP_DigestUpdate(sum->hash, &number, sizeof(number));
}

static int add_content(struct sum *sum, int fd, struct error *err)
{
    char value[XATTR_LENGTH_MAX];
    ssize_t length = fgetxattr(fd, "security.capability", value, sizeof(value)), n;

    add_number(sum, length > 0 ? (uint64_t)length : 0);
    if (length > 0)
        EVP_DigestUpdate(sum->hash, value, (size_t)length);
    while ((n = read(fd, sum->block, sizeof(sum->block))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read");
        EVP_DigestUpdate(sum->hash, sum->block, (size_t)n);
        sum->bytes += (uint64_t)n;
        message_progress("sum up the sources", sum->bytes);
    }
    return 0;
}

static int add_folder(struct sum *sum, int folder_fd, unsigned depth, struct error *err);

static int add_item(struct sum *sum, int parent_fd, const char *name, unsigned depth,
                    struct error *err)
{
    struct stat status;
    char target[PATH_LENGTH_MAX + 1];

    if (fstatat(parent_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "look at %s", name);
    add_text(sum, name);
    add_number(sum, status.st_mode);
    if (sum->with_owners) {
        add_number(sum, status.st_uid);
        add_number(sum, status.st_gid);
    }
    if (S_ISLNK(status.st_mode)) {
        ssize_t n = readlinkat(parent_fd, name, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        add_text(sum, target);
        return 0;
    }
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
        add_number(sum, status.st_rdev);
        return 0;
    }
    int fd = openat(parent_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", name);
    if (S_ISDIR(status.st_mode))
        return add_folder(sum, fd, depth + 1, err);
    add_number(sum, (uint64_t)status.st_size);
    int r = add_content(sum, fd, err);
    close_fd(fd);
    return r;
}

/* Takes folder_fd over. */
static int add_folder(struct sum *sum, int folder_fd, unsigned depth, struct error *err)
{
    _cleanup_close_ int fd = folder_fd;
    struct dirent **names = NULL;
    int r = 0;

    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "more than %d folders deep", PATH_DEPTH_MAX);
    int count = scandirat(fd, ".", &names, NULL, alphasort);
    if (count < 0)
        return error_errno(err, errno, "list a folder");
    add_number(sum, (uint64_t)count);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = add_item(sum, fd, name, depth, err);
        free(names[i]);
    }
    free(names);
    return r;
}

static int add_source(struct sum *sum, int source_fd, const char *path, struct error *err)
{
    struct stat status;
    _cleanup_close_ int place = source_open(source_fd, path, &status, err);
    const char *slash = strrchr(path, '/');

    if (place < 0)
        return place;
    add_number(sum, status.st_mode & S_IFMT);
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
        add_number(sum, status.st_mode);
        add_number(sum, status.st_rdev);
        return 0;
    }
    int fd = file_open_in_root(source_fd, path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(err, -fd, "open %s", path);
    if (S_ISDIR(status.st_mode))
        return add_folder(sum, fd, 0, err); /* its own name and mode are not copied */
    add_text(sum, slash ? slash + 1 : path);
    add_number(sum, status.st_mode);
    if (sum->with_owners) {
        add_number(sum, status.st_uid);
        add_number(sum, status.st_gid);
    }
    add_number(sum, (uint64_t)status.st_size);
    int r = add_content(sum, fd, err);
    close_fd(fd);
    return r;
}

int sources_digest(int source_fd, const struct sources *sources, const struct build_copy *copy,
                   bool with_owners, char ret[72], struct error *err)
{
    struct sum *sum = xnew(struct sum);
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned length;
    int r = 0;

    sum->hash = EVP_MD_CTX_new();
    sum->with_owners = with_owners;
    EVP_DigestInit_ex(sum->hash, EVP_sha256(), NULL);
    add_number(sum, sources->count);
    for (size_t i = 0; r == 0 && i < sources->count; i++) {
        r = add_source(sum, source_fd, sources->paths[i], err);
        if (r < 0)
            error_context(err, "%s", sources->paths[i]);
    }
    for (size_t i = 0; i < copy->files_count; i++) {
        add_text(sum, copy->files[i]->name);
        add_text(sum, copy->files[i]->content);
    }
    EVP_DigestFinal_ex(sum->hash, hash, &length);
    EVP_MD_CTX_free(sum->hash);
    free(sum);
    memcpy(ret, "sha256:", 7);
    text_hex(hash, 32, ret + 7);
    return r;
}
