/*
 * One program's ring: what it submits becomes moves (moves.h), what is done becomes completions.
 * Everything in the shared memory may change at any moment: each word is read once, into memory of
 * our own, and looked at there. Indices of the door's own are never read from it.
 */
#ifndef DOORS_RING_INTERNAL_H
#define DOORS_RING_INTERNAL_H

#include <doors/ring.h>
#include <doors/ring_layout.h>

struct ring;

/* wake: the program sleeps and has something to look at; on the device's thread or the caller's of
 * ring_take(); must not wait. -EINVAL: a size that cannot be. */
int ring_create(struct block_device *device, bool read_only, uint64_t data_size,
                void (*wake)(void *data), void *data, struct ring **ret_ring, struct error *err);

/* Waits for what is under way; wake() is not called afterwards. NULL is fine. */
void ring_destroy(struct ring *ring);

int ring_memory(const struct ring *ring); /* the ring's descriptor of it */
void ring_welcome(const struct ring *ring, struct ring_welcome *ret_welcome);

/* Begins everything that was submitted and has room. -EPROTO: indices that cannot be; the ring is
 * good for nothing but ring_destroy() then. One thread. */
int ring_take(struct ring *ring, struct error *err);

/* Asks for a message with whatever comes. False: something is there already, and none will come. */
bool ring_sleep(struct ring *ring);

#endif
