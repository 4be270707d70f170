#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "record.h"

/* The file is HEAD NEWLINE KEY CONFIGURATION TAIL. The head is the state without its closing brace,
 * a comma, and spaces up to its room; JSON texts in one line have no newline of their own. */
static const char key[] = "\"config\":\n", tail[] = "\n}\n";

enum { SPARE = 64 }; /* the number of a process, the time of its start, levels that were made */

static void write_head(struct buffer *out, const struct buffer *state, size_t room)
{
    buffer_append(out, state->data, state->length - 1);
    buffer_append_char(out, ',');
    while (out->length < room)
        buffer_append_char(out, ' ');
    buffer_append_char(out, '\n');
}

static int write_whole(int fd, const struct buffer *head, const char *config, size_t config_length)
{
    const struct iovec parts[] = {{head->data, head->length},
                                  {(void *)(uintptr_t)key, sizeof(key) - 1},
                                  {(void *)(uintptr_t)config, config_length},
                                  {(void *)(uintptr_t)tail, sizeof(tail) - 1}};
    size_t length = 0;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        length += parts[i].iov_len;
    ssize_t n = writev(fd, parts, ARRAY_SIZE(parts));
    return n < 0 ? -errno : (size_t)n == length ? 0 : -ENOSPC;
}

int record_create(int directory_fd, const struct buffer *state, const char *config,
                  size_t config_length, size_t *ret_room, struct error *err)
{
    _cleanup_buffer_ struct buffer head = BUFFER_INIT;
    size_t room = state->length + SPARE;
    _cleanup_close_ int fd =
        openat(directory_fd, RECORD_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_errno(err, errno, "create " RECORD_FILE);
    write_head(&head, state, room);
    int r = write_whole(fd, &head, config, config_length);
    if (r < 0)
        return error_errno(err, -r, "write " RECORD_FILE);
    *ret_room = room;
    return 0;
}

/* For a state that has grown beyond its room. */
static int replace(int directory_fd, const struct buffer *head, const char *config,
                   size_t config_length, struct error *err)
{
    static const char name[] = RECORD_FILE ".new";
    _cleanup_close_ int fd =
        openat(directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : write_whole(fd, head, config, config_length);

    if (r == 0 && renameat(directory_fd, name, directory_fd, RECORD_FILE) < 0)
        r = -errno;
    return r < 0 ? error_errno(err, -r, "write " RECORD_FILE) : 0;
}

int record_update(int directory_fd, const struct buffer *state, size_t room, const char *config,
                  size_t config_length, struct error *err)
{
    _cleanup_buffer_ struct buffer head = BUFFER_INIT;

    write_head(&head, state, room);
    if (head.length > room + 1)
        return replace(directory_fd, &head, config, config_length, err);
    _cleanup_close_ int fd = openat(directory_fd, RECORD_FILE, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || pwrite(fd, head.data, head.length, 0) != (ssize_t)head.length)
        return error_errno(err, errno, "write " RECORD_FILE);
    return 0;
}

static int take_apart(struct record *record, size_t length)
{
    size_t trailer = sizeof(tail) - 1;
    char *newline = memchr(record->text, '\n', length), *comma = newline;

    while (comma && comma > record->text && (*comma == '\n' || *comma == ' '))
        comma--;
    if (!newline || *comma != ',')
        return -ENOENT;
    const char *config = newline + 1 + sizeof(key) - 1, *end = record->text + length;
    if (end - config < (ptrdiff_t)trailer || memcmp(newline + 1, key, sizeof(key) - 1) != 0 ||
        memcmp(end - trailer, tail, trailer) != 0)
        return -ENOENT;
    comma[0] = '}';
    comma[1] = '\0'; /* that was a space or the newline */
    record->state = record->text;
    record->config = config;
    record->config_length = (size_t)(end - config) - trailer;
    return 0;
}

int record_read(int directory_fd, struct record *ret, struct error *err)
{
    struct record record = {0};
    size_t length;
    int r = file_read_at(directory_fd, RECORD_FILE, RECORD_MAX, &record.text, &length, err);

    if (r < 0)
        return r;
    r = take_apart(&record, length);
    if (r < 0) {
        record_finish(&record);
        return error_set(err, r, RECORD_FILE " is not complete");
    }
    *ret = record;
    return 0;
}

void record_finish(struct record *record)
{
    free(record->text);
    *record = (struct record){0};
}
