/*
 * Metadata on its way from an update to its place:
 *
 *   changed   in the cache, by updates of the running transaction (struct change)
 *   recorded  in the journal, durable; not in place yet (struct recorded)
 *   in place
 *
 * A cached block stays pinned from the first change until it is in place, since what is on the
 * device is older. Two locks: `update` is held from medium_begin() to medium_end(), and while the
 * running transaction is taken; `commit` by whoever writes transactions and checkpoints, one at a
 * time, without holding up updates. Who needs both takes `commit` first.
 *
 * medium.c changes, commit.c writes, content.c moves the content of files.
 */
#ifndef BLOCK_MEDIUM_INTERNAL_H
#define BLOCK_MEDIUM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <block/cache.h>
#include <block/medium.h>

#include "ahead.h"
#include "behind.h"
#include "bounce.h"
#include "journal.h"

enum {
    CACHE_DEFAULT = 4 << 20,
    CHANGES_MOST = 2048, /* sectors of a transaction without a journal */
    PINNED_PART = 4,     /* of the cache's blocks, one in so many is for readers */
    SECTORS_OF_BLOCK_MOST = CACHE_BLOCK / 512,
};

/* A sector of the running transaction. */
struct change {
    uint64_t sector;
    struct cached *block; /* pinned once for this change */
    uint8_t *before;      /* the sector before the transaction; owned */
    uint8_t *undo;        /* before the update that runs; owned, NULL when that did not touch it */
    unsigned epoch;       /* of medium_barrier() */
    unsigned undo_epoch;
};

/* What a sector of the running transaction was to be when an epoch ended, before a later one
 * changed it again. Only without a journal. */
struct earlier {
    uint64_t sector;
    unsigned epoch;
    uint8_t *image; /* owned */
};

/* A sector whose newest recorded state is not in place. */
struct recorded {
    uint64_t sector;
    struct cached *block; /* pinned once for this */
    uint8_t *image;       /* owned */
};

/* What the medium knows of a cached block that it keeps pinned: cached.owner. */
struct touched {
    unsigned count; /* members that are not NULL */
    struct change *changes[SECTORS_OF_BLOCK_MOST];
    struct recorded *recorded[SECTORS_OF_BLOCK_MOST];
};

struct list {
    void **items;
    size_t count, room;
};

struct medium {
    struct block_device *device;
    struct cache *cache;
    struct ahead ahead;
    struct behind behind;
    struct bounce bounce;
    bool read_only;
    atomic_int failed; /* negative errno: an update could not be made durable */

    size_t pinned_most; /* blocks that changes and recorded sectors may keep pinned */

    pthread_mutex_t update;
    size_t pinned;        /* blocks that they do */
    struct list running;  /* struct change */
    struct list undoable; /* of these, what the update that runs has changed */
    struct list earlier;  /* struct earlier */
    size_t earlier_kept;  /* those of updates that have ended */
    unsigned epoch;
    _Atomic uint64_t transaction; /* number of the running one */
    uint64_t first_sector;        /* medium_first(): UINT64_MAX when there is none */
    bool in_update;
    bool in_use, in_use_before; /* medium_set_in_use(): now, and before the update that runs */

    pthread_mutex_t commit;
    enum medium_recovery recovered;
    bool was_in_use;
    atomic_bool has_journal;
    struct journal journal;
    struct list recorded; /* struct recorded; its pointers in touched belong to `update` */

    atomic_bool content_written; /* since the last flush */
    _Atomic uint64_t committed, in_place;
    _Atomic uint64_t changes; /* counts updates, for medium_tick() */
    uint64_t tick_changes, tick_ms, commit_ms;
};

void list_add(struct list *list, void *item);
void list_finish(struct list *list);

static inline unsigned sectors_of_block(const struct medium *medium)
{
    return CACHE_BLOCK / medium->device->sector_size;
}

static inline uint8_t *sector_data(const struct medium *medium, const struct cached *block,
                                   uint64_t sector)
{
    return block->data + (size_t)(sector % sectors_of_block(medium)) * medium->device->sector_size;
}

bool medium_within(const struct medium *medium, uint64_t offset, uint64_t size);
int medium_beyond(uint64_t offset, uint64_t size, struct error *err);

/* One of the members of block->owner has become NULL: its pin goes. `update` is held. */
void medium_let_go(struct medium *medium, struct cached *block);
void medium_change_free(struct change *change);

/* Forgets all earlier states but the first `count`. */
void medium_forget_earlier(struct list *earlier, size_t count);

/* An update that is lost must not be followed by one that builds on it. Returns r. */
int medium_failed_by(struct medium *medium, int r);

/* Makes the running transaction durable. Neither lock is held. */
int medium_commit(struct medium *medium, struct error *err);

/* Everything recorded is in place, or will never be. */
void medium_let_recorded_go(struct medium *medium);

/* Whether updates may be made. */
int medium_writable(struct medium *medium, struct error *err);

#endif
