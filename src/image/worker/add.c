/* ADD of an archive: a tar, also compressed, is unpacked; anything else is a file like any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>

#include "building.h"
#include "stream.h"
#include "unpack.h"
#include "worker.h"

/* No layer: names of whiteouts are names like any other. */
static const struct unpack_rules no_layer = {.base = ""};

/* gzip and zstd by our own reader, which limits what comes out; others are libarchive's. */
struct opened {
    struct stream *source, *start, *plain;
    struct tar tar;
};

static void close_archive(struct opened *opened)
{
    if (opened->tar.archive)
        tar_close(&opened->tar);
    stream_destroy(opened->plain);
    stream_destroy(opened->start);
    stream_destroy(opened->source);
}

static int open_archive(struct opened *opened, int fd, struct error *err)
{
    enum compression compression;
    const void *first;
    size_t length;

    *opened = (struct opened){.source = stream_from_fd(fd)};
    opened->start = stream_peek(opened->source, 4, &first, &length, err);
    if (!opened->start)
        return -EIO;
    compression = compression_detect(first, length);
    if (compression != COMPRESSION_NONE)
        opened->plain = stream_decompress(opened->start, compression);
    return tar_open_any(&opened->tar, opened->plain ? opened->plain : opened->start, err);
}

/* As docker decides: there is an entry in it. */
bool archive_is(int fd)
{
    struct archive_entry *entry;
    struct opened opened;
    bool is = open_archive(&opened, fd, NULL) == 0 && tar_next(&opened.tar, &entry, NULL) > 0;

    close_archive(&opened);
    return lseek(fd, 0, SEEK_SET) == 0 && is;
}

int archive_unpack(int fd, int folder_fd, struct error *err)
{
    struct archive_entry *entry;
    struct opened opened;
    struct unpack unpack;
    int r = open_archive(&opened, fd, err);

    unpack_init(&unpack, folder_fd);
    unpack.rules = &no_layer;
    while (r >= 0 && (r = tar_next(&opened.tar, &entry, err)) > 0) {
        r = unpack_entry(&unpack, &opened.tar, entry, err);
        message_progress("unpack an archive", unpack.bytes);
    }
    if (r == 0)
        r = unpack_complete(&unpack, err);
    unpack_finish(&unpack);
    close_archive(&opened);
    return r;
}
