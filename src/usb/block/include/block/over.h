/* A device over another one: what it does not do itself goes to the one below as it is. */
#ifndef BLOCK_OVER_H
#define BLOCK_OVER_H

#include <block/device.h>

/* The first member of such a device. */
struct block_over {
    struct block_device device; /* first */
    struct block_device *below; /* any, a part too */
};

/* As large as what is below, and like it but for its operations. */
void block_over_init(struct block_over *over, struct block_device *below,
                     const struct block_device_ops *ops);

/* What `request`, which was submitted to the device over it, asks of the one below. */
struct block_request block_over_request(const struct block_request *request,
                                        void (*done)(struct block_request *request));

/* Operations of the device. */
void block_over_attend(struct block_device *over, const atomic_bool *done);
void *block_over_buffer_alloc(struct block_device *over, size_t size);
bool block_over_buffer_free(struct block_device *over, void *buffer, size_t size);

#endif
