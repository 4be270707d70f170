#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>

#include "limits.h"
#include "stream.h"

enum { FD_BLOCK = 256 * 1024, DIGEST_SIZE = 32 };

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

struct checksum_stream {
    struct stream stream;
    struct stream *source;
    EVP_MD_CTX *hash;
    uint64_t length;
    int copy_fd;
};

static ssize_t checksum_read(struct stream *stream, const void **block, struct error *err)
{
    struct checksum_stream *self = (struct checksum_stream *)stream;
    ssize_t n = stream_read(self->source, block, err);

    if (n <= 0)
        return n;
    self->length += (uint64_t)n;
    EVP_DigestUpdate(self->hash, *block, (size_t)n);
    int r = self->copy_fd < 0 ? 0 : file_write_all(self->copy_fd, *block, (size_t)n);
    return r < 0 ? error_errno(err, -r, "write a blob") : n;
}

static void checksum_destroy(struct stream *stream)
{
    struct checksum_stream *self = (struct checksum_stream *)stream;

    EVP_MD_CTX_free(self->hash);
    free(self);
}

struct stream *stream_checksum(struct stream *source, int copy_fd)
{
    static const struct stream_ops ops = {checksum_read, checksum_destroy};
    struct checksum_stream *self = xnew(struct checksum_stream);

    self->stream.ops = &ops;
    self->source = source;
    self->copy_fd = copy_fd;
    self->hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(self->hash, EVP_sha256(), NULL);
    return &self->stream;
}

uint64_t stream_checksum_length(const struct stream *stream)
{
    return ((const struct checksum_stream *)stream)->length;
}

void stream_checksum_digest(struct stream *stream, char ret[72])
{
    struct checksum_stream *self = (struct checksum_stream *)stream;
    unsigned char digest[DIGEST_SIZE];

    EVP_DigestFinal_ex(self->hash, digest, NULL);
    memcpy(ret, "sha256:", 7);
    text_hex(digest, sizeof(digest), ret + 7);
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
