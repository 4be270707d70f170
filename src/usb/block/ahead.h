/*
 * Content that will be read soon, on its way into memory: a few pieces of the medium, whose memory
 * is bounded. Whoever asks for bytes of a piece that is on its way waits for it.
 */
#ifndef BLOCK_AHEAD_H
#define BLOCK_AHEAD_H

#include <pthread.h>

#include <block/device.h>

enum {
    AHEAD_PIECE = 128 << 10, /* bytes */
    AHEAD_PIECES = 8,
};

enum ahead_state { AHEAD_EMPTY, AHEAD_PENDING, AHEAD_READY };

struct ahead;

struct ahead_piece {
    struct block_request request;
    struct ahead *ahead;
    enum ahead_state state;
    bool stale;            /* it was written to meanwhile: what comes is not used */
    uint64_t offset, size; /* bytes of the medium */
    uint64_t used;         /* when: the one that was used longest ago makes way */
    uint8_t *data;         /* AHEAD_PIECE bytes once it was needed; owned */
};

struct ahead {
    struct block_device *device;
    pthread_mutex_t lock;
    pthread_cond_t came;
    uint64_t clock;
    bool any; /* something was ever expected */
    struct ahead_piece pieces[AHEAD_PIECES];
};

void ahead_init(struct ahead *ahead, struct block_device *device);
void ahead_finish(struct ahead *ahead); /* waits for what is under way */

/* Starts to read what is not there, as far as there are pieces. Never waits. */
void ahead_expect(struct ahead *ahead, uint64_t offset, uint64_t size);

/* Takes bytes from offset on that are there, or on their way: how many; 0: there are none, and the
 * next *ret_gap bytes, at most size, are to be read from the device. */
size_t ahead_take(struct ahead *ahead, uint64_t offset, uint8_t *data, size_t size,
                  size_t *ret_gap);

/* These bytes were written. */
void ahead_forget(struct ahead *ahead, uint64_t offset, uint64_t size);

#endif
