#include "bounce.h"

#include <block/waiting.h>

void bounce_init(struct bounce *bounce, struct block_device *device)
{
    bounce->device = device;
    pthread_mutex_init(&bounce->lock, NULL);
    pthread_cond_init(&bounce->given, NULL);
}

static void let_go(struct bounce *bounce)
{
    for (size_t i = 0; i < BOUNCE_BUFFERS; i++) {
        struct bounce_buffer *buffer = &bounce->buffers[i];
        if (!buffer->data || buffer->busy)
            continue;
        block_buffer_free(bounce->device, buffer->data, bounce->device->best_size);
        buffer->data = NULL;
    }
}

void bounce_finish(struct bounce *bounce)
{
    let_go(bounce);
    pthread_cond_destroy(&bounce->given);
    pthread_mutex_destroy(&bounce->lock);
}

/* The lock is held. */
static bool is_within(const struct bounce *bounce, const uint8_t *data)
{
    uintptr_t at = (uintptr_t)data;
    for (size_t i = 0; i < BOUNCE_BUFFERS; i++) {
        uintptr_t start = (uintptr_t)bounce->buffers[i].data;
        if (start && at >= start && at - start < bounce->device->best_size)
            return true;
    }
    return false;
}

/* The lock is held. One that is free, best with memory. */
static struct bounce_buffer *find(struct bounce *bounce)
{
    struct bounce_buffer *best = NULL;
    for (size_t i = 0; i < BOUNCE_BUFFERS; i++) {
        struct bounce_buffer *buffer = &bounce->buffers[i];
        if (!buffer->busy && (!best || (!best->data && buffer->data)))
            best = buffer;
    }
    return best;
}

/* The lock is held. Not any other memory, which would be copied twice. */
static bool has_memory(struct bounce *bounce, struct bounce_buffer *buffer)
{
    struct block_device *whole = bounce->device->whole;
    if (!buffer->data && !bounce->none && whole->ops->buffer_alloc) {
        buffer->data = whole->ops->buffer_alloc(whole, bounce->device->best_size);
        bounce->none = !buffer->data;
    }
    return buffer->data;
}

/* The lock is held. NULL: all are taken, or there is no memory; *ret_comes: one will come back. */
static uint8_t *take(struct bounce *bounce, bool lent, bool *ret_comes)
{
    struct bounce_buffer *buffer = find(bounce);
    *ret_comes = false;
    if (buffer && has_memory(bounce, buffer)) {
        buffer->busy = bounce->used = true;
        buffer->lent = lent;
        return buffer->data;
    }
    for (size_t i = 0; i < BOUNCE_BUFFERS; i++)
        *ret_comes |= bounce->buffers[i].busy && !bounce->buffers[i].lent;
    return NULL;
}

uint8_t *bounce_take(struct bounce *bounce, const uint8_t *data)
{
    uint8_t *taken = NULL;
    bool comes = false;
    block_lock(&bounce->lock);
    if (!is_within(bounce, data))
        taken = take(bounce, false, &comes);
    while (!taken && comes) {
        block_will_wait();
        pthread_cond_wait(&bounce->given, &bounce->lock);
        taken = take(bounce, false, &comes);
    }
    pthread_mutex_unlock(&bounce->lock);
    return taken;
}

uint8_t *bounce_lend(struct bounce *bounce)
{
    unsigned lent = 0;
    bool comes;
    block_lock(&bounce->lock);
    for (size_t i = 0; i < BOUNCE_BUFFERS; i++)
        lent += bounce->buffers[i].busy && bounce->buffers[i].lent;
    uint8_t *taken = lent < BOUNCE_LENT_MOST ? take(bounce, true, &comes) : NULL;
    pthread_mutex_unlock(&bounce->lock);
    return taken;
}

bool bounce_give(struct bounce *bounce, const uint8_t *buffer)
{
    bool found = false;
    pthread_mutex_lock(&bounce->lock);
    for (size_t i = 0; buffer && i < BOUNCE_BUFFERS; i++)
        if (bounce->buffers[i].data == buffer) {
            bounce->buffers[i].busy = false;
            found = true;
            pthread_cond_broadcast(&bounce->given);
        }
    pthread_mutex_unlock(&bounce->lock);
    return found;
}

void bounce_rest(struct bounce *bounce)
{
    pthread_mutex_lock(&bounce->lock);
    if (!bounce->used)
        let_go(bounce);
    bounce->used = bounce->none = false;
    pthread_cond_broadcast(&bounce->given);
    pthread_mutex_unlock(&bounce->lock);
}
