/*
 * Which endpoint a call goes to, and how long a broken one is left alone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "pool.h"

enum { DOUBLINGS_MAX = 16 };

void endpoint_init(struct endpoint *endpoint, struct cloche_client *client, size_t index)
{
    endpoint->client = client;
    endpoint->index = index;
    endpoint->state = CLOCHE_ENDPOINT_IN;
    probe_init(endpoint);
}

/* ---- choosing ---- */

static bool has_room(const struct endpoint *endpoint, enum endpoint_want want)
{
    switch (want) {
    case WANT_LANE:
    case WANT_LONG_LANE:
        return !endpoint->full[want == WANT_LONG_LANE];
    case WANT_IDLE:
        return endpoint->idle != NULL;
    default:
        return endpoint->idle || endpoint->connections < endpoint->client->settings.connections;
    }
}

/* The calls it has, and some more for what it did not answer just now. */
static uint64_t weight_of(const struct endpoint *endpoint)
{
    if (!endpoint->silent || monotonic_now() - endpoint->silent_at > SILENT_MS * NS_PER_MS)
        return endpoint->client->settings.balance == CLOCHE_CLIENT_RANDOM ? 0 : endpoint->busy;
    uint64_t silence = (uint64_t)endpoint->silent * SILENT_WEIGHT;
    return endpoint->client->settings.balance == CLOCHE_CLIENT_RANDOM ? silence
                                                                      : endpoint->busy + silence;
}

/* Of equals any, each as likely as the others. */
struct endpoint *endpoint_choose(struct cloche_client *client, enum endpoint_want want,
                                 uint64_t avoid, bool *ret_none)
{
    struct endpoint *chosen = NULL;
    uint64_t equals = 0, least = 0;

    *ret_none = true;
    for (size_t i = 0; i < client->endpoints_count; i++) {
        struct endpoint *endpoint = &client->endpoints[i];
        if (endpoint->state != CLOCHE_ENDPOINT_IN || (avoid & endpoint_bit(endpoint)))
            continue;
        *ret_none = false;
        if (!has_room(endpoint, want))
            continue;
        uint64_t weight = weight_of(endpoint);
        if (!chosen || weight < least) {
            chosen = endpoint;
            least = weight;
            equals = 1;
        } else if (weight == least && client_random(client) % ++equals == 0) {
            chosen = endpoint;
        }
    }
    return chosen;
}

uint64_t endpoint_bit(const struct endpoint *endpoint)
{
    return UINT64_C(1) << endpoint->index;
}

bool endpoints_all_out(const struct cloche_client *client)
{
    for (size_t i = 0; i < client->endpoints_count; i++) {
        const struct endpoint *endpoint = &client->endpoints[i];
        if (endpoint->state != CLOCHE_ENDPOINT_OUT || !endpoint->unreached)
            return false;
    }
    return true;
}

bool endpoint_may_ask_another(struct cloche_client *client, struct endpoint *refused_by, int fault,
                              uint64_t *avoid)
{
    bool another = false;

    if (!fault_is_refusal(fault))
        return false;
    *avoid |= endpoint_bit(refused_by);
    client_lock(client);
    for (size_t i = 0; i < client->endpoints_count; i++) {
        const struct endpoint *endpoint = &client->endpoints[i];
        another = another ||
                  (endpoint->state == CLOCHE_ENDPOINT_IN && !(*avoid & endpoint_bit(endpoint)));
    }
    client_unlock(client);
    return another;
}

void endpoint_unreserve(struct endpoint *endpoint)
{
    endpoint->connections--;
    if (endpoint->client->waiters)
        pthread_cond_signal(&endpoint->client->changed);
}

/* ---- out, and in again ---- */

/* Doubled each time, and not the same for all clients: else they would all come back at once. */
static uint64_t back_off(struct endpoint *endpoint)
{
    const struct cloche_client_settings *settings = &endpoint->client->settings;
    unsigned doublings = endpoint->failures ? endpoint->failures - 1 : 0;
    uint64_t ms = settings->probe_first_ms
                  << (doublings < DOUBLINGS_MAX ? doublings : DOUBLINGS_MAX);

    if (ms > settings->probe_most_ms)
        ms = settings->probe_most_ms;
    uint64_t ns = ms * NS_PER_MS;
    return ns - client_random(endpoint->client) % (ns / 2 + 1);
}

static void drop_idle(struct endpoint *endpoint)
{
    while (endpoint->idle) {
        struct cloche_connection *link = endpoint->idle;
        endpoint->idle = link->next;
        endpoint->connections--;
        link_close(link);
    }
}

void endpoint_forget_idle(struct endpoint *endpoint)
{
    client_lock(endpoint->client);
    drop_idle(endpoint);
    if (endpoint->client->waiters)
        pthread_cond_broadcast(&endpoint->client->changed);
    client_unlock(endpoint->client);
}

void endpoint_finish(struct endpoint *endpoint)
{
    drop_idle(endpoint);
    address_finish(&endpoint->address);
    free(endpoint->name);
}

/* Under the lock. */
static void take_out(struct endpoint *endpoint, bool suspect, const char *why)
{
    struct cloche_client *client = endpoint->client;

    endpoint->breaks += endpoint->state == CLOCHE_ENDPOINT_IN;
    endpoint->state = CLOCHE_ENDPOINT_OUT;
    endpoint->failures += endpoint->failures < UINT32_MAX;
    endpoint->suspect = suspect;
    endpoint->silent = endpoint->garbled = 0;
    endpoint->doubted = false;
    endpoint->probe_due = monotonic_now() + back_off(endpoint);
    endpoint->abandon = suspect;
    snprintf(endpoint->why, sizeof(endpoint->why), "%s", why);
    drop_idle(endpoint);
    client_wake(client);
    pthread_cond_broadcast(&client->changed);
}

void endpoint_break(struct endpoint *endpoint, bool suspect, const char *why)
{
    client_lock(endpoint->client);
    if (endpoint->state != CLOCHE_ENDPOINT_OUT)
        take_out(endpoint, suspect, why);
    client_unlock(endpoint->client);
}

/* That it was just taken out by somebody else, too, leaves the time of the next look as it is. */
void endpoint_unreached(struct endpoint *endpoint, const char *why)
{
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    bool first = !endpoint->unreached;
    endpoint->unreached = true;
    if (endpoint->state != CLOCHE_ENDPOINT_OUT) {
        take_out(endpoint, false, why);
    } else if (first) { /* those that fail fast waited for this */
        client_wake(client);
        pthread_cond_broadcast(&client->changed);
    }
    client_unlock(client);
}

/* Under the lock: a look that told nothing is over. */
static void end_look(struct endpoint *endpoint, uint64_t wait)
{
    struct cloche_client *client = endpoint->client;

    if (endpoint->state != CLOCHE_ENDPOINT_PROBED)
        return;
    endpoint->state = CLOCHE_ENDPOINT_OUT;
    endpoint->probe_due = monotonic_now() + wait;
    client_wake(client);
    pthread_cond_broadcast(&client->changed);
}

void endpoint_look_later(struct endpoint *endpoint)
{
    client_lock(endpoint->client);
    end_look(endpoint, back_off(endpoint));
    client_unlock(endpoint->client);
}

void endpoint_put_off(struct endpoint *endpoint)
{
    client_lock(endpoint->client);
    end_look(endpoint, EXHAUSTED_MS * NS_PER_MS);
    client_unlock(endpoint->client);
}

void endpoint_garbled(struct endpoint *endpoint, const char *why)
{
    client_lock(endpoint->client);
    bool out = ++endpoint->garbled >= GARBLED_MAX && endpoint->state == CLOCHE_ENDPOINT_IN;
    if (out)
        take_out(endpoint, false, why);
    client_unlock(endpoint->client);
}

/* A sign of life is not yet an answer: one that dies with each call is left alone for longer and
 * longer. One that was only slow has proved that it is not broken. */
void endpoint_revive(struct endpoint *endpoint)
{
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    endpoint->state = CLOCHE_ENDPOINT_IN;
    endpoint->unreached = endpoint->doubted = false;
    endpoint->silent = 0;
    if (endpoint->suspect)
        endpoint->failures = 0;
    if (client->calls_used || client->subscriptions)
        client_wake(client); /* some may wait for it */
    pthread_cond_broadcast(&client->changed);
    client_unlock(client);
}

void endpoint_begin_look(struct endpoint *endpoint)
{
    uint64_t longest = 2 * endpoint->client->settings.connect_timeout_ms + PROBE_GRACE_MS;

    endpoint->state = CLOCHE_ENDPOINT_PROBED;
    endpoint->probe_due = monotonic_now() + longest * NS_PER_MS;
}

/* One that is looked at has a time, too: nobody may run the loop any more in which that is done. */
struct endpoint *endpoint_claim(struct cloche_client *client, uint64_t now, uint64_t grace)
{
    struct endpoint *first = NULL;

    for (size_t i = 0; i < client->endpoints_count; i++) {
        struct endpoint *endpoint = &client->endpoints[i];
        if (endpoint->state != CLOCHE_ENDPOINT_IN && endpoint->probe_due + grace <= now &&
            (!first || endpoint->probe_due < first->probe_due))
            first = endpoint;
    }
    if (first)
        endpoint_begin_look(first);
    return first;
}

uint64_t endpoint_next_probe(const struct cloche_client *client)
{
    uint64_t due = NEVER;

    for (size_t i = 0; i < client->endpoints_count; i++) {
        const struct endpoint *endpoint = &client->endpoints[i];
        if (endpoint->state != CLOCHE_ENDPOINT_IN && endpoint->probe_due < due)
            due = endpoint->probe_due;
    }
    return due;
}

/* Whether it is broken is for a look to tell; without a thread there may be nobody to look. Under
 * the lock. */
static void doubt(struct endpoint *endpoint)
{
    if (endpoint->client->settings.polled) {
        take_out(endpoint, true, "several calls in a row were not answered in time");
    } else if (!endpoint->doubted) {
        endpoint->doubted = true;
        client_wake(endpoint->client);
    }
}

void endpoint_ended(struct endpoint *endpoint, bool answered, bool timed_out)
{
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    endpoint->busy--;
    if (answered) {
        endpoint->failures = endpoint->silent = endpoint->garbled = 0;
    } else if (timed_out && endpoint->state == CLOCHE_ENDPOINT_IN) {
        endpoint->silent_at = monotonic_now();
        if (++endpoint->silent >= SILENT_MAX)
            doubt(endpoint);
    }
    client_unlock(client);
}
