#include "nodes.h"

#include <stdlib.h>

#include <base/alloc.h>

enum { ROOM_FIRST = 64 };
#define COUNTED_FROM (UINT64_C(1) << 63) /* no place is so large */

void nodes_init(struct nodes *nodes)
{
    *nodes = (struct nodes){.room = ROOM_FIRST, .next_number = COUNTED_FROM};
    nodes->by_number = xnew_array(struct node *, ROOM_FIRST);
    nodes->by_place = xnew_array(struct node *, ROOM_FIRST);
    pthread_mutex_init(&nodes->lock, NULL);
}

void nodes_finish(struct nodes *nodes)
{
    free(nodes->by_number);
    free(nodes->by_place);
    pthread_mutex_destroy(&nodes->lock);
}

static size_t slot(const struct nodes *nodes, uint64_t key)
{
    return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (nodes->room - 1);
}

/* What was removed is nowhere: nobody looks for it there. */
static void link_place(struct nodes *nodes, struct node *node)
{
    if (node->place == NODE_NOWHERE)
        return;
    struct node **at = &nodes->by_place[slot(nodes, node->place)];
    node->next_place = *at;
    *at = node;
}

static void link_number(struct nodes *nodes, struct node *node)
{
    struct node **at = &nodes->by_number[slot(nodes, node->number)];
    node->next_number = *at;
    *at = node;
}

static void unlink_place(struct nodes *nodes, struct node *node)
{
    if (node->place == NODE_NOWHERE)
        return;
    struct node **at = &nodes->by_place[slot(nodes, node->place)];
    while (*at != node)
        at = &(*at)->next_place;
    *at = node->next_place;
}

static void unlink_number(struct nodes *nodes, struct node *node)
{
    struct node **at = &nodes->by_number[slot(nodes, node->number)];
    while (*at != node)
        at = &(*at)->next_number;
    *at = node->next_number;
}

static void grow(struct nodes *nodes)
{
    struct node **old = nodes->by_number;
    size_t room = nodes->room;
    nodes->room *= 2;
    nodes->by_number = xnew_array(struct node *, nodes->room);
    free(nodes->by_place);
    nodes->by_place = xnew_array(struct node *, nodes->room);
    for (size_t i = 0; i < room; i++)
        for (struct node *node = old[i], *next; node; node = next) {
            next = node->next_number;
            link_number(nodes, node);
            link_place(nodes, node);
        }
    free(old);
}

static struct node *at_place(struct nodes *nodes, uint64_t place)
{
    struct node *node = nodes->by_place[slot(nodes, place)];
    while (node && node->place != place)
        node = node->next_place;
    return node;
}

static bool is_taken(const struct nodes *nodes, uint64_t number)
{
    const struct node *node = nodes->by_number[slot(nodes, number)];
    while (node && node->number != number)
        node = node->next_number;
    return node != NULL;
}

/* Of what is at a place and has no node yet. */
static uint64_t free_number(struct nodes *nodes, uint64_t place)
{
    return is_taken(nodes, place) ? nodes->next_number++ : place;
}

struct node *nodes_find(struct nodes *nodes, uint64_t place)
{
    pthread_mutex_lock(&nodes->lock);
    struct node *node = at_place(nodes, place);
    if (node)
        node->holds++;
    pthread_mutex_unlock(&nodes->lock);
    return node;
}

struct node *nodes_add(struct nodes *nodes, struct node *node, uint64_t place)
{
    pthread_mutex_lock(&nodes->lock);
    struct node *other = at_place(nodes, place);
    if (other) {
        node = other;
    } else {
        if (nodes->count++ >= nodes->room)
            grow(nodes);
        node->place = place;
        node->number = free_number(nodes, place);
        link_number(nodes, node);
        link_place(nodes, node);
    }
    node->holds++;
    pthread_mutex_unlock(&nodes->lock);
    return node;
}

uint64_t nodes_number(struct nodes *nodes, uint64_t place)
{
    pthread_mutex_lock(&nodes->lock);
    const struct node *node = at_place(nodes, place);
    uint64_t number = node ? node->number : free_number(nodes, place);
    pthread_mutex_unlock(&nodes->lock);
    return number;
}

void nodes_move(struct nodes *nodes, struct node *node, uint64_t place)
{
    pthread_mutex_lock(&nodes->lock);
    unlink_place(nodes, node);
    node->place = place;
    link_place(nodes, node);
    pthread_mutex_unlock(&nodes->lock);
}

void nodes_hold(struct nodes *nodes, struct node *node)
{
    pthread_mutex_lock(&nodes->lock);
    node->holds++;
    pthread_mutex_unlock(&nodes->lock);
}

static void take_out(struct nodes *nodes, struct node *node)
{
    unlink_place(nodes, node);
    unlink_number(nodes, node);
    nodes->count--;
}

bool nodes_drop(struct nodes *nodes, struct node *node, uint64_t times)
{
    pthread_mutex_lock(&nodes->lock);
    node->holds = node->holds > times ? node->holds - times : 0;
    bool last = node->holds == 0;
    if (last)
        take_out(nodes, node);
    pthread_mutex_unlock(&nodes->lock);
    return last;
}

struct node *nodes_any(struct nodes *nodes)
{
    struct node *node = NULL;
    pthread_mutex_lock(&nodes->lock);
    for (size_t i = 0; !node && i < nodes->room; i++)
        node = nodes->by_number[i];
    if (node)
        take_out(nodes, node);
    pthread_mutex_unlock(&nodes->lock);
    return node;
}

void nodes_each(struct nodes *nodes, void (*look)(struct node *node, void *data), void *data)
{
    pthread_mutex_lock(&nodes->lock);
    for (size_t i = 0; i < nodes->room; i++)
        for (struct node *node = nodes->by_number[i]; node; node = node->next_number)
            look(node, data);
    pthread_mutex_unlock(&nodes->lock);
}
