/* A block device with its requests counted, and timed from when they are submitted. */
#include <stdatomic.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/over.h>

#include "server.h"

struct counted {
    struct block_over over; /* first: it is what others have; what is below is owned */
    struct all_counts *counts;
};

struct counted_request {
    struct block_request request; /* first */
    struct block_request *above;
    struct counts *counts; /* NULL: of no interest */
    uint32_t sector_size;
    int64_t begun; /* nanoseconds */
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * CLOCK_SECOND + time.tv_nsec;
}

static void add(_Atomic uint64_t *counter, uint64_t value)
{
    atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

static void count(const struct counted_request *counted)
{
    const struct block_request *request = &counted->request;
    uint64_t microseconds = (uint64_t)(now() - counted->begun) / 1000;
    unsigned slot = microseconds ? 64 - (unsigned)__builtin_clzll(microseconds) : 0;
    add(&counted->counts->operations, 1);
    add(&counted->counts->latency[slot < LATENCIES ? slot : LATENCIES - 1], 1);
    if (request->result != 0)
        add(&counted->counts->errors, 1);
    else if (request->operation != BLOCK_FLUSH)
        add(&counted->counts->bytes, (uint64_t)request->count * counted->sector_size);
}

static void done(struct block_request *request)
{
    struct counted_request *counted = (struct counted_request *)request;
    struct block_request *above = counted->above;
    if (counted->counts)
        count(counted);
    above->result = request->result;
    free(counted);
    above->done(above);
}

static struct counts *counts_of(struct all_counts *counts, enum block_operation operation)
{
    switch (operation) {
    case BLOCK_READ:
        return &counts->reads;
    case BLOCK_WRITE:
        return &counts->writes;
    case BLOCK_FLUSH:
        return &counts->flushes;
    case BLOCK_DISCARD:
        break;
    }
    return NULL;
}

static void submit(struct block_device *whole, struct block_request *request)
{
    struct counted *counted = (struct counted *)whole;
    struct counted_request *below = xnew(struct counted_request);
    below->request = block_over_request(request, done);
    below->above = request;
    below->counts = counts_of(counted->counts, request->operation);
    below->sector_size = counted->over.device.sector_size;
    below->begun = now();
    block_submit(counted->over.below, &below->request);
}

static void destroy(struct block_device *device)
{
    struct counted *counted = (struct counted *)device;
    block_device_destroy(counted->over.below);
    free(counted);
}

static const struct block_device_ops counted_ops = {
    .submit = submit,
    .attend = block_over_attend,
    .buffer_alloc = block_over_buffer_alloc,
    .buffer_free = block_over_buffer_free,
    .destroy = destroy,
};

struct block_device *counted_create(struct block_device *device, struct all_counts *counts,
                                    bool read_only)
{
    struct counted *counted = xnew(struct counted);
    block_over_init(&counted->over, device, &counted_ops);
    counted->over.device.read_only = device->read_only || read_only;
    counted->counts = counts;
    return &counted->over.device;
}
