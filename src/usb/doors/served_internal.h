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

/* A write that is under way. */
struct served_write {
    struct served_write *next;
    struct node *file;
    uint64_t offset, size;
    bool broken; /* one before it failed */
};

struct served_volume {
    struct volume *volume;
    pthread_mutex_t lock;
    struct neighbour *doors;

    pthread_mutex_t writes_lock;
    pthread_cond_t written;
    struct served_write *writes;
};

/* Writes of a file may be under way together and end in any order; the file grows in the order of
 * its bytes, since what is before its end has been written. Begin takes room for it, in the order
 * in which it is called; the content is moved after that; end waits for those before it, and says
 * that the content is there. r: how the content fared; returned, where it is an error. End is
 * called if begin returned 0. */
int served_write_begin(struct served_volume *served, struct served_write *write, struct node *file,
                       uint64_t offset, uint64_t size, struct error *err);
int served_write_end(struct served_volume *served, struct served_write *write, int r,
                     struct error *err);

bool served_is_alone(struct served_volume *served, const struct neighbour *door);

void served_join(struct served_volume *served, struct neighbour *door);
void served_leave(struct served_volume *served, struct neighbour *door);

/* Told to all but the one who says it. */
void served_tell_changed(struct served_volume *served, const struct neighbour *from,
                         struct node *node);
void served_tell_name(struct served_volume *served, const struct neighbour *from,
                      struct node *folder, const char *name);

#endif
