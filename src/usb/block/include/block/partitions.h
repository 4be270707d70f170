/*
 * What parts a disk has: a GUID partition table (UEFI specification 2.10, chapter 5), a PC's master
 * boot record with logical partitions, or none: then the whole disk may be one volume.
 *
 * Every number is hostile. A partition is told only if it is within the disk; the chain of logical
 * ones is followed as far as PARTITIONS_MAX; nothing is ever written.
 */
#ifndef BLOCK_PARTITIONS_H
#define BLOCK_PARTITIONS_H

#include <block/device.h>

enum { PARTITIONS_MAX = 64 };

enum partition_table { PARTITIONS_NONE, PARTITIONS_MBR, PARTITIONS_GPT };

struct partition {
    unsigned
        number; /* as Linux counts: 1 to 4 primary, from 5 on logical; GPT: the entry's, from 1 */
    uint64_t first, count; /* sectors */
    uint8_t mbr_type;      /* 0 with GPT */
    uint8_t guid[16];      /* the type, as on disk; zeros with MBR */
    char name[109];        /* of GPT: 36 units of UTF-16, printable UTF-8; else "" */
};

struct partitions {
    enum partition_table table;
    bool of_backup;   /* the first GUID table is broken, and what is told is of the second */
    unsigned skipped; /* entries that cannot be: outside of the disk, or beyond PARTITIONS_MAX;
                         logical tables that cannot be read */
    size_t count;
    struct partition partitions[PARTITIONS_MAX];
};

/* is_volume: whether a first sector is that of a file system, which on a disk without a table has
 * bytes where partitions would be. Errors of the device only. */
int partitions_read(struct block_device *device,
                    bool (*is_volume)(const uint8_t *sector, size_t size),
                    struct partitions *ret_partitions, struct error *err);

#endif
