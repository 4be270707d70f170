/* The boot sector, as Microsoft's FAT specification has it (2004): everything is compared with what
 * it may be and with the medium before it is used. */
#include "fat_layout.h"

#include <errno.h>
#include <string.h>

#include <block/bytes.h>

enum { TABLES_MOST = 4 };

static bool is_power(uint32_t value, uint32_t low, uint32_t high)
{
    return value >= low && value <= high && (value & (value - 1)) == 0;
}

static bool is_media(uint8_t media)
{
    return media == 0xF0 || media >= 0xF8;
}

bool fat_probe(const uint8_t *sector, size_t size)
{
    if (size < BOOT_SIZE)
        return false;
    uint32_t sector_size = get_le16(sector + BOOT_SECTOR_SIZE);
    return is_power(sector_size, 512, 4096) &&
           is_power(sector[BOOT_CLUSTER_SECTORS], 1, FAT_CLUSTER_SECTORS_MOST) &&
           get_le16(sector + BOOT_RESERVED) > 0 && sector[BOOT_TABLES] > 0 &&
           sector[BOOT_TABLES] <= TABLES_MOST && is_media(sector[BOOT_MEDIA]);
}

static int impossible(struct error *err, const char *what)
{
    return error_set(err, -EUCLEAN, "boot sector: %s", what);
}

/* What follows the common part: the number of the volume, its label, whether it is dirty. */
static void read_extension(const uint8_t *sector, struct fat_layout *layout)
{
    uint32_t at = layout->kind == VOLUME_FAT32 ? BOOT_FLAGS_32 : BOOT_FLAGS_16;
    const uint8_t *extension = sector + at;
    layout->flags_offset = at;
    memset(layout->label, ' ', sizeof(layout->label));
    layout->dirty = extension[0] & 1;
    if (extension[1] == 0x28 || extension[1] == 0x29)
        layout->id = get_le32(extension + 2);
    if (extension[1] == 0x29) {
        layout->label_offset = at + 6;
        memcpy(layout->label, extension + 6, sizeof(layout->label));
    }
}

static int read_fat32(const uint8_t *sector, uint32_t reserved, struct fat_layout *layout,
                      struct error *err)
{
    uint16_t flags = get_le16(sector + BOOT_EXTENDED_FLAGS);
    uint32_t info = get_le16(sector + BOOT_INFO), backup = get_le16(sector + BOOT_BACKUP);
    if (get_le16(sector + BOOT_VERSION) != 0)
        return impossible(err, "a version of FAT32 that is not known");
    layout->mirrored = !(flags & 0x80);
    layout->active = layout->mirrored ? 0 : flags & 15;
    if (layout->active >= layout->tables)
        return impossible(err, "the active table is none of its tables");
    layout->root_cluster = get_le32(sector + BOOT_ROOT_CLUSTER);
    if (!fat_is_cluster(layout, layout->root_cluster))
        return impossible(err, "the root folder's cluster is beyond the end");
    if (info > 0 && info < reserved)
        layout->info_offset = (uint64_t)info * layout->sector_size;
    if (backup > 0 && backup < reserved && backup != info)
        layout->backup_offset = (uint64_t)backup * layout->sector_size;
    return 0;
}

/* The kind is that of the number of clusters, but for a table whose size FAT32 alone can tell:
 * others make small volumes like that, too. */
static int find_kind(bool is_fat32, struct fat_layout *layout, struct error *err)
{
    if (layout->clusters == 0)
        return impossible(err, "there are no clusters");
    if (is_fat32)
        layout->kind = VOLUME_FAT32;
    else
        layout->kind = layout->clusters <= FAT12_CLUSTERS_MOST ? VOLUME_FAT12 : VOLUME_FAT16;
    if (layout->clusters > (is_fat32 ? FAT32_CLUSTERS_MOST : FAT16_CLUSTERS_MOST))
        return impossible(err, "more clusters than the kind can have");
    unsigned bits = layout->kind == VOLUME_FAT12 ? 12 : layout->kind == VOLUME_FAT16 ? 16 : 32;
    if (layout->table_size * 8 / bits < (uint64_t)layout->clusters + FAT_FIRST)
        return impossible(err, "its table is too small for its clusters");
    return 0;
}

static int read_common(const uint8_t *sector, uint64_t medium_size, struct fat_layout *layout,
                       struct error *err)
{
    uint32_t sector_size = get_le16(sector + BOOT_SECTOR_SIZE);
    uint64_t sectors = get_le16(sector + BOOT_SECTORS_16);
    uint64_t table = get_le16(sector + BOOT_TABLE_SECTORS_16);
    bool is_fat32 = table == 0;
    layout->sector_size = sector_size;
    layout->cluster_size = sector[BOOT_CLUSTER_SECTORS] * sector_size;
    if (layout->cluster_size > FAT_CLUSTER_MOST)
        return impossible(err, "clusters of more than 256 KiB");
    if (sectors == 0)
        sectors = get_le32(sector + BOOT_SECTORS_32);
    if (is_fat32)
        table = get_le32(sector + BOOT_TABLE_SECTORS_32);
    uint32_t reserved = get_le16(sector + BOOT_RESERVED);
    layout->media = sector[BOOT_MEDIA];
    layout->tables = sector[BOOT_TABLES];
    layout->mirrored = true;
    layout->size = sectors * sector_size;
    layout->table_offset = (uint64_t)reserved * sector_size;
    layout->table_size = table * sector_size;
    layout->root_offset = layout->table_offset + layout->tables * layout->table_size;
    layout->root_slots = get_le16(sector + BOOT_ROOT_SLOTS);
    if (is_fat32 != (layout->root_slots == 0))
        return impossible(err, "the root folder's size is not one of its kind");
    uint64_t root = (uint64_t)layout->root_slots * FAT_ENTRY;
    layout->data_offset =
        layout->root_offset + (root + sector_size - 1) / sector_size * sector_size;
    if (layout->size > medium_size)
        return impossible(err, "the volume is larger than its medium");
    if (layout->data_offset >= layout->size)
        return impossible(err, "its tables are beyond the end");
    uint64_t clusters = (layout->size - layout->data_offset) / layout->cluster_size;
    layout->clusters = clusters > UINT32_MAX ? UINT32_MAX : (uint32_t)clusters;
    int r = find_kind(is_fat32, layout, err);
    return r == 0 && is_fat32 ? read_fat32(sector, reserved, layout, err) : r;
}

int fat_layout_read(const uint8_t *sector, uint64_t medium_size, struct fat_layout *ret,
                    struct error *err)
{
    struct fat_layout layout = {0};
    if (!fat_probe(sector, BOOT_SIZE))
        return impossible(err, "it is none of FAT");
    int r = read_common(sector, medium_size, &layout, err);
    if (r != 0)
        return r;
    read_extension(sector, &layout);
    *ret = layout;
    return 0;
}

void fat_info_make(uint32_t free, uint32_t next, uint8_t ret[static BOOT_SIZE])
{
    memset(ret, 0, BOOT_SIZE);
    put_le32(ret, INFO_LEAD);
    put_le32(ret + INFO_AT, INFO_MAGIC);
    put_le32(ret + INFO_AT + 4, free);
    put_le32(ret + INFO_AT + 8, next);
    put_le16(ret + BOOT_SIGNATURE, 0xAA55);
}
