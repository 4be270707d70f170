#include "follow.h"

#include <errno.h>
#include <unistd.h>

#include <base/alloc.h>

enum {
    BLOCK = 256 * 1024,
    BLOCKS = 16, /* that many less one may wait to be summed up (checksum.c) */
};

struct follow {
    struct stream stream;
    int fd;
    uint64_t at; /* the reader's */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t length; /* under mutex, as what follows */
    bool ended, stopped;
    int result;
    struct error failure;
    unsigned block; /* of blocks, the next one */
    char blocks[BLOCKS][BLOCK];
};

static void follow_no_destroy(struct stream *stream)
{
}

/* Bytes that can be read; 0: there will be no more. */
static uint64_t wait_for_more(struct follow *follow)
{
    pthread_mutex_lock(&follow->mutex);
    while (follow->length == follow->at && !follow->ended)
        pthread_cond_wait(&follow->changed, &follow->mutex);
    uint64_t more = follow->length - follow->at;
    pthread_mutex_unlock(&follow->mutex);
    return more;
}

static ssize_t follow_read(struct stream *stream, const void **block, struct error *err)
{
    struct follow *follow = (struct follow *)stream;
    uint64_t more = wait_for_more(follow);
    ssize_t n;

    if (!more)
        return follow->result < 0 ? error_move(err, &follow->failure) : 0;
    char *next = follow->blocks[follow->block];
    size_t wanted = more < BLOCK ? (size_t)more : BLOCK;
    while ((n = pread(follow->fd, next, wanted, (off_t)follow->at)) < 0)
        if (errno != EINTR)
            return error_errno(err, errno, "read the layer");
    if (n == 0)
        return error_set(err, -EIO, "the layer is shorter than what was written of it");
    follow->at += (uint64_t)n;
    follow->block = (follow->block + 1) % BLOCKS;
    *block = next;
    return n;
}

struct follow *follow_create(int fd)
{
    static const struct stream_ops ops = {follow_read, follow_no_destroy};
    struct follow *follow = xnew(struct follow);

    follow->stream.ops = &ops;
    follow->stream.kept = BLOCKS - 1;
    follow->fd = fd;
    pthread_mutex_init(&follow->mutex, NULL);
    pthread_cond_init(&follow->changed, NULL);
    return follow;
}

void follow_destroy(struct follow *follow)
{
    pthread_mutex_destroy(&follow->mutex);
    pthread_cond_destroy(&follow->changed);
    error_finish(&follow->failure);
    free(follow);
}

bool follow_grown(struct follow *follow, uint64_t bytes)
{
    pthread_mutex_lock(&follow->mutex);
    follow->length += bytes;
    bool stopped = follow->stopped;
    pthread_cond_signal(&follow->changed);
    pthread_mutex_unlock(&follow->mutex);
    return !stopped;
}

void follow_end(struct follow *follow, int result, struct error *err)
{
    pthread_mutex_lock(&follow->mutex);
    follow->result = result;
    if (result < 0)
        error_move(&follow->failure, err);
    follow->ended = true;
    pthread_cond_signal(&follow->changed);
    pthread_mutex_unlock(&follow->mutex);
}

struct stream *follow_stream(struct follow *follow)
{
    return &follow->stream;
}

void follow_stop(struct follow *follow)
{
    pthread_mutex_lock(&follow->mutex);
    follow->stopped = true;
    pthread_mutex_unlock(&follow->mutex);
}
