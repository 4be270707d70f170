/* The keeper: one thread that follows the units, closes what ended of itself, and looks after what
 * is mounted, once a second while anything is. */
#include <errno.h>
#include <time.h>

#include <base/clock.h>
#include <base/log.h>

#include "server.h"

enum { TICK_MS = 1000 };

static const char keeping[] = "tick";

/* A unit that wants to be looked at; -1: none does. With the lock. */
static int changed_unit(const struct server *server)
{
    for (unsigned i = 0; i < server->unit_count; i++)
        if (server->units[i].is_changed || server->units[i].is_rescanned)
            return (int)i;
    return -1;
}

static void follow(struct server *server, unsigned number)
{
    struct server_unit *unit = &server->units[number];
    pthread_mutex_lock(&server->lock);
    bool lost = unit->is_lost, anew = unit->is_rescanned;
    struct block_device *fresh = steal_ptr(unit->fresh);
    unit->is_changed = unit->is_lost = false;
    pthread_mutex_unlock(&server->lock);
    if (lost || anew)
        unit_drop(server, number, "gone", lost);
    if (fresh) {
        fresh = counted_create(fresh, &server->counts, server->options->read_only);
        pthread_mutex_lock(&server->lock);
        unit->medium = fresh;
        pthread_mutex_unlock(&server->lock);
    }
    if (unit->medium && !unit->is_read)
        unit_read(server, number);
    pthread_mutex_lock(&server->lock);
    if (anew)
        unit->is_rescanned = false;
    pthread_cond_broadcast(&server->changed);
    bool ready = unit->is_read;
    pthread_mutex_unlock(&server->lock);
    control_tell_unit(server, number, ready && (fresh || anew));
}

/* A volume with a mount that ended of itself. With the lock. */
static struct stick_volume *volume_to_reap(const struct server *server)
{
    for (struct stick_volume *volume = server->volumes; volume; volume = volume->next)
        for (struct stick_mount *mount = volume->mounts; mount; mount = mount->next)
            if (mount->ended)
                return volume;
    return NULL;
}

static void reap(struct server *server, struct stick_volume *volume)
{
    volume_take_over(server, volume, keeping);
    mounts_reap(server, volume);
    volume_give(server, volume);
}

/* With the lock. */
static struct stick_volume *next_mounted(struct server *server, uint32_t number)
{
    struct stick_volume *volume = volume_from(server, number, -1);
    while (volume && (!volume->medium || volume->busy))
        volume = volume->next;
    return volume;
}

/* What is being worked with by somebody else is looked after by them, or the next time. */
static void tick(struct server *server)
{
    uint32_t number = 0;
    for (;;) {
        _cleanup_error_ struct error err = ERROR_INIT;
        pthread_mutex_lock(&server->lock);
        struct stick_volume *volume = next_mounted(server, number);
        if (volume)
            volume->busy = keeping;
        pthread_mutex_unlock(&server->lock);
        if (!volume)
            return;
        int r = volume_tick(volume->volume, (uint64_t)clock_milliseconds(), &err);
        if (r != 0 && r != -ENODEV && r != -ENOMEDIUM && !volume->is_failed)
            log_failure(LOG_ERROR, &err, "volume %u: what was written could not be made durable",
                        volume->number);
        volume->is_failed = r != 0;
        number = volume->number + 1;
        volume_give(server, volume);
    }
}

/* Until there is something to do; true: a second has gone. With the lock. */
static bool wait_for_work(struct server *server, int64_t due)
{
    struct timespec until = {due / 1000, due % 1000 * 1000000};
    bool mounted = server->mount_count > 0;
    if (!mounted)
        pthread_cond_wait(&server->work, &server->lock);
    else if (clock_milliseconds() >= due ||
             pthread_cond_timedwait(&server->work, &server->lock, &until) == ETIMEDOUT)
        return true;
    return false;
}

/* Everything is closed, in the order of the units. */
static void close_all(struct server *server)
{
    for (unsigned i = 0; i < server->unit_count; i++)
        unit_drop(server, i, "ended", true);
}

static void *keep(void *data)
{
    struct server *server = data;
    int64_t due = clock_milliseconds() + TICK_MS;
    pthread_mutex_lock(&server->lock);
    while (!server->keeper_ends) {
        int unit = changed_unit(server);
        struct stick_volume *ended = volume_to_reap(server);
        int block = block_to_reap(server);
        bool ticks = unit < 0 && !ended && block < 0 && wait_for_work(server, due);
        pthread_mutex_unlock(&server->lock);
        if (unit >= 0)
            follow(server, (unsigned)unit);
        else if (ended)
            reap(server, ended);
        else if (block >= 0)
            block_reap(server, (unsigned)block);
        if (ticks)
            tick(server);
        if (clock_milliseconds() >= due)
            due = clock_milliseconds() + TICK_MS;
        pthread_mutex_lock(&server->lock);
    }
    pthread_mutex_unlock(&server->lock);
    close_all(server);
    return NULL;
}

int keeper_start(struct server *server, struct error *err)
{
    int r = thread_start(keep, server, &server->keeper, err);
    server->has_keeper = r == 0;
    return r;
}

void keeper_stop(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    bool has_keeper = server->has_keeper;
    server->has_keeper = false;
    server->keeper_ends = true;
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
    if (has_keeper)
        pthread_join(server->keeper, NULL);
}

void keeper_rescan(struct server *server, unsigned unit)
{
    pthread_mutex_lock(&server->lock);
    server->units[unit].is_rescanned = true;
    pthread_cond_signal(&server->work);
    while (server->units[unit].is_rescanned && !server->keeper_ends)
        pthread_cond_wait(&server->changed, &server->lock);
    pthread_mutex_unlock(&server->lock);
}
