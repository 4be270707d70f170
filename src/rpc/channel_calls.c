#include <stdlib.h>

#include <base/alloc.h>

#include "channel_internal.h"

enum { TABLE_FIRST = 64 };

static struct pending **bucket_of(struct rpc_channel *channel, int64_t number)
{
    return &channel->table[(size_t)number & channel->mask];
}

static void grow_table(struct rpc_channel *channel)
{
    struct pending **old = channel->table;
    size_t old_size = old ? channel->mask + 1 : 0, size = old ? old_size * 2 : TABLE_FIRST;

    channel->table = xnew_array(struct pending *, size);
    channel->mask = size - 1;
    for (size_t i = 0; i < old_size; i++) {
        while (old[i]) {
            struct pending *pending = old[i];
            old[i] = pending->next;
            pending->next = *bucket_of(channel, pending->number);
            *bucket_of(channel, pending->number) = pending;
        }
    }
    free(old);
}

struct pending *channel_add_pending(struct rpc_channel *channel)
{
    struct pending *pending = channel->spare;

    if (!channel->table || channel->in_flight > channel->mask)
        grow_table(channel);
    if (pending)
        channel->spare = pending->next;
    else
        pending = xnew(struct pending);
    pending->number = channel->last_number;
    pending->next = *bucket_of(channel, pending->number);
    *bucket_of(channel, pending->number) = pending;
    channel->in_flight++;
    return pending;
}

struct pending *channel_find_pending(struct rpc_channel *channel, int64_t number)
{
    if (!channel->table)
        return NULL;
    struct pending *pending = *bucket_of(channel, number);
    while (pending && pending->number != number)
        pending = pending->next;
    return pending;
}

struct pending *channel_take_pending(struct rpc_channel *channel, int64_t number)
{
    if (!channel->table)
        return NULL;
    struct pending **at = bucket_of(channel, number);
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    struct pending *pending = *at;
    if (!pending)
        return NULL;
    *at = pending->next;
    channel->in_flight--;
    rpc_loop_clear_timer(channel->loop, &pending->timer);
    return pending;
}

struct pending *channel_any_pending(struct rpc_channel *channel)
{
    for (size_t i = 0; channel->in_flight; i++) {
        if (channel->table[i])
            return channel->table[i];
    }
    return NULL;
}
