/* What the parts of a check of exFAT share: exfat_check.c walks over what there is and marks its
 * clusters, exfat_check_bitmap.c looks at the bitmap beside the marks. */
#ifndef FILES_EXFAT_CHECKING_H
#define FILES_EXFAT_CHECKING_H

#include "exfat_layout.h"
#include "steps.h"

enum { EXFAT_CHECK_SECTORS = 16 /* of an update */ };

struct exfat_check_folder;

/* Clusters one after the other. */
struct exfat_check_chain {
    uint32_t first;
    uint64_t clusters; /* that there are, as far as they are sound */
    bool contiguous;
};

struct exfat_checking {
    struct medium *medium;
    struct check_options options;
    volume_finding found;
    void *data;
    struct exfat_layout layout;
    uint8_t *marks; /* a bit a cluster */
    uint64_t marked;
    struct steps steps; /* clusters: of the folders, then of the bitmap */
    struct exfat_check_chain bitmap;
    uint64_t bitmap_size;
    bool has_upcase;
    struct exfat_check_folder *folders; /* that are still to be looked at */
    size_t folders_count, folders_room;
    int left; /* findings that were not repaired */
};

void exfat_check_say(struct exfat_checking *check, bool repaired, const char *format, ...)
    _printf_(3, 4);

/* The next cluster; 0: the chain is at its end, or what follows is none. */
int exfat_check_follow(struct exfat_checking *check, bool contiguous, uint32_t cluster,
                       uint32_t *ret_next, struct error *err);

int exfat_check_bitmap(struct exfat_checking *check, struct error *err);

#endif
