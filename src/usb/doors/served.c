#include <stdlib.h>

#include <base/alloc.h>

#include "served_internal.h"

struct served_volume *served_volume_create(struct volume *volume)
{
    struct served_volume *served = xnew(struct served_volume);
    served->volume = volume;
    pthread_mutex_init(&served->lock, NULL);
    return served;
}

void served_volume_destroy(struct served_volume *served)
{
    if (!served)
        return;
    pthread_mutex_destroy(&served->lock);
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
