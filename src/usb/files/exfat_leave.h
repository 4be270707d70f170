/* What exfat_leave.c and exfat_change.c share; volume->lock is held to write, and writing has
 * started. */
#ifndef FILES_EXFAT_LEAVE_H
#define FILES_EXFAT_LEAVE_H

#include "exfat.h"

/*
 * What is to be removed, with all that is its. What one update can free goes with its name. A
 * larger file is parked by that update: it becomes a hidden file of the root folder, so that its
 * name is gone at once and as a whole. Then that one is removed, for which it becomes shorter by
 * updates of its own. Where the power goes meanwhile, the next one to write to the volume goes on.
 * What cannot be parked is lost by that update, and freed by and by: where the power goes, that is
 * left to a check.
 */
struct exfat_doomed {
    struct exfat_entries *entries; /* owned */
    bool parks, was_parked;
    struct exfat_place parked; /* owned */
    struct exfat_set parked_set;
    struct exfat_node *node; /* held */
    struct exfat_runs extra; /* owned */
    uint32_t left;           /* the first clusters, which are freed afterwards */
    struct exfat_set set;    /* before anything of it was freed: whoever holds it keeps that */
};

/* Of what goes within the update of whoever takes its name away, in this order: entries are found
 * (create makes it, owned) -> prepare (-ENOTEMPTY) -> park, beside the entries
 * that are to be made in `beside` (NULL: none are) -> so many sectors -> write, within the update
 * -> memory, when that has ended -> free_rest. Finish frees it, however far that went. */
struct exfat_doomed *exfat_doomed_create(void);
int exfat_doomed_prepare(struct exfat_volume *volume, struct exfat_node *folder,
                         struct exfat_doomed *doomed, struct error *err);
int exfat_doomed_park(struct exfat_volume *volume, struct exfat_doomed *doomed,
                      const struct exfat_node *beside, const struct exfat_place *place,
                      struct error *err);
unsigned exfat_doomed_sectors(const struct exfat_volume *volume, const struct exfat_doomed *doomed);
int exfat_doomed_write(struct exfat_volume *volume, const struct exfat_doomed *doomed,
                       struct error *err);
void exfat_doomed_memory(struct exfat_volume *volume, struct exfat_node *folder,
                         struct exfat_doomed *doomed);
void exfat_doomed_free_rest(struct exfat_volume *volume, struct exfat_doomed *doomed);
void exfat_doomed_finish(struct exfat_volume *volume, struct exfat_doomed *doomed);

static inline bool exfat_set_is_folder(const struct exfat_set *set)
{
    return set->attributes & EXFAT_FOLDER;
}

#endif
