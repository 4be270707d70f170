/*
 * The asynchronous calls of a client: lists and numbers of them, and those that were cancelled.
 */
#include <stdlib.h>

#include <base/alloc.h>

#include "pool.h"

enum {
    SLOTS_FIRST = 64,
    SPARE_MAX = 1024,       /* of these so many are kept, */
    PARAMS_KEPT = 4 * 1024, /* with the memory of parameters that are not larger */
    GENERATION_MAX = INT32_MAX,
};

void call_list_insert(struct call_list *list, struct async_call *before, struct async_call *call)
{
    call->previous = before;
    call->next = before ? before->next : list->first;
    if (call->next)
        call->next->previous = call;
    else
        list->last = call;
    if (before)
        before->next = call;
    else
        list->first = call;
    list->count++;
}

void call_list_remove(struct call_list *list, struct async_call *call)
{
    list->count--;
    if (call->previous)
        call->previous->next = call->next;
    else
        list->first = call->next;
    if (call->next)
        call->next->previous = call->previous;
    else
        list->last = call->previous;
    call->next = call->previous = NULL;
}

static struct call_slot *slot_of(struct cloche_client *client, int64_t number)
{
    return &client->slots[((uint64_t)number & UINT32_MAX) - 1];
}

struct async_call *call_find(struct cloche_client *client, int64_t number)
{
    uint64_t slot = (uint64_t)number & UINT32_MAX;

    if (number <= 0 || slot == 0 || slot > client->slots_count)
        return NULL;
    struct async_call *call = slot_of(client, number)->call;
    return call && call->id == number ? call : NULL;
}

static uint32_t add_slot(struct cloche_client *client)
{
    if (client->slots_count == client->slots_capacity) {
        client->slots_capacity = client->slots_capacity ? 2 * client->slots_capacity : SLOTS_FIRST;
        client->slots = xrealloc(client->slots, client->slots_capacity, sizeof(*client->slots));
    }
    client->slots[client->slots_count++] = (struct call_slot){0};
    return (uint32_t)client->slots_count;
}

/* A slot, and with it a number that no other call had. */
static void take_slot(struct cloche_client *client, struct async_call *call)
{
    uint32_t place = client->spare_slot ? client->spare_slot : add_slot(client);
    struct call_slot *slot = &client->slots[place - 1];

    client->spare_slot = slot->next_spare;
    slot->generation = slot->generation < GENERATION_MAX ? slot->generation + 1 : 1;
    slot->call = call;
    call->id = (int64_t)((uint64_t)slot->generation << 32 | place);
}

static void give_slot_back(struct cloche_client *client, const struct async_call *call)
{
    struct call_slot *slot = slot_of(client, call->id);

    slot->call = NULL;
    slot->next_spare = client->spare_slot;
    client->spare_slot = (uint32_t)((uint64_t)call->id & UINT32_MAX);
}

struct async_call *call_new(struct cloche_client *client)
{
    struct async_call *call = client->spare;

    if (client->calls_used >= client->settings.waiting)
        return NULL;
    if (call) {
        client->spare = call->next;
        client->spare_count--;
    } else {
        call = xnew(struct async_call);
        call->client = client;
    }
    client->calls_used++;
    take_slot(client, call);
    call->state = CALL_HANDED_IN;
    call->next = call->previous = NULL;
    call->cancelled = call->moving = false;
    call->attempts = 0;
    call->avoid = call->turn = call->charged = 0;
    return call;
}

static void destroy(struct async_call *call)
{
    buffer_finish(&call->params);
    free(call->own_name);
    free(call);
}

void call_free(struct async_call *call)
{
    struct cloche_client *client = call->client;

    for (size_t i = 0; i < call->fds_count; i++)
        close_fd(call->fds[i]);
    call->fds_count = 0;
    if (call->params.capacity > PARAMS_KEPT)
        buffer_finish(&call->params);
    client_lock(client);
    give_slot_back(client, call);
    client->calls_used--;
    client->bytes -= call->charged;
    if (client->spare_count < SPARE_MAX) {
        client->spare_count++;
        call->next = client->spare;
        client->spare = call;
        call = NULL;
    }
    client_unlock(client);
    if (call)
        destroy(call);
}

/* ---- cancelled ---- */

void call_queue_cancel(struct cloche_client *client, int64_t number)
{
    if (client->cancels_count == client->cancels_capacity) {
        client->cancels_capacity =
            client->cancels_capacity ? 2 * client->cancels_capacity : SLOTS_FIRST;
        client->cancels =
            xrealloc(client->cancels, client->cancels_capacity, sizeof(*client->cancels));
    }
    client->cancels[client->cancels_count++] = number;
    client_wake(client);
}

struct async_call *call_next_cancelled(struct cloche_client *client, size_t *at)
{
    struct async_call *found = NULL;

    client_lock(client);
    while (!found && *at < client->cancels_count) {
        struct async_call *call = call_find(client, client->cancels[*at]);
        if (call && call->state == CALL_HANDED_IN) {
            (*at)++;
            continue;
        }
        client->cancels[*at] = client->cancels[--client->cancels_count];
        found = call;
    }
    client_unlock(client);
    return found;
}

void calls_finish(struct cloche_client *client)
{
    while (client->spare) {
        struct async_call *call = client->spare;
        client->spare = call->next;
        destroy(call);
    }
    free(client->slots);
    free(client->cancels);
}
