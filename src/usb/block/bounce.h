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
    BOUNCE_BUFFERS = 4,      /* as many as a door has threads */
    BOUNCE_LEAST = 32 << 10, /* bytes: less is not worth it */
};

struct bounce_buffer {
    uint8_t *data; /* block_device.best_size bytes; NULL: not there */
    bool busy;
};

struct bounce {
    struct block_device *device;
    pthread_mutex_t lock;
    bool used, none; /* since the last bounce_rest(): some was taken; there was no memory for it */
    struct bounce_buffer buffers[BOUNCE_BUFFERS];
};

void bounce_init(struct bounce *bounce, struct block_device *device);
void bounce_finish(struct bounce *bounce); /* none is taken */

/* block_device.best_size bytes; NULL: there is none, or data is in one of them. Never waits. */
uint8_t *bounce_take(struct bounce *bounce, const uint8_t *data);
/* False: it is none of these. NULL is fine. */
bool bounce_give(struct bounce *bounce, const uint8_t *buffer);

/* Called about once a second: lets go of the memory when nobody wanted it since the last time. */
void bounce_rest(struct bounce *bounce);

#endif
