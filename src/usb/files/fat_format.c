/*
 * In order of the medium: reserved sectors (boot sector, of FAT32 its information and both once
 * more), two tables, the root folder of FAT12 and FAT16, and clusters, which begin at a multiple of
 * their size: the reserved sectors are as many as that takes.
 *
 * The boot sector is written last: until then the medium has no file system.
 */
#include "fat_format.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <block/bytes.h>

#include "discards.h"
#include "fat_layout.h"
#include "steps.h"

enum {
    RESERVED_32 = 32, /* where FAT32's boot sectors and their copies are */
    TABLES = 2,
    ROOT_SLOTS = 512,
    ROOT_SLOTS_FLOPPY = 224,
    FLOPPY = 2880 << 10, /* bytes */
    EXFAT_BOOTS = 24,    /* sectors where exFAT keeps both of its boot regions */
    SECTORS_OF_UPDATE = 64,
    ZEROED_AT_ONCE = 1 << 20, /* bytes: what is cancelled ends soon */
    /* Systems count the limits of the kinds in different ways: nobody comes near (FAT
     * specification, 3.5). */
    MARGIN = 16,
    MEDIA = 0xF8,
    DRIVE = 0x80,
};

struct formatting {
    struct medium *medium;
    struct steps steps; /* bytes that are zeroed */
    struct fat_layout layout;
    uint32_t reserved, hidden; /* sectors */
    uint8_t label[11];
    bool has_label;
};

/* Up to so many bytes of a volume, clusters have so many bytes (FAT specification, 3.5). */
struct usual {
    uint64_t size;
    uint32_t cluster;
};
static const struct usual usual_16[] = {
    {UINT64_C(16) << 20, 1 << 10},  {UINT64_C(128) << 20, 2 << 10}, {UINT64_C(256) << 20, 4 << 10},
    {UINT64_C(512) << 20, 8 << 10}, {UINT64_C(1) << 30, 16 << 10},  {UINT64_MAX, 32 << 10},
};
static const struct usual usual_32[] = {
    {UINT64_C(260) << 20, 512},     {UINT64_C(8) << 30, 4 << 10}, {UINT64_C(16) << 30, 8 << 10},
    {UINT64_C(32) << 30, 16 << 10}, {UINT64_MAX, 32 << 10},
};

static uint64_t up_to(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static unsigned bits_of(enum volume_kind kind)
{
    return kind == VOLUME_FAT12 ? 12 : kind == VOLUME_FAT16 ? 16 : 32;
}

static uint32_t least_of(enum volume_kind kind)
{
    return kind == VOLUME_FAT12   ? 1
           : kind == VOLUME_FAT16 ? FAT12_CLUSTERS_MOST + 1 + MARGIN
                                  : FAT16_CLUSTERS_MOST + 1 + MARGIN;
}

static uint32_t most_of(enum volume_kind kind)
{
    return kind == VOLUME_FAT12   ? FAT12_CLUSTERS_MOST - MARGIN
           : kind == VOLUME_FAT16 ? FAT16_CLUSTERS_MOST - MARGIN
                                  : FAT32_CLUSTERS_MOST;
}

/* Where everything is with clusters of this size. False: there is no room for any. */
static bool lay_out(struct formatting *work, uint32_t cluster)
{
    struct fat_layout *layout = &work->layout;
    uint32_t sector = layout->sector_size;
    uint64_t reserved = layout->kind == VOLUME_FAT32 ? RESERVED_32 : 1;
    uint64_t root = (uint64_t)layout->root_slots * FAT_ENTRY, needed = sector;
    do {
        layout->table_size = needed;
        uint64_t data = up_to(reserved * sector + TABLES * needed + root, cluster);
        if (data >= layout->size)
            return false;
        uint64_t clusters = (layout->size - data) / cluster;
        if (clusters > FAT32_CLUSTERS_MOST)
            clusters = FAT32_CLUSTERS_MOST + 1u;
        layout->data_offset = data;
        layout->clusters = (uint32_t)clusters;
        needed = up_to((clusters + FAT_FIRST) * bits_of(layout->kind), 8u * sector) / 8;
    } while (needed > layout->table_size);
    layout->cluster_size = cluster;
    layout->root_offset = layout->data_offset - root;
    layout->table_offset = layout->root_offset - TABLES * layout->table_size;
    work->reserved = (uint32_t)(layout->table_offset / sector);
    return layout->clusters > 0;
}

static bool fits(const struct formatting *work)
{
    const struct fat_layout *layout = &work->layout;
    return layout->clusters >= least_of(layout->kind) &&
           layout->clusters <= most_of(layout->kind) && work->reserved <= UINT16_MAX;
}

static uint32_t usual_cluster(const struct fat_layout *layout)
{
    const struct usual *at = layout->kind == VOLUME_FAT16 ? usual_16 : usual_32;
    if (layout->kind == VOLUME_FAT12)
        return layout->sector_size;
    while (layout->size > at->size)
        at++;
    return at->cluster < layout->sector_size ? layout->sector_size : at->cluster;
}

static int does_not_fit(const struct formatting *work, uint32_t cluster, struct error *err)
{
    const struct fat_layout *layout = &work->layout;
    const char *kind = volume_kind_name(layout->kind);
    error_set(err, -EINVAL,
              "%s has %u to %u clusters, which a volume of %llu bytes does not with %u bytes each",
              kind, least_of(layout->kind), most_of(layout->kind), (unsigned long long)layout->size,
              cluster);
    error_hint(err, "take another kind%s", cluster ? ", or another size of clusters" : "");
    return -EINVAL;
}

/* The usual size, or what is next to it that makes the right number of clusters. */
static int choose_cluster(struct formatting *work, struct error *err)
{
    uint32_t least = work->layout.sector_size, cluster = usual_cluster(&work->layout);
    uint32_t most = least * FAT_CLUSTER_SECTORS_MOST;
    if (most > CLUSTER_USUAL_MOST)
        most = CLUSTER_USUAL_MOST;
    while (cluster < most &&
           (!lay_out(work, cluster) || work->layout.clusters > most_of(work->layout.kind)))
        cluster *= 2;
    while (cluster > least &&
           (!lay_out(work, cluster) || work->layout.clusters < least_of(work->layout.kind)))
        cluster /= 2;
    return lay_out(work, cluster) && fits(work) ? 0 : does_not_fit(work, cluster, err);
}

static int use_cluster(struct formatting *work, uint32_t cluster, struct error *err)
{
    uint32_t least = work->layout.sector_size, most = least * FAT_CLUSTER_SECTORS_MOST;
    if (most > FAT_CLUSTER_MOST)
        most = FAT_CLUSTER_MOST;
    if (cluster < least || cluster > most || (cluster & (cluster - 1)))
        return error_set(err, -EINVAL, "no cluster size: %u (a power of two from %u to %u)",
                         cluster, least, most);
    return lay_out(work, cluster) && fits(work) ? 0 : does_not_fit(work, cluster, err);
}

static int prepare(struct formatting *work, const struct format_options *options, struct error *err)
{
    uint32_t sector_size = medium_sector_size(work->medium);
    uint64_t size = medium_size(work->medium), sectors = size / sector_size;
    if (sectors > UINT32_MAX || options->hidden > UINT32_MAX)
        return error_set(err, -EINVAL, "%s counts at most %u sectors %s it",
                         volume_kind_name(options->kind), UINT32_MAX,
                         sectors > UINT32_MAX ? "in" : "before");
    uint32_t slots = options->kind == VOLUME_FAT32                     ? 0
                     : options->kind == VOLUME_FAT12 && size <= FLOPPY ? ROOT_SLOTS_FLOPPY
                                                                       : ROOT_SLOTS;
    work->hidden = (uint32_t)options->hidden;
    work->layout = (struct fat_layout){
        .kind = options->kind,
        .sector_size = sector_size,
        .size = sectors * sector_size,
        .root_slots = (uint32_t)(up_to((uint64_t)slots * FAT_ENTRY, sector_size) / FAT_ENTRY),
        .id = options->id,
    };
    if (!options->id && getrandom(&work->layout.id, sizeof(work->layout.id), 0) < 0)
        return error_errno(err, errno, "a serial number by chance");
    work->has_label = options->label && options->label[0];
    int r = fat_label_make(code_page_find("cp437"), work->has_label ? options->label : "NO NAME",
                           work->label, err);
    if (r != 0)
        return r;
    return options->cluster_size ? use_cluster(work, options->cluster_size, err)
                                 : choose_cluster(work, err);
}

/* Writing. */

static int write_bytes(struct formatting *work, uint64_t offset, const uint8_t *data, size_t size,
                       struct error *err)
{
    int r = medium_begin(work->medium, SECTORS_OF_UPDATE, err);
    if (r != 0)
        return r;
    r = medium_write(work->medium, offset, data, size, err);
    if (r == 0)
        medium_end(work->medium);
    else
        medium_abort(work->medium);
    return r;
}

static int zero(struct formatting *work, uint64_t offset, uint64_t size, struct error *err)
{
    int r = 0;
    for (uint64_t done = 0, part; r == 0 && done < size; done += part) {
        part = size - done < ZEROED_AT_ONCE ? size - done : ZEROED_AT_ONCE;
        r = medium_zero_content(work->medium, offset + done, part, err);
        if (r == 0)
            r = steps_take(&work->steps, part, err);
    }
    return r;
}

/* The first sectors, and the copies of them that FAT32 and exFAT keep. */
static uint64_t wiped_of(const struct fat_layout *layout)
{
    uint64_t size = (uint64_t)EXFAT_BOOTS * layout->sector_size;
    if (size < layout->table_offset)
        size = layout->table_offset;
    return size < layout->size ? size : layout->size;
}

/* FAT32's root folder has a cluster of its own. */
static uint64_t root_of(const struct fat_layout *layout)
{
    return layout->kind == VOLUME_FAT32 ? layout->cluster_size
                                        : (uint64_t)layout->root_slots * FAT_ENTRY;
}

/* What was there before is no volume any more, of any kind. */
static int wipe(struct formatting *work, struct error *err)
{
    const struct fat_layout *layout = &work->layout;
    int r = zero(work, 0, wiped_of(layout), err);
    return r == 0 ? medium_sync(work->medium, err) : r;
}

/* Entries 0 and 1 are the media's and the end's, the next one that of FAT32's root folder. */
static int write_tables(struct formatting *work, struct error *err)
{
    const struct fat_layout *layout = &work->layout;
    uint8_t first[12] = {MEDIA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F};
    size_t size = layout->kind == VOLUME_FAT12 ? 3 : layout->kind == VOLUME_FAT16 ? 4 : 12;
    if (layout->kind == VOLUME_FAT32)
        first[3] = first[7] = 0x0F;
    int r = zero(work, layout->table_offset, TABLES * layout->table_size, err);
    for (unsigned table = 0; r == 0 && table < TABLES; table++)
        r = write_bytes(work, layout->table_offset + table * layout->table_size, first, size, err);
    return r;
}

static int write_root(struct formatting *work, struct error *err)
{
    const struct fat_layout *layout = &work->layout;
    bool fixed = layout->kind != VOLUME_FAT32;
    uint64_t offset = fixed ? layout->root_offset : layout->data_offset;
    uint8_t entry[FAT_ENTRY] = {0};
    memcpy(entry, work->label, sizeof(work->label));
    entry[ENTRY_ATTRIBUTES] = FAT_LABEL;
    int r = zero(work, offset, root_of(layout), err);
    return r == 0 && work->has_label ? write_bytes(work, offset, entry, sizeof(entry), err) : r;
}

/* What the kinds have at different places: drive, mark, number, label, name. */
static void put_extension(const struct formatting *work, uint8_t *at, const char *name)
{
    at[0] = DRIVE;
    at[2] = 0x29;
    put_le32(at + 3, work->layout.id);
    memcpy(at + 7, work->label, sizeof(work->label));
    memcpy(at + 18, name, 8);
}

static void make_boot(const struct formatting *work, uint8_t *boot)
{
    const struct fat_layout *layout = &work->layout;
    uint64_t sectors = layout->size / layout->sector_size;
    uint64_t table = layout->table_size / layout->sector_size;
    bool wide = layout->kind == VOLUME_FAT32, few = !wide && sectors <= UINT16_MAX;
    static const uint8_t hang[] = {0xF4, 0xEB, 0xFD}; /* hlt; jmp back */
    boot[0] = 0xEB;
    boot[1] = wide ? 0x58 : 0x3C;
    boot[2] = 0x90;
    memcpy(boot + 3, "MSWIN4.1", 8); /* the name that some systems want (FAT specification, 3.1) */
    put_le16(boot + BOOT_SECTOR_SIZE, (uint16_t)layout->sector_size);
    boot[BOOT_CLUSTER_SECTORS] = (uint8_t)(layout->cluster_size / layout->sector_size);
    put_le16(boot + BOOT_RESERVED, (uint16_t)work->reserved);
    boot[BOOT_TABLES] = TABLES;
    put_le16(boot + BOOT_ROOT_SLOTS, (uint16_t)layout->root_slots);
    put_le16(boot + BOOT_SECTORS_16, few ? (uint16_t)sectors : 0);
    boot[BOOT_MEDIA] = MEDIA;
    put_le16(boot + BOOT_TABLE_SECTORS_16, wide ? 0 : (uint16_t)table);
    put_le16(boot + BOOT_TRACK, 63);
    put_le16(boot + BOOT_HEADS, 255);
    put_le32(boot + BOOT_HIDDEN, work->hidden);
    put_le32(boot + BOOT_SECTORS_32, few ? 0 : (uint32_t)sectors);
    if (wide) {
        put_le32(boot + BOOT_TABLE_SECTORS_32, (uint32_t)table);
        put_le32(boot + BOOT_ROOT_CLUSTER, FAT_FIRST);
        put_le16(boot + BOOT_INFO, FAT_INFO_SECTOR);
        put_le16(boot + BOOT_BACKUP, FAT_BACKUP_SECTOR);
        put_extension(work, boot + BOOT_FLAGS_32 - 1, "FAT32   ");
    } else {
        put_extension(work, boot + BOOT_FLAGS_16 - 1,
                      layout->kind == VOLUME_FAT12 ? "FAT12   " : "FAT16   ");
    }
    memcpy(boot + 2 + boot[1], hang, sizeof(hang));
    put_le16(boot + BOOT_SIGNATURE, 0xAA55);
}

/* FAT32's information sector and its copies; the boot sector itself in one update with its copy. */
static int write_boot(struct formatting *work, struct error *err)
{
    const struct fat_layout *layout = &work->layout;
    struct medium *medium = work->medium;
    uint8_t boot[BOOT_SIZE] = {0}, info[BOOT_SIZE];
    uint64_t backup = (uint64_t)FAT_BACKUP_SECTOR * layout->sector_size;
    bool wide = layout->kind == VOLUME_FAT32;
    make_boot(work, boot);
    fat_info_make(layout->clusters - 1, FAT_FIRST, info);
    int r = medium_begin(medium, 5, err);
    if (r != 0)
        return r;
    for (uint64_t at = layout->sector_size; r == 0 && wide && at <= backup + layout->sector_size;
         at += backup)
        r = medium_write(medium, at, info, sizeof(info), err);
    if (r == 0 && wide)
        r = medium_write(medium, backup, boot, sizeof(boot), err);
    medium_barrier(medium);
    if (r == 0)
        r = medium_write(medium, 0, boot, sizeof(boot), err);
    if (r == 0)
        medium_end(medium);
    else
        medium_abort(medium);
    return r == 0 ? medium_settle(medium, err) : r;
}

int fat_format(struct medium *medium, const struct format_options *options, struct error *err)
{
    struct formatting work = {
        .medium = medium,
        .steps = {.progress = options->progress, .data = options->data},
    };
    int r = prepare(&work, options, err);
    work.steps.total =
        wiped_of(&work.layout) + TABLES * work.layout.table_size + root_of(&work.layout);
    if (r == 0)
        r = wipe(&work, err);
    if (r == 0)
        r = discards_of_format(medium, wiped_of(&work.layout), &work.steps, err);
    if (r == 0)
        r = write_tables(&work, err);
    if (r == 0)
        r = write_root(&work, err);
    if (r == 0)
        r = medium_settle(medium, err);
    return r == 0 ? write_boot(&work, err) : r;
}
