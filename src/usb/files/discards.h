/*
 * Which clusters have become free and may be discarded (mount(8), "discard"): a bit each, of those
 * whose freeing is durable and of those whose freeing is in place. What is taken again is in
 * neither. Clusters are counted from 0 here. The volume's lock is held to write.
 */
#ifndef FILES_DISCARDS_H
#define FILES_DISCARDS_H

#include <block/medium.h>

#include "steps.h"

/* Milliseconds that discarding goes on for, between requests and as the volume is unmounted: units
 * may take long, and what is left is not lost. */
enum { DISCARDS_A_TICK_MS = 500, DISCARDS_AT_END_MS = 2000 };
int64_t discards_end(int milliseconds);
bool discards_have_time(int64_t end);

struct discards {
    uint32_t clusters;            /* 0: nothing is kept */
    uint64_t *durable, *in_place; /* owned */
    uint64_t update;              /* the newest that freed some of `durable`; 0: none did */
    uint32_t next;                /* there is nothing in place before this one */
};

void discards_init(struct discards *discards, uint32_t clusters);
void discards_finish(struct discards *discards);

/* What was freed by an update that is durable. in_place: updates up to this one are. */
void discards_add(struct discards *discards, uint32_t first, uint32_t count, uint64_t update,
                  uint64_t in_place);
/* What is given away again. */
void discards_forget(struct discards *discards, uint32_t first, uint32_t count);

/* Takes out a run that may be discarded now, and discards it: the first cluster is at byte `offset`
 * of the medium. False: there is none, or the device refuses, for which it is not asked again. */
bool discards_next(struct discards *discards, struct medium *medium, uint64_t offset,
                   uint32_t cluster_size);

/* All of the medium from `offset` on, which is to be formatted. Where the device takes no discards,
 * or fails in them, it is as if this had not been called. -ECANCELED. */
int discards_of_format(struct medium *medium, uint64_t offset, struct steps *steps,
                       struct error *err);

#endif
