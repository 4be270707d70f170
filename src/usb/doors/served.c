#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>

#include "served_internal.h"

enum { SECTOR_MOST = 4096 };

struct served_volume *served_volume_create(struct volume *volume)
{
    struct served_volume *served = xnew(struct served_volume);
    served->volume = volume;
    pthread_mutex_init(&served->lock, NULL);
    pthread_mutex_init(&served->writes_lock, NULL);
    pthread_cond_init(&served->written, NULL);
    return served;
}

void served_volume_destroy(struct served_volume *served)
{
    if (!served)
        return;
    pthread_mutex_destroy(&served->lock);
    pthread_mutex_destroy(&served->writes_lock);
    pthread_cond_destroy(&served->written);
    free(served);
}

void served_join(struct served_volume *served, struct neighbour *door)
{
    pthread_mutex_lock(&served->lock);
    door->next = served->doors;
    served->doors = door;
    pthread_mutex_unlock(&served->lock);
}

void served_leave(struct served_volume *served, struct neighbour *door)
{
    pthread_mutex_lock(&served->lock);
    struct neighbour **at = &served->doors;
    while (*at && *at != door)
        at = &(*at)->next;
    if (*at)
        *at = door->next;
    pthread_mutex_unlock(&served->lock);
}

bool served_is_alone(struct served_volume *served, const struct neighbour *door)
{
    pthread_mutex_lock(&served->lock);
    bool alone = served->doors == door && !door->next;
    pthread_mutex_unlock(&served->lock);
    return alone;
}

/* Writes. */

/* One that touches a sector which this one touches. */
static bool has_same_sector(const struct served_volume *served, const struct served_write *write)
{
    uint64_t mask = ~(uint64_t)(SECTOR_MOST - 1);
    for (const struct served_write *at = served->writes; at; at = at->next)
        if (at->file == write->file &&
            (at->offset & mask) <= ((write->offset + write->size - 1) & mask) &&
            (write->offset & mask) <= ((at->offset + at->size - 1) & mask))
            return true;
    return false;
}

int served_write_begin(struct served_volume *served, struct served_write *write, struct node *file,
                       uint64_t offset, uint64_t size, struct error *err)
{
    *write = (struct served_write){.file = file, .offset = offset, .size = size};
    if (size == 0 || offset > UINT64_MAX - size)
        return error_set(err, -EINVAL, "a write of %llu bytes", (unsigned long long)size);
    pthread_mutex_lock(&served->writes_lock);
    while (has_same_sector(served, write))
        pthread_cond_wait(&served->written, &served->writes_lock);
    pthread_mutex_unlock(&served->writes_lock);
    int r = served->volume->ops->reserve(served->volume, file, offset, size, err);
    if (r != 0)
        return r;
    pthread_mutex_lock(&served->writes_lock);
    write->next = served->writes;
    served->writes = write;
    pthread_mutex_unlock(&served->writes_lock);
    return 0;
}

/* One that must end first. */
static bool has_earlier(const struct served_volume *served, const struct served_write *write)
{
    for (const struct served_write *at = served->writes; at; at = at->next)
        if (at != write && at->file == write->file && at->offset < write->offset)
            return true;
    return false;
}

static void take_out(struct served_volume *served, const struct served_write *write, bool failed)
{
    for (struct served_write **at = &served->writes, *other; (other = *at) != NULL;) {
        if (failed && other->file == write->file && other->offset > write->offset)
            other->broken = true;
        if (other == write)
            *at = other->next;
        else
            at = &other->next;
    }
    pthread_cond_broadcast(&served->written);
}

int served_write_end(struct served_volume *served, struct served_write *write, int r,
                     struct error *err)
{
    pthread_mutex_lock(&served->writes_lock);
    while (has_earlier(served, write))
        pthread_cond_wait(&served->written, &served->writes_lock);
    pthread_mutex_unlock(&served->writes_lock);
    if (r == 0 && write->broken)
        r = error_set(err, -EIO, "what is before it could not be written");
    if (r == 0)
        r = served->volume->ops->wrote(served->volume, write->file, write->offset, write->size,
                                       err);
    pthread_mutex_lock(&served->writes_lock);
    take_out(served, write, r != 0);
    pthread_mutex_unlock(&served->writes_lock);
    return r;
}

/* Caches. */

void served_tell_changed(struct served_volume *served, const struct neighbour *from,
                         struct node *node)
{
    pthread_mutex_lock(&served->lock);
    for (struct neighbour *door = served->doors; door; door = door->next)
        if (door != from)
            door->changed(door, node);
    pthread_mutex_unlock(&served->lock);
}

void served_tell_name(struct served_volume *served, const struct neighbour *from,
                      struct node *folder, const char *name)
{
    pthread_mutex_lock(&served->lock);
    for (struct neighbour *door = served->doors; door; door = door->next)
        if (door != from)
            door->name_changed(door, folder, name);
    pthread_mutex_unlock(&served->lock);
}
