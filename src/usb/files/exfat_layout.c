#include "exfat_layout.h"

#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

/* Table 4: bytes of the main boot sector. */
enum {
    JUMP = 0,
    NAME = 3,
    MUST_BE_ZERO = 11, /* 53 bytes, where FAT has its geometry */
    PARTITION_OFFSET = 64,
    VOLUME_LENGTH = 72,
    FAT_OFFSET = 80,
    FAT_LENGTH = 84,
    HEAP_OFFSET = 88,
    CLUSTER_COUNT = 92,
    ROOT_CLUSTER = 96,
    SERIAL = 100,
    REVISION = 104,
    FLAGS = 106,
    SECTOR_SHIFT = 108,
    CLUSTER_SHIFT = 109, /* sectors of a cluster */
    FAT_COUNT = 110,
    DRIVE = 111,
    PERCENT = 112,
    SIGNATURE = 510,

    EXTENDED_FIRST = 1, /* extended boot sectors */
    EXTENDED_LAST = 8,
    CHECKSUM_SECTOR = 11,
    FAT_OFFSET_LEAST = 24,   /* sectors: behind both boot regions */
    CLUSTER_SHIFT_MOST = 25, /* of bytes: 32 MiB */
    SECTOR_MOST = 4096,
};
#define EXTENDED_SIGNATURE 0xAA550000u

bool exfat_probe(const uint8_t *sector, size_t size)
{
    return size >= 512 && memcmp(sector + NAME, "EXFAT   ", 8) == 0 && sector[SIGNATURE] == 0x55 &&
           sector[SIGNATURE + 1] == 0xAA;
}

static uint32_t add_to_sum(uint32_t sum, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum = (sum << 31 | sum >> 1) + bytes[i];
    return sum;
}

/* 3.4, figure 1: without the bytes that change while the volume is in use. */
static uint32_t region_sum(const uint8_t *region, size_t sector_size)
{
    uint32_t sum = add_to_sum(0, region, FLAGS);
    sum = add_to_sum(sum, region + FLAGS + 2, PERCENT - (FLAGS + 2));
    return add_to_sum(sum, region + PERCENT + 1, CHECKSUM_SECTOR * sector_size - (PERCENT + 1));
}

static int damaged(struct error *err, const char *what)
{
    return error_set(err, -EUCLEAN, "exFAT boot sector: %s", what);
}

static int check_shifts(const uint8_t *sector, struct error *err)
{
    static const uint8_t zeros[53];
    if (memcmp(sector + MUST_BE_ZERO, zeros, sizeof(zeros)) != 0)
        return damaged(err, "bytes that are to be zeros are not");
    if (sector[SECTOR_SHIFT] < 9 || sector[SECTOR_SHIFT] > 12)
        return damaged(err, "no size of a sector");
    if (sector[CLUSTER_SHIFT] > CLUSTER_SHIFT_MOST - sector[SECTOR_SHIFT])
        return damaged(err, "no size of a cluster");
    if (sector[FAT_COUNT] != 1 && sector[FAT_COUNT] != 2)
        return damaged(err, "neither one table nor two");
    if (get_le16(sector + REVISION) >> 8 != 1)
        return error_set(err, -EOPNOTSUPP, "exFAT revision %u.%02u", sector[REVISION + 1],
                         sector[REVISION]);
    return 0;
}

/* 3.1.3 to 3.1.10, in sectors: no sum of these can overflow 64 bits. */
static int check_places(const uint8_t *sector, uint64_t medium_size, struct error *err)
{
    uint64_t length = get_le64(sector + VOLUME_LENGTH), fat = get_le32(sector + FAT_OFFSET);
    uint64_t fat_length = get_le32(sector + FAT_LENGTH), heap = get_le32(sector + HEAP_OFFSET);
    uint64_t clusters = get_le32(sector + CLUSTER_COUNT), root = get_le32(sector + ROOT_CLUSTER);
    uint8_t shift = sector[SECTOR_SHIFT];
    if (length > medium_size >> shift)
        return damaged(err, "the volume is larger than what it is on");
    if (fat < FAT_OFFSET_LEAST || fat + fat_length * sector[FAT_COUNT] > heap)
        return damaged(err, "the table has no place");
    if (clusters == 0 || clusters > EXFAT_CLUSTERS_MOST ||
        fat_length << shift < (clusters + EXFAT_FIRST_CLUSTER) * 4)
        return damaged(err, "the table is too small for the clusters");
    if (heap > length || clusters > (length - heap) >> sector[CLUSTER_SHIFT])
        return damaged(err, "the clusters are beyond the volume's end");
    if (root < EXFAT_FIRST_CLUSTER || root - EXFAT_FIRST_CLUSTER >= clusters)
        return damaged(err, "the root folder is no cluster");
    return 0;
}

static void take_over(const uint8_t *sector, struct exfat_layout *layout)
{
    uint8_t shift = sector[SECTOR_SHIFT];
    *layout = (struct exfat_layout){
        .sector_size = 1u << shift,
        .cluster_size = 1u << (shift + sector[CLUSTER_SHIFT]),
        .sector_shift = shift,
        .cluster_shift = (uint8_t)(shift + sector[CLUSTER_SHIFT]),
        .size = get_le64(sector + VOLUME_LENGTH) << shift,
        .partition = get_le64(sector + PARTITION_OFFSET),
        .fat = (uint64_t)get_le32(sector + FAT_OFFSET) << shift,
        .fat_size = (uint64_t)get_le32(sector + FAT_LENGTH) << shift,
        .heap = (uint64_t)get_le32(sector + HEAP_OFFSET) << shift,
        .clusters = get_le32(sector + CLUSTER_COUNT),
        .root = get_le32(sector + ROOT_CLUSTER),
        .serial = get_le32(sector + SERIAL),
        .flags = get_le16(sector + FLAGS),
        .fats = sector[FAT_COUNT],
    };
    if (layout->fats == 2 && layout->flags & EXFAT_SECOND_FAT)
        layout->fat += layout->fat_size;
}

/* One of the boot regions, whose first sector is `first`. The sector size is known from the sector
 * itself. */
static int read_region(struct medium *medium, uint64_t at, uint32_t size, uint8_t *region,
                       struct exfat_layout *ret_layout, struct error *err)
{
    int r = medium_read(medium, at, region, (size_t)size * EXFAT_BOOT_SECTORS, err);
    if (r != 0)
        return r;
    if (!exfat_probe(region, size))
        return damaged(err, "it is none");
    r = check_shifts(region, err);
    if (r == 0 && 1u << region[SECTOR_SHIFT] != size)
        r = damaged(err, "it is not where its size of a sector says");
    if (r == 0)
        r = check_places(region, medium_size(medium), err);
    if (r != 0)
        return r;
    uint32_t sum = region_sum(region, size);
    for (uint32_t i = 0; i < size; i += 4)
        if (get_le32(region + (size_t)CHECKSUM_SECTOR * size + i) != sum)
            return damaged(err, "the checksum is wrong");
    take_over(region, ret_layout);
    return 0;
}

/* The main region is at 0; where its backup is depends on the size of a sector. */
int exfat_layout_read(struct medium *medium, struct exfat_layout *ret_layout, struct error *err)
{
    uint8_t first[512];
    int r = medium_read(medium, 0, first, sizeof(first), err);
    if (r != 0)
        return r;
    uint8_t *region = xmalloc(SECTOR_MOST * EXFAT_BOOT_SECTORS);
    uint8_t shift = first[SECTOR_SHIFT];
    uint32_t size = shift >= 9 && shift <= 12 ? 1u << shift : medium_sector_size(medium);
    r = read_region(medium, 0, size, region, ret_layout, err);
    if (r == -EUCLEAN && read_region(medium, (uint64_t)size * EXFAT_BOOT_SECTORS, size, region,
                                     ret_layout, NULL) == 0) {
        ret_layout->of_backup = true;
        r = 0;
    }
    free(region);
    return r;
}

static void make_boot_sector(const struct exfat_layout *layout, uint8_t *sector)
{
    uint8_t shift = layout->sector_shift;
    memset(sector, 0, layout->sector_size);
    memcpy(sector + JUMP, "\xEB\x76\x90", 3);
    memcpy(sector + NAME, "EXFAT   ", 8);
    put_le64(sector + PARTITION_OFFSET, layout->partition);
    put_le64(sector + VOLUME_LENGTH, layout->size >> shift);
    put_le32(sector + FAT_OFFSET, (uint32_t)(layout->fat >> shift));
    put_le32(sector + FAT_LENGTH, (uint32_t)(layout->fat_size >> shift));
    put_le32(sector + HEAP_OFFSET, (uint32_t)(layout->heap >> shift));
    put_le32(sector + CLUSTER_COUNT, layout->clusters);
    put_le32(sector + ROOT_CLUSTER, layout->root);
    put_le32(sector + SERIAL, layout->serial);
    put_le16(sector + REVISION, 0x0100);
    put_le16(sector + FLAGS, layout->flags);
    sector[SECTOR_SHIFT] = shift;
    sector[CLUSTER_SHIFT] = (uint8_t)(layout->cluster_shift - shift);
    sector[FAT_COUNT] = layout->fats;
    sector[DRIVE] = 0x80;
    memset(sector + 120, 0xF4, 390); /* boot code: halt, as 3.1.19 advises */
    sector[SIGNATURE] = 0x55;
    sector[SIGNATURE + 1] = 0xAA;
}

int exfat_layout_write(struct medium *medium, const struct exfat_layout *layout, struct error *err)
{
    uint32_t size = layout->sector_size;
    size_t region_size = (size_t)size * EXFAT_BOOT_SECTORS;
    uint8_t *region = xcalloc(EXFAT_BOOT_SECTORS, size);
    make_boot_sector(layout, region);
    for (uint32_t i = EXTENDED_FIRST; i <= EXTENDED_LAST; i++)
        put_le32(region + (size_t)(i + 1) * size - 4, EXTENDED_SIGNATURE);
    uint32_t sum = region_sum(region, size);
    for (uint32_t i = 0; i < size; i += 4)
        put_le32(region + (size_t)CHECKSUM_SECTOR * size + i, sum);
    int r = medium_write(medium, 0, region, region_size, err);
    if (r == 0)
        r = medium_write(medium, region_size, region, region_size, err);
    free(region);
    return r;
}

int exfat_write_flags(struct medium *medium, const struct exfat_layout *layout, uint16_t flags,
                      uint8_t percent, struct error *err)
{
    uint8_t bytes[2];
    put_le16(bytes, flags);
    int r = medium_write(medium, FLAGS, bytes, sizeof(bytes), err);
    return r == 0 ? medium_write(medium, PERCENT, &percent, 1, err) : r;
}

int exfat_next(struct medium *medium, const struct exfat_layout *layout, uint32_t cluster,
               uint32_t *ret_next, struct error *err)
{
    uint8_t word[4];
    int r = medium_read(medium, layout->fat + (uint64_t)cluster * 4, word, sizeof(word), err);
    if (r == 0)
        *ret_next = get_le32(word);
    return r;
}

int exfat_set_next(struct medium *medium, const struct exfat_layout *layout, uint32_t cluster,
                   uint32_t next, struct error *err)
{
    uint8_t word[4];
    put_le32(word, next);
    return medium_write(medium, layout->fat + (uint64_t)cluster * 4, word, sizeof(word), err);
}
