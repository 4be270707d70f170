/*
 * Small pieces of content that were written one behind the other on the medium, in memory until
 * they are worth a request of the device. Who writes many small files has them written in few
 * pieces.
 *
 * What is here is on the medium before anything is made durable, and before anybody reads it.
 */
#ifndef BLOCK_BEHIND_H
#define BLOCK_BEHIND_H

#include <pthread.h>
#include <stdatomic.h>

#include <block/device.h>

enum {
    BEHIND_PIECE = 64 << 10, /* bytes: larger ones are worth a request of their own */
    BEHIND_MOST = 256 << 10,
};

struct medium;

struct behind {
    pthread_mutex_t lock;
    uint64_t offset; /* bytes of the medium */
    _Atomic size_t size;
    uint8_t *data; /* BEHIND_MOST bytes once they were needed; owned */
};

void behind_init(struct behind *behind);
void behind_finish(struct medium *medium); /* what is there is lost */

/* Keeps whole sectors of content, at most BEHIND_PIECE bytes. */
int behind_keep(struct medium *medium, uint64_t offset, const void *data, size_t size,
                struct error *err);

/* Writes all of it. */
int behind_write(struct medium *medium, struct error *err);

/* Writes all of it if some of it is within these bytes. */
int behind_settle(struct medium *medium, uint64_t offset, uint64_t size, struct error *err);

/* Reads ahead, unless some of it is within these bytes. Never waits for the device. */
void behind_expect(struct medium *medium, uint64_t offset, uint64_t size);

#endif
