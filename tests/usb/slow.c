#include "slow.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <base/alloc.h>
#include <block/queue.h>

struct slow {
    struct block_device device; /* first */
    struct block_device *below;
    unsigned microseconds;
    struct block_queue queue;
    atomic_bool ends;
    pthread_t thread;
};

/* The same request goes on to the device below, by a copy. */
static int carry_out(struct slow *slow, const struct block_request *request)
{
    switch (request->operation) {
    case BLOCK_READ:
        return block_read(slow->below, request->sector, request->count, request->data, NULL);
    case BLOCK_WRITE:
        return block_write(slow->below, request->sector, request->count, request->data, NULL);
    case BLOCK_FLUSH:
        return block_flush(slow->below, NULL);
    default:
        return block_discard(slow->below, request->sector, request->count, NULL);
    }
}

static void *run(void *data)
{
    struct slow *slow = data;
    while (!slow->ends) {
        block_queue_wait(&slow->queue);
        struct block_request *request = block_queue_take(&slow->queue), *next;
        for (; request; request = next) {
            next = request->next;
            usleep(slow->microseconds);
            request->result = carry_out(slow, request);
            request->done(request);
        }
    }
    return NULL;
}

static void submit(struct block_device *device, struct block_request *request)
{
    block_queue_put(&((struct slow *)device)->queue, request);
}

static void destroy(struct block_device *device)
{
    struct slow *slow = (struct slow *)device;
    slow->ends = true;
    block_queue_wake(&slow->queue);
    pthread_join(slow->thread, NULL);
    block_queue_finish(&slow->queue);
    block_device_destroy(slow->below);
    free(slow);
}

static const struct block_device_ops ops = {.submit = submit, .destroy = destroy};

struct block_device *slow_create(struct block_device *below, unsigned microseconds)
{
    struct slow *slow = xnew(struct slow);
    slow->device = *below;
    slow->device.ops = &ops;
    slow->device.whole = &slow->device;
    slow->below = below;
    slow->microseconds = microseconds;
    if (block_queue_init(&slow->queue, NULL) != 0 ||
        pthread_create(&slow->thread, NULL, run, slow) != 0)
        abort();
    return &slow->device;
}
