/*
 * Bytes on their way through the worker, pulled block by block without copies: archive -> entry ->
 * checksum -> decompression -> checksum -> tar reader.
 */
#ifndef IMAGE_STREAM_H
#define IMAGE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

struct stream;

struct stream_ops {
    /* Length of the next block, whose memory is valid until the next call after `kept` more; 0 at
     * the end, and at every call after; negative: err says why. */
    ssize_t (*read)(struct stream *stream, const void **block, struct error *err);
    void (*destroy)(struct stream *stream);
};

struct stream {
    const struct stream_ops *ops;
    unsigned kept; /* further calls of read that a block's memory outlives */
};

ssize_t stream_read(struct stream *stream, const void **block, struct error *err);
/* Reads to the end. */
int stream_drain(struct stream *stream, struct error *err);
void stream_destroy(struct stream *stream); /* NULL allowed */
static inline void cleanup_stream_p(struct stream **stream)
{
    stream_destroy(*stream);
}
#define _cleanup_stream_ _cleanup_(cleanup_stream_p)

/* Sources below are not owned: the creator destroys them after the stream on top. */

/* A file or pipe; fd is not owned. */
struct stream *stream_from_fd(int fd);

/* Looks at up to `wanted` first bytes without taking them; fewer when the source is shorter. The
 * memory is valid until the first read. */
struct stream *stream_peek(struct stream *source, size_t wanted, const void **ret_start,
                           size_t *ret_length, struct error *err);

/* SHA-256 and length of what goes through; where copy_fd is not -1 it is written there too. */
struct stream *stream_checksum(struct stream *source, int copy_fd);
/* Before the first read: so many bytes at the start are not written again. */
void stream_checksum_skip(struct stream *stream, uint64_t length);
uint64_t stream_checksum_length(const struct stream *stream);
/* "sha256:HEX" of everything so far, 72 bytes with NUL. Once. */
void stream_checksum_digest(struct stream *stream, char ret[72]);

/* Its bytes as progress of this item: now and then, and its end for certain. step: borrowed. */
struct stream *stream_told(struct stream *source, const char *item, const char *step,
                           uint64_t total);

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

enum compression compression_detect(const void *start, size_t length);

/* Data that ends in the middle, or is damaged, is -EBADMSG; more than limits.h allows -EFBIG.
 * Further members or frames behind the first are read too (gzip, RFC 1952 2.2; zstd). */
struct stream *stream_decompress(struct stream *source, enum compression compression);

#endif
