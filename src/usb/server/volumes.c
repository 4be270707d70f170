/* Who has which volume, and how it is opened and closed. */
#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/log.h>

#include "server.h"

struct stick_volume *volume_from(struct server *server, uint32_t number, int unit)
{
    struct stick_volume *volume = server->volumes;
    while (volume && (volume->number < number || (unit >= 0 && volume->unit != (unsigned)unit)))
        volume = volume->next;
    return volume;
}

/* With the lock. */
static int may_take(struct server *server, const struct stick_volume *volume, uint32_t number,
                    struct error *err)
{
    if (!volume || volume->number != number)
        return error_set(err, -ENOENT, "there is no volume %u", number);
    if (volume->lost)
        return error_set(err, -ENOMEDIUM, "the medium of volume %u is gone", number);
    if (server->units[volume->unit].is_ejecting)
        return error_set(err, -EBUSY, "unit %u is being ejected", volume->unit);
    if (volume->busy && volume->is_lengthy)
        return error_set(err, -EBUSY, "volume %u is busy: %s", number, volume->busy);
    return 0;
}

int volume_take(struct server *server, uint32_t number, const char *doing, bool is_lengthy,
                struct stick_volume **ret_volume, struct error *err)
{
    struct stick_volume *volume;
    int r;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        volume = volume_from(server, number, -1);
        r = may_take(server, volume, number, err);
        if (r != 0 || !volume->busy)
            break;
        pthread_cond_wait(&server->changed, &server->lock);
    }
    if (r == 0) {
        volume->busy = doing;
        volume->is_lengthy = is_lengthy;
        *ret_volume = volume;
    }
    pthread_mutex_unlock(&server->lock);
    return r;
}

int volume_take_next(struct server *server, uint32_t number, unsigned unit, const char *doing,
                     struct stick_volume **ret_volume, struct error *err)
{
    struct stick_volume *volume;
    int r = 0;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        volume = volume_from(server, number, (int)unit);
        while (volume && volume->lost)
            volume = volume_from(server, volume->number + 1, (int)unit);
        if (!volume || !volume->busy)
            break;
        if (volume->is_lengthy) {
            r = error_set(err, -EBUSY, "volume %u is busy: %s", volume->number, volume->busy);
            break;
        }
        pthread_cond_wait(&server->changed, &server->lock);
    }
    if (r == 0 && volume) {
        volume->busy = doing;
        volume->is_lengthy = false;
    }
    pthread_mutex_unlock(&server->lock);
    if (r == 0)
        *ret_volume = volume;
    return r;
}

void volume_take_over(struct server *server, struct stick_volume *volume, const char *doing)
{
    pthread_mutex_lock(&server->lock);
    while (volume->busy)
        pthread_cond_wait(&server->changed, &server->lock);
    volume->busy = doing;
    volume->is_lengthy = false;
    pthread_mutex_unlock(&server->lock);
}

void volume_give(struct server *server, struct stick_volume *volume)
{
    pthread_mutex_lock(&server->lock);
    volume->busy = NULL;
    volume->is_lengthy = false;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static bool overlap(const struct partition *a, const struct partition *b)
{
    return a->first < b->first + b->count && b->first < a->first + a->count;
}

int volume_claim(struct server *server, struct stick_volume *volume, enum volume_claim claim,
                 struct error *err)
{
    int r = 0;
    pthread_mutex_lock(&server->lock);
    for (const struct stick_volume *other = server->volumes; r == 0 && other; other = other->next) {
        bool both_read = claim == CLAIM_READ && other->claim == CLAIM_READ;
        if (other == volume || other->unit != volume->unit || other->claim == CLAIM_NONE ||
            both_read || !overlap(&other->partition, &volume->partition))
            continue;
        r = error_set(err, -EBUSY, "volume %u has sectors of volume %u, which is in use",
                      volume->number, other->number);
    }
    if (r == 0)
        volume->claim = claim;
    pthread_mutex_unlock(&server->lock);
    return r;
}

void volume_unclaim(struct server *server, struct stick_volume *volume)
{
    pthread_mutex_lock(&server->lock);
    volume->claim = CLAIM_NONE;
    pthread_mutex_unlock(&server->lock);
}

static void tell_recovery(struct server *server, const struct stick_volume *volume,
                          enum medium_recovery recovery)
{
    struct usb_stick_recovered recovered = {
        .volume = volume->number,
        .outcome = recovery == MEDIUM_REPLAYED ? "replayed" : "discarded",
    };
    const struct usb_stick_event event = {.recovered = &recovered};
    if (recovery != MEDIUM_REPLAYED && recovery != MEDIUM_DISCARDED)
        return;
    log_info("volume %u: the journal was %s", volume->number, recovered.outcome);
    control_tell(server, &event);
}

int volume_open(struct server *server, struct stick_volume *volume,
                const struct usb_stick_mount *wanted, struct error *err)
{
    bool read_only = volume->part->read_only || wanted->read_only;
    if (wanted->has_volume_read_only)
        read_only = volume->part->read_only || wanted->volume_read_only;
    const struct medium_options medium_options = {.read_only = read_only};
    const struct volume_options volume_options = {
        .read_only = read_only,
        .minutes_east = wanted->minutes_east,
        .codepage = wanted->codepage,
        .discard = wanted->discard,
    };
    struct medium *medium;
    struct volume *opened;
    int r = volume_claim(server, volume, read_only ? CLAIM_READ : CLAIM_WRITE, err);
    if (r != 0)
        return r;
    r = medium_open(volume->part, &medium_options, &medium, err);
    if (r != 0) {
        volume_unclaim(server, volume);
        return r;
    }
    if (!read_only)
        source_hold(server, volume->unit, true);
    r = volume_mount(medium, &volume_options, &opened, err);
    if (r != 0) {
        medium_close(medium, NULL);
        if (!read_only)
            source_hold(server, volume->unit, false);
        volume_unclaim(server, volume);
        return error_context(err, "volume %u", volume->number);
    }
    volume->holds = !read_only;
    tell_recovery(server, volume, medium_recovered(medium));
    pthread_mutex_lock(&server->lock);
    volume->medium = medium;
    volume->volume = opened;
    volume->served = served_volume_create(opened);
    volume->read_only = read_only;
    volume->is_failed = false;
    pthread_mutex_unlock(&server->lock);
    return 0;
}

int volume_close(struct server *server, struct stick_volume *volume, struct error *err)
{
    struct medium *medium = volume->medium;
    struct volume *opened = volume->volume;
    if (!medium)
        return 0;
    served_volume_destroy(volume->served);
    int r = opened->ops->unmount(opened, err);
    struct cache_facts cache;
    medium_cache(medium, &cache);
    pthread_mutex_lock(&server->lock);
    server->cache_hits += cache.hits;
    server->cache_misses += cache.misses;
    volume->medium = NULL;
    volume->volume = NULL;
    volume->served = NULL;
    pthread_mutex_unlock(&server->lock);
    int closed = medium_close(medium, r == 0 ? err : NULL);
    if (volume->holds)
        source_hold(server, volume->unit, false);
    volume->holds = false;
    volume_unclaim(server, volume);
    return r == 0 ? closed : r;
}

void volume_free(struct stick_volume *volume)
{
    block_device_destroy(volume->part);
    free(volume->error);
    free(volume);
}

/* With the lock. */
static int may_take_unit(struct server *server, unsigned unit, struct error *err)
{
    if (unit >= server->unit_count || !server->units[unit].is_read)
        return error_set(err, -ENOMEDIUM, "unit %u has no medium that is ready", unit);
    if (server->units[unit].block)
        return error_set(err, -EBUSY, "unit %u is given out as a block device", unit);
    if (server->units[unit].is_ejecting || server->units[unit].is_taken)
        return error_set(err, -EBUSY, "unit %u is busy, or being ejected", unit);
    for (struct stick_volume *volume = volume_from(server, 0, (int)unit); volume;
         volume = volume_from(server, volume->number + 1, (int)unit))
        if (volume->medium || volume->busy || volume->lost)
            return error_set(err, -EBUSY, "volume %u of unit %u is mounted or busy", volume->number,
                             unit);
    return 0;
}

int unit_take(struct server *server, unsigned unit, const char *doing, struct error *err)
{
    pthread_mutex_lock(&server->lock);
    int r = may_take_unit(server, unit, err);
    if (r == 0)
        server->units[unit].is_taken = true;
    for (struct stick_volume *volume = r == 0 ? volume_from(server, 0, (int)unit) : NULL; volume;
         volume = volume_from(server, volume->number + 1, (int)unit)) {
        volume->busy = doing;
        volume->is_lengthy = true;
    }
    pthread_mutex_unlock(&server->lock);
    return r;
}

void unit_give(struct server *server, unsigned unit, bool lost)
{
    pthread_mutex_lock(&server->lock);
    server->units[unit].is_taken = false;
    for (struct stick_volume *volume = volume_from(server, 0, (int)unit); volume;
         volume = volume_from(server, volume->number + 1, (int)unit)) {
        volume->busy = NULL;
        volume->is_lengthy = false;
        volume->lost = volume->lost || lost;
    }
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

int job_sync(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    int r = 0;
    (void)result;
    for (uint32_t number = 1; r == 0; number++) {
        pthread_mutex_lock(&server->lock);
        struct stick_volume *volume = volume_from(server, number, -1);
        while (volume && !volume->medium)
            volume = volume->next;
        number = volume ? volume->number : 0;
        pthread_mutex_unlock(&server->lock);
        if (number == 0)
            break;
        r = volume_take(server, number, "sync", false, &volume, err);
        if (r != 0)
            break;
        if (volume->medium)
            r = medium_settle(volume->medium, err);
        volume_give(server, volume);
    }
    return r;
}
