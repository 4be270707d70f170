/*
 * Bounce buffers: memory that the device moves without the kernel's copy, for content on its way
 * between the device and memory of another kind. A copy of ours is in place of the kernel's then,
 * which goes through many small pieces that it allocates for each request. Any thread.
 */
#ifndef BLOCK_BOUNCE_H
#define BLOCK_BOUNCE_H

#include <pthread.h>

#include <block/device.h>

enum {
    BOUNCE_BUFFERS = 2, /* one at the device, one that is copied: usbfs has 16 MiB for all sticks */
    BOUNCE_LENT_MOST =
        1, /* of them, for who keeps one; fewer than all: the others always come back */
    BOUNCE_LEAST = 32 << 10, /* bytes: less is not worth it */
};

struct bounce_buffer {
    uint8_t *data; /* block_device.best_size bytes; NULL: not there */
    bool busy, lent;
};

struct bounce {
    struct block_device *device;
    pthread_mutex_t lock;
    pthread_cond_t given;
    bool used, none; /* since the last bounce_rest(): some was taken; there was no memory for it */
    struct bounce_buffer buffers[BOUNCE_BUFFERS];
};

void bounce_init(struct bounce *bounce, struct block_device *device);
void bounce_finish(struct bounce *bounce); /* none is taken */

/* block_device.best_size bytes, for one request; waits while all are taken. Until it is given back
 * the caller waits for the device only. NULL: there is no such memory, or data is in some of it. */
uint8_t *bounce_take(struct bounce *bounce, const uint8_t *data);
/* The same for any time, and never waits. NULL: there is none left. */
uint8_t *bounce_lend(struct bounce *bounce);
/* False: it is none of these. NULL is fine. */
bool bounce_give(struct bounce *bounce, const uint8_t *buffer);

/* Called about once a second: lets go of the memory when nobody wanted it since the last time. */
void bounce_rest(struct bounce *bounce);

#endif
