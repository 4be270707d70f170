/*
 * Where things are on an exFAT volume: the boot region. Source of every rule: Microsoft's exFAT
 * file system specification, revision 1.00, section 3; numbers of its tables are given where a
 * field is read.
 */
#ifndef FILES_EXFAT_LAYOUT_H
#define FILES_EXFAT_LAYOUT_H

#include <block/medium.h>

enum {
    EXFAT_FIRST_CLUSTER = 2,
    EXFAT_CLUSTERS_MOST = 0xFFFFFFF5, /* 3.1.9: 2^32 - 11 */
    EXFAT_BOOT_SECTORS = 12,          /* of the main boot region, and of its backup behind it */
};

/* Values of the table (4.1). */
#define EXFAT_BAD 0xFFFFFFF7u
#define EXFAT_END 0xFFFFFFFFu

enum exfat_flags { /* 3.1.13 */
                   EXFAT_SECOND_FAT = 1 << 0,
                   EXFAT_DIRTY = 1 << 1,
                   EXFAT_MEDIA_FAILURE = 1 << 2,
};

struct exfat_layout {
    uint32_t sector_size, cluster_size;  /* bytes */
    uint8_t sector_shift, cluster_shift; /* of bytes */
    uint64_t size;                       /* bytes of the volume */
    uint64_t partition;                  /* sectors before it on its disk, as it says */
    uint64_t fat, fat_size;              /* of the active table: bytes */
    uint64_t heap;                       /* bytes */
    uint32_t clusters;
    uint32_t root; /* its first cluster */
    uint32_t serial;
    uint16_t flags;
    uint8_t fats;   /* 1, or 2: TexFAT */
    bool of_backup; /* the main boot region is broken */
};

/* Whether this is an exFAT volume's first sector, as far as its name goes. */
bool exfat_probe(const uint8_t *sector, size_t size);

/* Reads and checks the boot region: the backup where the main one is broken. -EUCLEAN: both are, or
 * what they say cannot be. */
int exfat_layout_read(struct medium *medium, struct exfat_layout *ret_layout, struct error *err);

/* Writes both boot regions: within an update. */
int exfat_layout_write(struct medium *medium, const struct exfat_layout *layout, struct error *err);

/* Writes the flags, and how full the volume is in percent, which no checksum covers: within an
 * update. */
int exfat_write_flags(struct medium *medium, const struct exfat_layout *layout, uint16_t flags,
                      uint8_t percent, struct error *err);

static inline bool exfat_is_cluster(const struct exfat_layout *layout, uint32_t cluster)
{
    return cluster >= EXFAT_FIRST_CLUSTER && cluster - EXFAT_FIRST_CLUSTER < layout->clusters;
}

/* Bytes of the medium; the cluster is one. */
static inline uint64_t exfat_offset(const struct exfat_layout *layout, uint32_t cluster)
{
    return layout->heap + ((uint64_t)(cluster - EXFAT_FIRST_CLUSTER) << layout->cluster_shift);
}

/* The table's word for a cluster. */
int exfat_next(struct medium *medium, const struct exfat_layout *layout, uint32_t cluster,
               uint32_t *ret_next, struct error *err);
int exfat_set_next(struct medium *medium, const struct exfat_layout *layout, uint32_t cluster,
                   uint32_t next, struct error *err);

#endif
