#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>
#include <dockerfile/ignore.h>

#include "build_context.h"

enum {
    BLOCK = 512,
    COPY_BLOCK = 128 * 1024,
    DEPTH_MAX = 1000,
    IGNORE_MAX = 16 * 1024 * 1024,
    NAME_SIZE = 100, /* fields of a ustar header */
};

/* POSIX.1-1988's header; what does not fit goes into a PAX one in front of it. */
struct header {
    char name[NAME_SIZE];
    char mode[8], uid[8], gid[8];
    char size[12], mtime[12];
    char checksum[8];
    char type;
    char link[NAME_SIZE];
    char magic[6], version[2];
    char user[32], group[32];
    char major[8], minor[8];
    char prefix[155];
    char padding[12];
};

struct sender {
    struct context *context;
    struct ignore *ignore;
    int fd;
};

static int send_all(struct sender *sender, const void *data, size_t length, struct error *err)
{
    const char *at = data;

    sender->context->bytes += length;
    while (length) {
        ssize_t n = send(sender->fd, at, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "send the context");
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

static int send_padding(struct sender *sender, uint64_t size, struct error *err)
{
    static const char zeros[BLOCK];

    return size % BLOCK ? send_all(sender, zeros, BLOCK - (size_t)(size % BLOCK), err) : 0;
}

/* --- headers ---------------------------------------------------------------------------------- */

static void set_number(char *field, size_t size, uint64_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "%0*llo", (int)size - 1, (unsigned long long)number);
    memcpy(field, text, size);
}

static int send_header(struct sender *sender, struct header *header, struct error *err)
{
    const unsigned char *bytes = (const unsigned char *)header;
    unsigned sum = 0;

    memcpy(header->magic, "ustar", 6);
    memcpy(header->version, "00", 2);
    memset(header->checksum, ' ', sizeof(header->checksum));
    for (size_t i = 0; i < sizeof(*header); i++)
        sum += bytes[i];
    snprintf(header->checksum, sizeof(header->checksum), "%06o", sum);
    return send_all(sender, header, sizeof(*header), err);
}

/* "LENGTH key=value\n", where the length counts itself. */
static void add_record(struct buffer *records, const char *key, const char *value)
{
    size_t length = strlen(key) + strlen(value) + 3, digits = 1;

    for (size_t limit = 10; length + digits >= limit; limit *= 10)
        digits++;
    buffer_printf(records, "%zu %s=%s\n", length + digits, key, value);
}

static int send_records(struct sender *sender, const struct buffer *records, struct error *err)
{
    struct header header = {.type = 'x', .name = "PaxHeader"};

    set_number(header.mode, sizeof(header.mode), 0644);
    set_number(header.size, sizeof(header.size), records->length);
    int r = send_header(sender, &header, err);
    if (r == 0)
        r = send_all(sender, records->data, records->length, err);
    return r < 0 ? r : send_padding(sender, records->length, err);
}

/* Owners are left out, as docker does: everything belongs to root in the context. */
static int send_entry(struct sender *sender, const char *path, const char *link, char type,
                      const struct stat *status, struct error *err)
{
    _cleanup_buffer_ struct buffer records = BUFFER_INIT;
    struct header header = {.type = type};
    uint64_t size = type == '0' ? (uint64_t)status->st_size : 0;
    uint64_t time = status->st_mtime > 0 ? (uint64_t)status->st_mtime : 0;

    if (strlen(path) > NAME_SIZE)
        add_record(&records, "path", path);
    if (link && strlen(link) > NAME_SIZE)
        add_record(&records, "linkpath", link);
    if (size >= UINT64_C(1) << 33) {
        char number[24];
        snprintf(number, sizeof(number), "%llu", (unsigned long long)size);
        add_record(&records, "size", number);
    }
    memcpy(header.name, path, strnlen(path, NAME_SIZE));
    if (link)
        memcpy(header.link, link, strnlen(link, NAME_SIZE));
    set_number(header.mode, sizeof(header.mode), status->st_mode & 07777);
    set_number(header.uid, sizeof(header.uid), 0);
    set_number(header.gid, sizeof(header.gid), 0);
    set_number(header.size, sizeof(header.size), size < UINT64_C(1) << 33 ? size : 0);
    set_number(header.mtime, sizeof(header.mtime), time < UINT64_C(1) << 33 ? time : 0);
    int r = records.length ? send_records(sender, &records, err) : 0;
    return r < 0 ? r : send_header(sender, &header, err);
}

/* --- files ------------------------------------------------------------------------------------ */

/* Exactly as many bytes as the header says: the file may be changing. */
static int send_data(struct sender *sender, int fd, uint64_t size, struct error *err)
{
    _cleanup_free_ char *block = xmalloc(COPY_BLOCK);

    for (uint64_t left = size; left;) {
        size_t wanted = left < COPY_BLOCK ? (size_t)left : COPY_BLOCK;
        ssize_t n = read(fd, block, wanted);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read");
        if (n == 0) {
            memset(block, 0, wanted);
            n = (ssize_t)wanted;
        }
        int r = send_all(sender, block, (size_t)n, err);
        if (r < 0)
            return r;
        left -= (uint64_t)n;
    }
    return send_padding(sender, size, err);
}

static int send_file(struct sender *sender, int folder_fd, const char *name, const char *path,
                     struct error *err)
{
    _cleanup_close_ int fd =
        openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open %s", path);
    int r = send_entry(sender, path, NULL, '0', &status, err);
    return r < 0 ? r : send_data(sender, fd, (uint64_t)status.st_size, err);
}

static int send_link(struct sender *sender, int folder_fd, const char *name, const char *path,
                     const struct stat *status, struct error *err)
{
    char target[4096];
    ssize_t n = readlinkat(folder_fd, name, target, sizeof(target) - 1);

    if (n < 0)
        return error_errno(err, errno, "read the link %s", path);
    target[n] = '\0';
    return send_entry(sender, path, target, '2', status, err);
}

static int send_folder(struct sender *sender, int folder_fd, const char *path, unsigned depth,
                       struct error *err);

/* The engine needs these, whatever the patterns say. */
static bool is_wanted(const struct sender *sender, const char *path)
{
    return !ignore_matches(sender->ignore, path) || text_equal(path, ".dockerignore") ||
           text_equal(path, sender->context->dockerfile);
}

static int send_subfolder(struct sender *sender, int folder_fd, const char *name, const char *path,
                          const struct stat *status, unsigned depth, struct error *err)
{
    bool wanted = is_wanted(sender, path);
    size_t length = strlen(path);
    bool above_dockerfile = strncmp(sender->context->dockerfile, path, length) == 0 &&
                            sender->context->dockerfile[length] == '/';

    if (!wanted && !above_dockerfile && !ignore_has_exceptions(sender->ignore))
        return 0;
    _cleanup_free_ char *shown = xasprintf("%s/", path);
    int r = wanted ? send_entry(sender, shown, NULL, '5', status, err) : 0;
    if (r < 0)
        return r;
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open %s", path)
                  : send_folder(sender, fd, path, depth + 1, err);
}

static int send_item(struct sender *sender, int folder_fd, const char *folder, const char *name,
                     unsigned depth, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s", folder, folder[0] ? "/" : "", name);
    struct stat status;

    if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "look at %s", path);
    if (sender->context->text && text_equal(path, sender->context->dockerfile))
        return 0;
    if (S_ISDIR(status.st_mode))
        return send_subfolder(sender, folder_fd, name, path, &status, depth, err);
    if (!is_wanted(sender, path))
        return 0;
    if (S_ISREG(status.st_mode))
        return send_file(sender, folder_fd, name, path, err);
    if (S_ISLNK(status.st_mode))
        return send_link(sender, folder_fd, name, path, &status, err);
    return S_ISFIFO(status.st_mode) ? send_entry(sender, path, NULL, '6', &status, err) : 0;
}

/* Takes folder_fd over. */
static int send_folder(struct sender *sender, int folder_fd, const char *path, unsigned depth,
                       struct error *err)
{
    _cleanup_close_ int fd = folder_fd;
    struct dirent **names = NULL;
    int r = 0;

    if (depth > DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "the context is more than %d folders deep", DEPTH_MAX);
    int count = scandirat(fd, ".", &names, NULL, alphasort);
    if (count < 0)
        return error_errno(err, errno, "list %s", path);
    for (int i = 0; i < count; i++) {
        if (r == 0 && !text_equal(names[i]->d_name, ".") && !text_equal(names[i]->d_name, ".."))
            r = send_item(sender, fd, path, names[i]->d_name, depth, err);
        free(names[i]);
    }
    free(names);
    return r;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int read_ignore(struct sender *sender, int folder_fd, struct error *err)
{
    _cleanup_free_ char *own = xasprintf("%s.dockerignore", sender->context->dockerfile);
    const char *const names[] = {own, ".dockerignore"};
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = -ENOENT;

    for (size_t i = 0; i < ARRAY_SIZE(names) && r == -ENOENT; i++)
        r = file_read_at(folder_fd, names[i], IGNORE_MAX, &text, &length, NULL);
    if (r == -ENOENT)
        return 0;
    return r < 0 ? error_errno(err, -r, "read .dockerignore")
                 : ignore_parse(text, length, &sender->ignore, err);
}

static int send_text(struct sender *sender, struct error *err)
{
    const struct context *context = sender->context;
    const struct stat status = {.st_mode = 0600, .st_size = (off_t)context->text_length};
    int r = send_entry(sender, context->dockerfile, NULL, '0', &status, err);

    if (r == 0)
        r = send_all(sender, context->text, context->text_length, err);
    return r < 0 ? r : send_padding(sender, context->text_length, err);
}

int context_write(struct context *context, int fd, struct error *err)
{
    static const char end[2 * BLOCK];
    struct sender sender = {.context = context, .fd = fd};
    int r = 0;

    if (context->folder) {
        _cleanup_close_ int folder = open(context->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0)
            return error_errno(err, errno, "open %s", context->folder);
        r = read_ignore(&sender, folder, err);
        if (r == 0)
            r = send_folder(&sender, steal_fd(&folder), "", 0, err);
    }
    if (r == 0 && context->text)
        r = send_text(&sender, err);
    if (r == 0)
        r = send_all(&sender, end, sizeof(end), err);
    ignore_free(sender.ignore);
    return r;
}
