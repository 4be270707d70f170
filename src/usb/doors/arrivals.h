/*
 * The order in which the kernel gave requests away, where several threads read them at the same
 * time: who has a large write copied by the kernel need not hold up who reads the next one, but the
 * writes must take their places in order.
 *
 * A request's number is the kernel's (fuse_in_header.unique), which grows with each request that is
 * not answered before it, and is what the kernel copies first. So a thread that has read request N
 * waits for those threads whose number may still become a smaller one, or is one.
 *
 * That numbers grow is so in Linux 6.1 to 6.18 and is promised by nobody (a counter for each
 * processor was proposed in 2025): where they do not, several threads are not to read at the same
 * time.
 */
#ifndef DOORS_ARRIVALS_H
#define DOORS_ARRIVALS_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Of a thread. */
struct arrival {
    atomic_bool under_way, waits;
    _Atomic(const _Atomic uint64_t *) number;
    sem_t ended; /* one that it waited for */
};

struct arrivals {
    struct arrival *items; /* owned */
    unsigned count;
    uint64_t last; /* that was read by who kept others from reading */
    atomic_bool disordered;
};

void arrivals_init(struct arrivals *all, unsigned count);
void arrivals_finish(struct arrivals *all);

/* The number of a request that was waiting in the kernel's queue (not of a FORGET, which gets it
 * when it is read), by who keeps others from reading. */
void arrivals_look(struct arrivals *all, uint64_t number);
/* False: a smaller number has come after a larger one, once. */
bool arrivals_are_ordered(const struct arrivals *all);

/* Before a request is read to where its number will be: within memory that is there as long as
 * `all`. 0 until it has come; some of its bytes may be there before the others. */
void arrival_begins(struct arrival *own, _Atomic uint64_t *number);

/* Nothing was read, or it has taken its place. Never waits. Any number of times. */
void arrival_ends(struct arrivals *all, struct arrival *own);

/* Waits until every request before this thread's, which was read, has ended; not where this
 * thread's has itself. */
void arrivals_wait(struct arrivals *all, struct arrival *own);

#endif
