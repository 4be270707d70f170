/* Where fields of FAT's first sectors are, and their limits: what reading, formatting and checking
 * share. Source of every rule: Microsoft's FAT specification (2004). */
#ifndef FILES_FAT_LAYOUT_H
#define FILES_FAT_LAYOUT_H

#include "fat.h"

enum {
    BOOT_SIZE = 512, /* bytes of a boot sector that say something, whatever its size */
    BOOT_SECTOR_SIZE = 11,
    BOOT_CLUSTER_SECTORS = 13,
    BOOT_RESERVED = 14,
    BOOT_TABLES = 16,
    BOOT_ROOT_SLOTS = 17,
    BOOT_SECTORS_16 = 19,
    BOOT_MEDIA = 21,
    BOOT_TABLE_SECTORS_16 = 22,
    BOOT_TRACK = 24,
    BOOT_HEADS = 26,
    BOOT_HIDDEN = 28,
    BOOT_SECTORS_32 = 32,
    BOOT_TABLE_SECTORS_32 = 36,
    BOOT_EXTENDED_FLAGS = 40,
    BOOT_VERSION = 42,
    BOOT_ROOT_CLUSTER = 44,
    BOOT_INFO = 48,
    BOOT_BACKUP = 50,
    BOOT_FLAGS_16 = 37,
    BOOT_FLAGS_32 = 65,
    BOOT_SIGNATURE = 510,

    FAT_INFO_SECTOR = 1, /* where FAT32 usually has them */
    FAT_BACKUP_SECTOR = 6,

    INFO_LEAD = 0x41615252,
    INFO_MAGIC = 0x61417272,
    INFO_AT = 484, /* the magic; then the free clusters, and where to look for one */

    FAT_CLUSTER_SECTORS_MOST = 128,
    FAT_CLUSTER_MOST = 256 << 10,  /* bytes that we read */
    CLUSTER_USUAL_MOST = 32 << 10, /* ... and that every system does */
    FAT12_CLUSTERS_MOST = 4084,
    FAT16_CLUSTERS_MOST = 65524,
    FAT32_CLUSTERS_MOST = 0x0FFFFFF5,
};

/* The sector that says how many clusters are free. */
void fat_info_make(uint32_t free, uint32_t next, uint8_t ret[static BOOT_SIZE]);

#endif
