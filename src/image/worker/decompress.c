#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include <base/alloc.h>

#include "limits.h"
#include "stream.h"

enum {
    OUTPUT_SIZE = 256 * 1024,
    OUTPUTS = 16, /* that many less one may wait to be summed up (checksum.c) */
    /* Largest zstd window that is accepted, as zstd -d and containers/image do by default. */
    ZSTD_WINDOW_LOG = 27,
};

struct decompress_stream {
    struct stream stream;
    struct stream *source;
    const unsigned char *input;
    size_t input_length;
    bool input_ended;
    bool in_member; /* inside a gzip member or zstd frame: the end may not come now */
    uint64_t taken; /* compressed bytes */
    uint64_t given; /* decompressed bytes */
    z_stream gzip;
    ZSTD_DStream *zstd;
    unsigned output; /* of outputs, the one that is filled next */
    unsigned char outputs[OUTPUTS][OUTPUT_SIZE];
};

static int refill(struct decompress_stream *self, struct error *err)
{
    const void *block = NULL;

    if (self->input_length || self->input_ended)
        return 0;
    ssize_t n = stream_read(self->source, &block, err);
    if (n < 0)
        return (int)n;
    self->input = block;
    self->input_length = (size_t)n;
    self->taken += (uint64_t)n;
    self->input_ended = n == 0;
    return 0;
}

static int check_expansion(const struct decompress_stream *self, struct error *err)
{
    if (self->given > LAYER_BYTES_MAX)
        return error_set(err, -EFBIG, "unpacks to more than %llu GiB (LAYER_BYTES_MAX)",
                         LAYER_BYTES_MAX >> 30);
    if (self->given > EXPANSION_FREE && self->given / EXPANSION_MAX > self->taken)
        return error_set(err, -EFBIG,
                         "unpacks to more than %d times its size (EXPANSION_MAX): a decompression "
                         "bomb",
                         EXPANSION_MAX);
    return 0;
}

static void consume(struct decompress_stream *self, size_t length)
{
    if (length) /* the input may be NULL at the end */
        self->input += length;
    self->input_length -= length;
}

static int ends_early(struct error *err, const char *what)
{
    return error_set(err, -EBADMSG, "the %s data ends in the middle", what);
}

/* Fills the output as far as the input goes. Returns bytes or -errno; 0: more input is needed. */
static ssize_t gzip_step(struct decompress_stream *self, struct error *err)
{
    if (!self->in_member) {
        /* Zeros behind the last member are padding (gzip(1) ignores them too). */
        while (self->input_length && self->input[0] == 0 && self->given) {
            self->input++;
            self->input_length--;
        }
        if (!self->input_length)
            return 0;
        inflateReset(&self->gzip);
        self->in_member = true;
    }
    self->gzip.next_in = (unsigned char *)self->input;
    self->gzip.avail_in = (unsigned)self->input_length;
    self->gzip.next_out = self->outputs[self->output];
    self->gzip.avail_out = OUTPUT_SIZE;
    int r = inflate(&self->gzip, Z_NO_FLUSH);
    consume(self, self->input_length - self->gzip.avail_in);
    if (r == Z_STREAM_END)
        self->in_member = false;
    else if (r != Z_OK && r != Z_BUF_ERROR)
        return error_set(err, -EBADMSG, "damaged gzip data: %s",
                         self->gzip.msg ? self->gzip.msg : zError(r));
    return OUTPUT_SIZE - self->gzip.avail_out;
}

static ssize_t zstd_step(struct decompress_stream *self, struct error *err)
{
    ZSTD_inBuffer in = {self->input, self->input_length, 0};
    ZSTD_outBuffer out = {self->outputs[self->output], OUTPUT_SIZE, 0};
    size_t r = ZSTD_decompressStream(self->zstd, &out, &in);

    if (ZSTD_isError(r))
        return error_set(err, -EBADMSG, "damaged zstd data: %s", ZSTD_getErrorName(r));
    consume(self, in.pos);
    self->in_member = r != 0;
    return (ssize_t)out.pos;
}

static ssize_t decompress_read(struct stream *stream, const void **block, struct error *err)
{
    struct decompress_stream *self = (struct decompress_stream *)stream;

    for (;;) {
        int r = refill(self, err);
        if (r < 0)
            return r;
        bool ended = self->input_ended && !self->input_length;
        if (ended && !self->in_member)
            return 0;
        ssize_t n = self->zstd ? zstd_step(self, err) : gzip_step(self, err);
        if (n < 0)
            return n;
        if (n == 0 && ended && self->in_member)
            return ends_early(err, self->zstd ? "zstd" : "gzip");
        if (n == 0)
            continue;
        self->given += (uint64_t)n;
        r = check_expansion(self, err);
        *block = self->outputs[self->output];
        self->output = (self->output + 1) % OUTPUTS;
        return r < 0 ? r : n;
    }
}

static void decompress_destroy(struct stream *stream)
{
    struct decompress_stream *self = (struct decompress_stream *)stream;

    if (self->zstd)
        ZSTD_freeDStream(self->zstd);
    else
        inflateEnd(&self->gzip);
    free(self);
}

struct stream *stream_decompress(struct stream *source, enum compression compression)
{
    static const struct stream_ops ops = {decompress_read, decompress_destroy};
    struct decompress_stream *self = xnew(struct decompress_stream);

    self->stream.ops = &ops;
    self->stream.kept = OUTPUTS - 1;
    self->source = source;
    if (compression == COMPRESSION_ZSTD) {
        self->zstd = ZSTD_createDStream();
        ZSTD_DCtx_setParameter(self->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
        /* A frame has begun: an empty source is no zstd data. */
        self->in_member = true;
    } else {
        inflateInit2(&self->gzip, 16 + MAX_WBITS); /* 16: gzip wrapper (zlib.h) */
    }
    return &self->stream;
}
