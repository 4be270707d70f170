#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>

#include "limits.h"
#include "stream.h"

enum { FD_BLOCK = 256 * 1024 };

ssize_t stream_read(struct stream *stream, const void **block, struct error *err)
{
    return stream->ops->read(stream, block, err);
}

int stream_drain(struct stream *stream, struct error *err)
{
    const void *block;
    ssize_t n;

    while ((n = stream_read(stream, &block, err)) > 0)
        ;
    return (int)n;
}

void stream_destroy(struct stream *stream)
{
    if (stream)
        stream->ops->destroy(stream);
}

struct fd_stream {
    struct stream stream;
    int fd;
    char block[FD_BLOCK];
};

static ssize_t fd_read(struct stream *stream, const void **block, struct error *err)
{
    struct fd_stream *self = (struct fd_stream *)stream;
    size_t length = 0;

    /* Whole blocks also from a pipe, whose reads are short. */
    while (length < sizeof(self->block)) {
        ssize_t n = read(self->fd, self->block + length, sizeof(self->block) - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read the archive");
        if (n == 0)
            break;
        length += (size_t)n;
    }
    *block = self->block;
    return (ssize_t)length;
}

static void plain_destroy(struct stream *stream)
{
    free(stream);
}

struct stream *stream_from_fd(int fd)
{
    static const struct stream_ops ops = {fd_read, plain_destroy};
    struct fd_stream *self = xmalloc(sizeof(*self));

    self->stream.ops = &ops;
    self->fd = fd;
    return &self->stream;
}

struct peek_stream {
    struct stream stream;
    struct stream *source;
    struct buffer start;
    bool given;
};

static ssize_t peek_read(struct stream *stream, const void **block, struct error *err)
{
    struct peek_stream *self = (struct peek_stream *)stream;

    if (!self->given && self->start.length) {
        self->given = true;
        *block = self->start.data;
        return (ssize_t)self->start.length;
    }
    return stream_read(self->source, block, err);
}

static void peek_destroy(struct stream *stream)
{
    struct peek_stream *self = (struct peek_stream *)stream;

    buffer_finish(&self->start);
    free(self);
}

struct stream *stream_peek(struct stream *source, size_t wanted, const void **ret_start,
                           size_t *ret_length, struct error *err)
{
    static const struct stream_ops ops = {peek_read, peek_destroy};
    struct peek_stream *self = xnew(struct peek_stream);

    self->stream.ops = &ops;
    self->stream.kept = source->kept; /* its own block stays as long as it does */
    self->source = source;
    while (self->start.length < wanted) {
        const void *block;
        ssize_t n = stream_read(source, &block, err);
        if (n < 0) {
            peek_destroy(&self->stream);
            return NULL;
        }
        if (n == 0)
            break;
        buffer_append(&self->start, block, (size_t)n);
    }
    *ret_start = self->start.data;
    *ret_length = self->start.length;
    return &self->stream;
}

enum compression compression_detect(const void *start, size_t length)
{
    const unsigned char *bytes = start;

    if (length >= 3 && !memcmp(bytes, "\x1f\x8b\x08", 3))
        return COMPRESSION_GZIP;
    if (length >= 4 && !memcmp(bytes, "\x28\xb5\x2f\xfd", 4))
        return COMPRESSION_ZSTD;
    /* Skippable frames (RFC 8878 3.1.2), as in zstd:chunked files, come in 16 kinds. */
    if (length >= 4 && (bytes[0] & 0xf0) == 0x50 && !memcmp(bytes + 1, "\x2a\x4d\x18", 3))
        return COMPRESSION_ZSTD;
    return COMPRESSION_NONE;
}
