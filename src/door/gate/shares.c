#include <poll.h>
#include <unistd.h>

#include <base/log.h>

#include "gate.h"

enum {
    LINES_PER_SECOND = 50, /* about clients, in the log */
    LINES_AT_ONCE = 100,
    SOURCE_LINES_PER_SECOND = 5,
    SOURCE_LINES_AT_ONCE = 20,
};

bool rate_take(struct rate *rate, uint64_t now, uint32_t per_second, uint32_t at_once)
{
    uint64_t price = NS_PER_SECOND / per_second;

    if (rate->paid < now)
        rate->paid = now;
    if (rate->paid - now > (at_once - 1) * price)
        return false;
    rate->paid += price;
    return true;
}

/* ---- memory ---- */

static struct source *account_of(const struct peer *peer)
{
    return peer->source->site ? peer->source->site : peer->source;
}

static void count(struct peer *peer, size_t bytes)
{
    account_of(peer)->bytes += bytes - peer->counted;
    peer->gate->bytes += bytes - peer->counted;
    peer->counted = bytes;
}

/* What they have, not what is in it: that is what the machine gives. */
static size_t held_by(const struct peer *peer)
{
    return peer->flow.in.capacity + peer->flow.out.capacity + peer->from_inside.capacity;
}

static bool holds_more(const struct peer *a, const struct peer *b)
{
    size_t of_a = account_of(a)->bytes, of_b = account_of(b)->bytes;

    return of_a > of_b || (of_a == of_b && a->counted > b->counted);
}

static struct peer *find_largest(const struct gate *gate)
{
    struct peer *largest = NULL;

    for (struct peer *peer = gate->peers; peer; peer = peer->next) {
        if ((peer->state == PEER_RELAY || peer->state == PEER_HTTP) &&
            (!largest || holds_more(peer, largest)))
            largest = peer;
    }
    return largest;
}

void share_memory(struct peer *peer)
{
    struct gate *gate = peer->gate;
    struct peer *largest;

    count(peer, held_by(peer));
    while (gate->bytes > DOOR_BUDGET && (largest = find_largest(gate))) {
        if (gate_may_log(gate, largest->source))
            log_warning("%s: too much waits in all connections together, and most in this one",
                        largest->address);
        peer_overloaded(largest);
        count(largest, held_by(largest));
    }
}

void share_memory_back(struct peer *peer)
{
    count(peer, 0);
}

/* ---- the log ---- */

/* A log that nobody reads must not hold the door up. */
static bool log_takes_more(void)
{
    struct pollfd log = {.fd = STDERR_FILENO, .events = POLLOUT};

    return poll(&log, 1, 0) <= 0 ? false : (log.revents & POLLOUT) != 0;
}

bool gate_may_log(struct gate *gate, struct source *source)
{
    uint64_t now = rpc_loop_now(gate->loop);

    if ((source &&
         !rate_take(&source->log_rate, now, SOURCE_LINES_PER_SECOND, SOURCE_LINES_AT_ONCE)) ||
        !rate_take(&gate->log_rate, now, LINES_PER_SECOND, LINES_AT_ONCE) || !log_takes_more()) {
        gate->unlogged++;
        return false;
    }
    if (gate->unlogged)
        log_warning("%ju lines about clients were left out", (uintmax_t)gate->unlogged);
    gate->unlogged = 0;
    return true;
}
