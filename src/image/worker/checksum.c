/*
 * SHA-256 of a stream, in a thread of its own: summing up is the slowest part of loading an image,
 * and everything else (decompression, writing, the next layer's reading) goes on beside it. Small
 * streams are not worth a thread.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "flush.h"
#include "stream.h"

enum {
    DIGEST_SIZE = 32,
    INLINE_MAX = 512 * 1024, /* bytes that are summed up by the reader itself */
    /* Deep enough that on a busy machine neither side waits when the other has lost its turn. */
    SLOT_SIZE = 256 * 1024,
    SLOTS = 16,
};

struct slot {
    const char *data;
    size_t length;
};

struct checksum_stream {
    struct stream stream;
    struct stream *source;
    unsigned kept;    /* slots that may wait when the source is read again */
    EVP_MD_CTX *hash; /* the thread's while it runs */
    uint64_t length;
    uint64_t flushed;
    uint64_t skip; /* first bytes, which the copy has already */
    int copy_fd;
    bool started, threaded;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct slot slots[SLOTS];
    uint64_t filled; /* slots ever */
    uint64_t taken;
    bool ended;
    char (*copies)[SLOT_SIZE]; /* of blocks that the source does not keep for so long */
};

static void *sum_up(void *data)
{
    struct checksum_stream *self = data;

    pthread_mutex_lock(&self->mutex);
    for (;;) {
        while (self->taken == self->filled && !self->ended)
            pthread_cond_wait(&self->changed, &self->mutex);
        if (self->taken == self->filled)
            break;
        const struct slot *slot = &self->slots[self->taken % SLOTS];
        pthread_mutex_unlock(&self->mutex);
        EVP_DigestUpdate(self->hash, slot->data, slot->length);
        pthread_mutex_lock(&self->mutex);
        self->taken++;
        pthread_cond_signal(&self->changed);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* Until at most so many slots are not summed up. */
static void wait_for_thread(struct checksum_stream *self, unsigned slots)
{
    pthread_mutex_lock(&self->mutex);
    while (self->filled - self->taken > slots)
        pthread_cond_wait(&self->changed, &self->mutex);
    pthread_mutex_unlock(&self->mutex);
}

static void fill_slot(struct checksum_stream *self, const char *data, size_t length)
{
    self->slots[self->filled % SLOTS] = (struct slot){data, length};
    pthread_mutex_lock(&self->mutex);
    self->filled++;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

static void hand_over(struct checksum_stream *self, const char *data, size_t length)
{
    if (!self->copies) {
        fill_slot(self, data, length);
        return;
    }
    while (length) {
        size_t part = length < SLOT_SIZE ? length : SLOT_SIZE;
        wait_for_thread(self, SLOTS - 1);
        char *copy = self->copies[self->filled % SLOTS];
        memcpy(copy, data, part);
        fill_slot(self, copy, part);
        data += part;
        length -= part;
    }
}

/* Without a thread, should none be had, the reader goes on alone. */
static void start_thread(struct checksum_stream *self)
{
    if (!self->source->kept)
        self->copies = xmalloc(SLOTS * sizeof(*self->copies));
    self->started = true;
    self->threaded = pthread_create(&self->thread, NULL, sum_up, self) == 0;
}

static void join_thread(struct checksum_stream *self)
{
    if (!self->threaded)
        return;
    pthread_mutex_lock(&self->mutex);
    self->ended = true;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
    pthread_join(self->thread, NULL);
    self->threaded = false;
}

static ssize_t checksum_read(struct stream *stream, const void **block, struct error *err)
{
    struct checksum_stream *self = (struct checksum_stream *)stream;

    if (self->threaded && !self->copies) /* what the source gives up now is summed up */
        wait_for_thread(self, self->kept);
    ssize_t n = stream_read(self->source, block, err);
    if (n <= 0)
        return n;
    uint64_t start = self->length;
    self->length += (uint64_t)n;
    if (!self->started && self->length > INLINE_MAX)
        start_thread(self);
    if (self->threaded)
        hand_over(self, *block, (size_t)n);
    else
        EVP_DigestUpdate(self->hash, *block, (size_t)n);
    if (self->copy_fd < 0 || self->length <= self->skip)
        return n;
    size_t known = start < self->skip ? (size_t)(self->skip - start) : 0;
    int r = file_write_all(self->copy_fd, (const char *)*block + known, (size_t)n - known);
    flush_begin(self->copy_fd, self->length, &self->flushed);
    return r < 0 ? error_errno(err, -r, "write a blob") : n;
}

static void checksum_destroy(struct stream *stream)
{
    struct checksum_stream *self = (struct checksum_stream *)stream;

    join_thread(self);
    EVP_MD_CTX_free(self->hash);
    pthread_mutex_destroy(&self->mutex);
    pthread_cond_destroy(&self->changed);
    free(self->copies);
    free(self);
}

struct stream *stream_checksum(struct stream *source, int copy_fd)
{
    static const struct stream_ops ops = {checksum_read, checksum_destroy};
    struct checksum_stream *self = xnew(struct checksum_stream);

    self->stream.ops = &ops;
    self->source = source;
    self->kept = source->kept < SLOTS ? source->kept : SLOTS - 1;
    self->stream.kept = source->kept;
    self->copy_fd = copy_fd;
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->changed, NULL);
    self->hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(self->hash, EVP_sha256(), NULL);
    return &self->stream;
}

void stream_checksum_skip(struct stream *stream, uint64_t length)
{
    ((struct checksum_stream *)stream)->skip = length;
}

uint64_t stream_checksum_length(const struct stream *stream)
{
    return ((const struct checksum_stream *)stream)->length;
}

void stream_checksum_digest(struct stream *stream, char ret[72])
{
    struct checksum_stream *self = (struct checksum_stream *)stream;
    unsigned char digest[DIGEST_SIZE];

    join_thread(self);
    EVP_DigestFinal_ex(self->hash, digest, NULL);
    memcpy(ret, "sha256:", 7);
    text_hex(digest, sizeof(digest), ret + 7);
}
