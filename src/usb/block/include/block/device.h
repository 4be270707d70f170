/*
 * A block device: sectors that are read and written by requests. What implements it: a logical unit
 * of a stick (usb/disk.h), a part of another block device (block/partitions.h), a file
 * (block/file.h).
 *
 * Requests may be submitted from any thread; they are done in any order, by the thread of their
 * device or by one that waits for a request of its own meanwhile (attend). Neither may wait for
 * another request from within. Order comes from waiting: a flush that is submitted
 * after a write was done makes that write durable.
 */
#ifndef BLOCK_DEVICE_H
#define BLOCK_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum block_operation {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,   /* what was done before is durable; sector, count and data are not looked at */
    BLOCK_DISCARD, /* the content is not needed any more, and is anything afterwards */
};

struct block_request {
    enum block_operation operation;
    uint64_t sector; /* of block_device.sector_size bytes */
    uint32_t count;  /* sectors, at least 1 but for BLOCK_FLUSH */
    void *data;      /* count sectors; borrowed until done */

    /* Once, after result was set, on the device's thread or on one that attends to it, never on two
     * at a time; the request may be submitted again or freed from within. */
    void (*done)(struct block_request *request);
    void *owner;   /* the submitter's */
    bool attended; /* block_device_ops.attend is called as soon as it is submitted */

    /* 0, or: -EIO (the medium), -ENODEV (the device is gone; so for all later ones), -EROFS,
     * -ENOMEDIUM, -ETIMEDOUT (given up after retries), -EINVAL (beyond the end), -EOPNOTSUPP
     * (BLOCK_DISCARD where there is none), -ECANCELED. What a failed write left is not known. */
    int result;

    /* Of whoever does the request, from submit to done. */
    uint64_t at; /* the sector on the whole device, where this one is a part of it */
    struct block_request *next;
};

struct block_device;

struct block_device_ops {
    /* Takes the request, which block_submit() has checked; goes by request->at. Never blocks; calls
     * done from within only where a read need not reach the device (block/stream.h). */
    void (*submit)(struct block_device *whole, struct block_request *request);

    /* Whoever has submitted an attended request and has nothing to do until then: does the device's
     * work on this thread instead of its own, which spares two changes of threads. Comes back when
     * *done is set, by the request's callback, or when the device's thread does the work itself.
     * Not on the device's thread. NULL as a member: the device's thread does all. */
    void (*attend)(struct block_device *whole, const atomic_bool *done);

    /* Memory that the device moves without a copy: page-aligned, or NULL when there is none left
     * (any other memory works, too, more slowly). Any thread. NULL as a member: there is none. */
    void *(*buffer_alloc)(struct block_device *device, size_t size);
    /* False: it is none of the device's. */
    bool (*buffer_free)(struct block_device *device, void *buffer, size_t size);

    /* No request may be under way. */
    void (*destroy)(struct block_device *device);
};

/* What it is does not change while it lives: a medium that was changed is another device, whose
 * predecessor answers -ENOMEDIUM. */
struct block_device {
    const struct block_device_ops *ops;
    struct block_device *whole; /* the device of which this is a part; itself where it is none */
    uint64_t first;             /* the part's first sector on it */
    uint32_t sector_size;       /* bytes: 512, 1024, 2048 or 4096 */
    uint64_t sectors;
    uint32_t best_size; /* bytes of a request that is moved best, a multiple of sector_size */
    bool read_only;
    bool flushes; /* BLOCK_FLUSH reaches the medium; without it, it is done at once */
    bool discards;
    const atomic_int *lost; /* not 0 once all requests are answered with that; NULL: not known */
};

/* Any thread. What the device cannot do is done at once, by the caller's thread: -EINVAL beyond the
 * end, -EROFS, -EOPNOTSUPP, and BLOCK_FLUSH (0) where the device has nothing to flush; so are reads
 * of what a stream has in memory. */
void block_submit(struct block_device *device, struct block_request *request);

/* Submits and waits. Not on the device's thread. err names operation and sector. */
int block_read(struct block_device *device, uint64_t sector, uint32_t count, void *data,
               struct error *err);
int block_write(struct block_device *device, uint64_t sector, uint32_t count, const void *data,
                struct error *err);
int block_discard(struct block_device *device, uint64_t sector, uint32_t count, struct error *err);
int block_flush(struct block_device *device, struct error *err);

/* Whether [sector, sector + count) is within the device; no overflow. */
bool block_within(const struct block_device *device, uint64_t sector, uint64_t count);

/* Memory for requests: the device's own where it has some, else any that is page-aligned. Never
 * NULL. */
void *block_buffer_alloc(struct block_device *device, size_t size);
void block_buffer_free(struct block_device *device, void *buffer, size_t size);

/* count sectors from first on as a device of its own, which lives no longer than the device.
 * -EINVAL: they are not within it. */
int block_part(struct block_device *device, uint64_t first, uint64_t count,
               struct block_device **ret_part, struct error *err);

void block_device_destroy(struct block_device *device); /* NULL is fine; a part: only itself */

#endif
