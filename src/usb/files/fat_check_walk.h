/* What fat_check_folder.c and fat_check_names.c share. */
#ifndef FILES_FAT_CHECK_WALK_H
#define FILES_FAT_CHECK_WALK_H

#include "fat_check.h"
#include "name_hash.h"

/* Names of a folder by a sum of their upper case. */
struct fat_check_names {
    uint64_t *sums; /* owned; 0: nothing is there */
    size_t room, count;
};

struct fat_walk_folder {
    uint32_t first, parent; /* clusters; 0: the root */
    struct runs runs;       /* owned; none of the fixed root */
    char *name;             /* owned: its path, "" of the root */
};

struct fat_walk {
    struct fat_checking *check;
    struct fat_walk_folder *folders; /* that are still to be looked at */
    size_t count, room;
    struct fat_walk_folder at; /* the one that is looked at */
    struct fat_check_names names;
    struct name_key key; /* of the sums of its names */
};

/* An entry while it is looked at. */
struct fat_item {
    struct fat_entry entry;
    uint64_t offset; /* of the short one */
    char *path;      /* owned */
};

/* Where a slot is on the medium. False: beyond the folder's end. */
bool fat_walk_slot(const struct fat_walk *walk, uint32_t slot, uint64_t *ret_offset);
/* Within an update: a byte of each of these slots. */
int fat_walk_write(struct fat_walk *walk, uint32_t first, uint32_t end, unsigned at, uint8_t byte,
                   struct error *err);

/* Says when the item's name cannot be, or is another one's, and repairs it. From then on it is
 * among the folder's names. */
int fat_check_name(struct fat_walk *walk, struct fat_item *item, struct error *err);
void fat_check_names_finish(struct fat_check_names *names);
/* Bytes that one name more may need. */
size_t fat_check_names_step(const struct fat_check_names *names);

#endif
