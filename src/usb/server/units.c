/* What is on a medium: its partitions, and what their volumes say of themselves. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>

#include "server.h"

enum { SMALL_CACHE = 256 << 10 }; /* bytes: to look only */

static int look(struct stick_volume *volume, struct volume_facts *ret_facts, struct error *err)
{
    const struct medium_options medium_options = {.cache_size = SMALL_CACHE, .read_only = true};
    const struct volume_options volume_options = {.read_only = true};
    struct medium *medium;
    struct volume *looked;
    int r = medium_open(volume->part, &medium_options, &medium, err);
    if (r != 0)
        return r;
    r = volume_mount(medium, &volume_options, &looked, err);
    if (r == 0) {
        r = looked->ops->identity(looked, ret_facts, err);
        looked->ops->unmount(looked, NULL);
    }
    medium_close(medium, NULL);
    return r;
}

void unit_identify(struct server *server, struct stick_volume *volume)
{
    struct volume_facts facts = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = look(volume, &facts, &err);
    pthread_mutex_lock(&server->lock);
    volume->known = r == 0;
    volume->facts = facts;
    free(volume->error);
    volume->error = r == 0 ? NULL : xstrdup(error_message(&err));
    pthread_mutex_unlock(&server->lock);
}

static int make_volume(struct server *server, unsigned unit, const struct partition *partition,
                       struct stick_volume **ret_volume, struct error *err)
{
    struct block_device *part;
    int r = block_part(server->units[unit].medium, partition->first, partition->count, &part, err);
    if (r != 0)
        return r;
    struct stick_volume *volume = xnew(struct stick_volume);
    volume->unit = unit;
    volume->partition = *partition;
    volume->part = part;
    unit_identify(server, volume);
    *ret_volume = volume;
    return 0;
}

static void add_volume(struct server *server, struct stick_volume *volume)
{
    struct stick_volume **at = &server->volumes;
    pthread_mutex_lock(&server->lock);
    volume->number = ++server->last_volume;
    while (*at)
        at = &(*at)->next;
    *at = volume;
    pthread_mutex_unlock(&server->lock);
}

/* A medium without a table is one volume, whatever it is. */
static void make_volumes(struct server *server, unsigned unit, struct partitions *found)
{
    const struct block_device *medium = server->units[unit].medium;
    if (found->table == PARTITIONS_NONE) {
        found->count = 1;
        found->partitions[0] = (struct partition){.first = 0, .count = medium->sectors};
    }
    for (size_t i = 0; i < found->count; i++) {
        struct stick_volume *volume;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (make_volume(server, unit, &found->partitions[i], &volume, &err) == 0)
            add_volume(server, volume);
        else
            log_failure(LOG_WARNING, &err, "unit %u: partition %u", unit,
                        found->partitions[i].number);
    }
}

static void tell_skipped(unsigned unit, unsigned skipped, struct error *err)
{
    if (skipped == 0)
        return;
    error_set(err, -E2BIG,
              "at least %u of its partitions are not served: more than %d, outside of it, or in a "
              "table that cannot be read or comes again",
              skipped, PARTITIONS_MAX);
    log_failure(LOG_WARNING, err, "unit %u", unit);
}

void unit_read(struct server *server, unsigned number)
{
    struct server_unit *unit = &server->units[number];
    struct partitions *found = xnew(struct partitions);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = partitions_read(unit->medium, volume_is_known, found, &err);
    if (r == 0) {
        make_volumes(server, number, found);
        tell_skipped(number, found->skipped, &err);
    }
    pthread_mutex_lock(&server->lock);
    unit->is_read = true;
    unit->is_unreadable = r != 0;
    unit->table = found->table;
    free(unit->error);
    unit->error = err.code != 0 ? xstrdup(error_message(&err)) : NULL;
    pthread_mutex_unlock(&server->lock);
    free(found);
}

static void drop_volume(struct server *server, struct stick_volume *volume, const char *reason)
{
    struct stick_volume **at = &server->volumes;
    _cleanup_error_ struct error err = ERROR_INIT;
    volume_take_over(server, volume, "unmount");
    if (mounts_close(server, volume, reason, &err) != 0)
        log_failure(LOG_ERROR, &err, "volume %u: not all that was written is there",
                    volume->number);
    pthread_mutex_lock(&server->lock);
    while (*at != volume)
        at = &(*at)->next;
    *at = volume->next;
    pthread_mutex_unlock(&server->lock);
    volume_free(volume);
}

/* Nobody takes it or any of its volumes any more. With the lock. */
static struct stick_volume *lose_volumes(struct server *server, unsigned unit)
{
    server->units[unit].is_read = false;
    struct stick_volume *first = volume_from(server, 0, (int)unit);
    for (struct stick_volume *volume = first; volume;
         volume = volume_from(server, volume->number + 1, (int)unit))
        volume->lost = true;
    return first;
}

void unit_drop(struct server *server, unsigned number, const char *reason, bool with_medium)
{
    struct server_unit *unit = &server->units[number];
    for (;;) {
        pthread_mutex_lock(&server->lock);
        struct stick_volume *volume = lose_volumes(server, number);
        while (unit->is_taken && !unit->block)
            pthread_cond_wait(&server->changed, &server->lock);
        bool is_given_out = unit->block;
        pthread_mutex_unlock(&server->lock);
        if (is_given_out)
            block_close(server, number, reason, NULL);
        else if (volume)
            drop_volume(server, volume, reason);
        else
            break;
    }
    pthread_mutex_lock(&server->lock);
    struct block_device *medium = with_medium ? steal_ptr(unit->medium) : NULL;
    free(steal_ptr(unit->error));
    pthread_mutex_unlock(&server->lock);
    block_device_destroy(medium);
}
