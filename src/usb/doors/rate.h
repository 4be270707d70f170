/*
 * A limit of so much a second. Who takes is told how long to wait; whoever comes next waits longer.
 * After a pause RATE_BURST_NS worth of it may be taken at once.
 */
#ifndef DOORS_RATE_H
#define DOORS_RATE_H

#include <pthread.h>
#include <stdint.h>

#define RATE_BURST_NS INT64_C(100000000)

struct rate {
    uint64_t per_second; /* 0: no limit */
    int64_t free_at;     /* nanoseconds: what was taken is paid by then */
    pthread_mutex_t lock;
};

void rate_init(struct rate *rate, uint64_t per_second);
void rate_finish(struct rate *rate);

/* now: nanoseconds of a clock that never goes back. Returns how long to wait, nanoseconds. Any
 * thread. */
int64_t rate_take(struct rate *rate, uint64_t amount, int64_t now);

#endif
