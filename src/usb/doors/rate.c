#include "rate.h"

#include <base/clock.h>

/* A single request is never held up longer than that. */
#define LONGEST (INT64_C(3600) * CLOCK_SECOND)

void rate_init(struct rate *rate, uint64_t per_second)
{
    *rate = (struct rate){.per_second = per_second};
    pthread_mutex_init(&rate->lock, NULL);
}

void rate_finish(struct rate *rate)
{
    pthread_mutex_destroy(&rate->lock);
}

static int64_t cost(const struct rate *rate, uint64_t amount)
{
    __extension__ typedef unsigned __int128 wide;
    wide nanoseconds = (wide)amount * (uint64_t)CLOCK_SECOND / rate->per_second;
    return nanoseconds < (uint64_t)LONGEST ? (int64_t)nanoseconds : LONGEST;
}

int64_t rate_take(struct rate *rate, uint64_t amount, int64_t now)
{
    if (rate->per_second == 0)
        return 0;
    pthread_mutex_lock(&rate->lock);
    if (rate->free_at < now - RATE_BURST_NS)
        rate->free_at = now - RATE_BURST_NS;
    rate->free_at += cost(rate, amount);
    int64_t wait = rate->free_at > now ? rate->free_at - now : 0;
    pthread_mutex_unlock(&rate->lock);
    return wait;
}
