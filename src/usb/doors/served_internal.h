/* What doors of one volume know of each other. */
#ifndef DOORS_SERVED_INTERNAL_H
#define DOORS_SERVED_INTERNAL_H

#include <pthread.h>

#include <doors/served.h>

/* A door as the others see it. Its functions are called by threads of other doors, while
 * served->lock is held: they must not wait, and not call served_*. */
struct neighbour {
    struct neighbour *next;
    /* The file's size, content or times, or what the folder has, is another one now. */
    void (*changed)(struct neighbour *neighbour, struct node *node);
    /* The name leads to nothing any more, or to something else. */
    void (*name_changed)(struct neighbour *neighbour, struct node *folder, const char *name);
};

struct served_volume {
    struct volume *volume;
    pthread_mutex_t lock;
    struct neighbour *doors;
};

bool served_is_alone(struct served_volume *served, const struct neighbour *door);

void served_join(struct served_volume *served, struct neighbour *door);
void served_leave(struct served_volume *served, struct neighbour *door);

/* Told to all but the one who says it. */
void served_tell_changed(struct served_volume *served, const struct neighbour *from,
                         struct node *node);
void served_tell_name(struct served_volume *served, const struct neighbour *from,
                      struct node *folder, const char *name);

#endif
