#include "arrivals.h"

#include <stdlib.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>

enum { LOOK_NS = 500000 }; /* a number that comes is not told, and is a matter of microseconds */

void arrivals_init(struct arrivals *all, unsigned count)
{
    *all = (struct arrivals){.items = xnew_array(struct arrival, count), .count = count};
    for (unsigned i = 0; i < count; i++)
        sem_init(&all->items[i].ended, 0, 0);
}

void arrivals_finish(struct arrivals *all)
{
    for (unsigned i = 0; i < all->count; i++)
        sem_destroy(&all->items[i].ended);
    free(all->items);
    *all = (struct arrivals){0};
}

void arrivals_look(struct arrivals *all, uint64_t number)
{
    if (number < all->last)
        atomic_store(&all->disordered, true);
    all->last = number;
}

bool arrivals_are_ordered(const struct arrivals *all)
{
    return !atomic_load(&all->disordered);
}

void arrival_begins(struct arrival *own, _Atomic uint64_t *number)
{
    atomic_store(number, 0);
    atomic_store(&own->number, number);
    atomic_store(&own->under_way, true);
}

void arrival_ends(struct arrivals *all, struct arrival *own)
{
    if (!atomic_exchange(&own->under_way, false))
        return;
    for (unsigned i = 0; i < all->count; i++)
        if (atomic_load(&all->items[i].waits))
            sem_post(&all->items[i].ended);
}

/* A number of which bytes are missing is smaller than the whole one: what is larger stays so. */
static bool may_be_before(const struct arrival *other, uint64_t number)
{
    return atomic_load(&other->under_way) && atomic_load(atomic_load(&other->number)) < number;
}

static bool must_wait(const struct arrivals *all, const struct arrival *own)
{
    if (!atomic_load(&own->under_way))
        return false;
    uint64_t number = atomic_load(atomic_load(&own->number));
    for (unsigned i = 0; i < all->count; i++)
        if (&all->items[i] != own && may_be_before(&all->items[i], number))
            return true;
    return false;
}

static void sleep_a_while(struct arrival *own)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_NS;
    if (until.tv_nsec >= CLOCK_SECOND) {
        until.tv_nsec -= CLOCK_SECOND;
        until.tv_sec++;
    }
    sem_clockwait(&own->ended, CLOCK_MONOTONIC, &until);
}

void arrivals_wait(struct arrivals *all, struct arrival *own)
{
    if (!must_wait(all, own))
        return;
    atomic_store(&own->waits, true);
    while (must_wait(all, own))
        sleep_a_while(own);
    atomic_store(&own->waits, false);
    while (sem_trywait(&own->ended) == 0)
        ;
}
