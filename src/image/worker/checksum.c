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
    SLOT_SIZE = 256 * 1024,
    SLOTS = 8,
};

struct slot {
    size_t length;
    char data[SLOT_SIZE];
};

struct checksum_stream {
    struct stream stream;
    struct stream *source;
    EVP_MD_CTX *hash; /* the thread's while it runs */
    uint64_t length;
    uint64_t flushed;
    uint64_t skip; /* first bytes, which the copy has already */
    int copy_fd;
    bool threaded;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct slot *slots;
    uint64_t filled; /* slots ever */
    uint64_t taken;
    bool ended;
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

static void hand_over(struct checksum_stream *self, const char *data, size_t length)
{
    while (length) {
        pthread_mutex_lock(&self->mutex);
        while (self->filled - self->taken == SLOTS)
            pthread_cond_wait(&self->changed, &self->mutex);
        struct slot *slot = &self->slots[self->filled % SLOTS];
        pthread_mutex_unlock(&self->mutex);
        slot->length = length < SLOT_SIZE ? length : SLOT_SIZE;
        memcpy(slot->data, data, slot->length);
        data += slot->length;
        length -= slot->length;
        pthread_mutex_lock(&self->mutex);
        self->filled++;
        pthread_cond_signal(&self->changed);
        pthread_mutex_unlock(&self->mutex);
    }
}

/* Without a thread, should none be had, the reader goes on alone. */
static void start_thread(struct checksum_stream *self)
{
    self->slots = xnew_array(struct slot, SLOTS);
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
    ssize_t n = stream_read(self->source, block, err);

    if (n <= 0)
        return n;
    uint64_t start = self->length;
    self->length += (uint64_t)n;
    if (!self->slots && self->length > INLINE_MAX)
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
    free(self->slots);
    free(self);
}

struct stream *stream_checksum(struct stream *source, int copy_fd)
{
    static const struct stream_ops ops = {checksum_read, checksum_destroy};
    struct checksum_stream *self = xnew(struct checksum_stream);

    self->stream.ops = &ops;
    self->source = source;
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
