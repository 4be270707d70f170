/* Checking and repairing FAT12, FAT16 and FAT32. fat_check() is called by volume_check()
 * (files/tools.h); the rest is what fat_check*.c share. */
#ifndef FILES_FAT_CHECK_H
#define FILES_FAT_CHECK_H

#include <files/tools.h>

#include "fat.h"
#include "steps.h"

int fat_check(struct medium *medium, const struct check_options *options, volume_finding found,
              void *data, struct error *err);

/* Whether there is a copy of FAT32's boot sector where one usually is, that could be one. */
bool fat_check_has_backup(struct medium *medium);

struct lost_chain {
    uint32_t first, clusters;
};

struct fat_checking {
    struct fat_volume volume; /* not mounted: for what reads and writes by layout and code page */
    struct check_options options;
    volume_finding found;
    void *data;         /* of found */
    uint8_t *marks;     /* a bit a cluster: something leads to it */
    struct steps steps; /* clusters, once for each part that looks at all of them */
    int left;           /* findings that were not repaired */

    struct lost_chain *lost; /* owned: to become files */
    size_t lost_count, lost_room;
};

/* Tells of a finding, which is repaired when that is asked for, and returns whether it is. */
bool fat_say(struct fat_checking *check, const char *format, ...) _printf_(2, 3);
/* Of one that stays. */
void fat_say_left(struct fat_checking *check, const char *format, ...) _printf_(2, 3);

/* fat_check.c: clusters that one leads to the other, marked on the way. */
struct fat_chain {
    uint32_t sound; /* clusters; fewer than wanted: the chain ends, or leads to no cluster of its */
    uint32_t last;  /* of these */
    bool ends;      /* the table says that it is the last one */
    struct runs runs; /* owned */
};
int fat_mark_chain(struct fat_checking *check, uint32_t first, uint32_t wanted,
                   struct fat_chain *ret, struct error *err);
bool fat_is_marked(const struct fat_checking *check, uint32_t cluster);

/* Repairs are updates of their own: begin, whatever is to be written, and end by what came of it.
 */
int fat_repair_begin(struct fat_checking *check, unsigned sectors, struct error *err);
int fat_repair_end(struct fat_checking *check, int r);

/* fat_check_folder.c: everything that the root folder leads to. */
int fat_check_folders(struct fat_checking *check, struct error *err);

/* fat_check_table.c */
int fat_check_tables(struct fat_checking *check, struct error *err); /* before the folders */
int fat_check_lost(struct fat_checking *check, struct error *err);   /* behind them */
int fat_check_info(struct fat_checking *check, struct error *err);

#endif
