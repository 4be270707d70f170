/*
 * In order of the medium: boot regions, the table, and in the clusters the bitmap, the up-case
 * table and the root folder. Table and clusters begin at multiples of ALIGNMENT, which flash likes.
 *
 * The boot sector is written last: until then the medium has no file system.
 */
#include "exfat_format.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <base/alloc.h>
#include <block/bytes.h>

#include "discards.h"
#include "exfat_layout.h"
#include "exfat_set.h"
#include "exfat_upcase.h"
#include "steps.h"
#include "utf16.h"

enum {
    SIZE_LEAST = 1 << 20, /* 3.1.4: 2^20 bytes */
    ALIGNMENT = 1 << 20,
    ALIGNMENT_SMALL = 4096, /* of volumes up to SMALL bytes */
    SMALL = 64 << 20,
    CLUSTER_MOST = 32 << 20,
    SECTORS_OF_UPDATE = 64,
    ZEROED_AT_ONCE = 1 << 20, /* bytes: what is cancelled ends soon */
    LABEL_UNITS = 11,
};

struct formatting {
    struct medium *medium;
    struct steps steps; /* bytes that are zeroed */
    struct exfat_layout layout;
    uint8_t *upcase;
    size_t upcase_size;
    uint32_t bitmap_clusters, upcase_clusters;
    uint16_t label[LABEL_UNITS];
    unsigned label_length;
};

/* As Windows chooses: 4 KiB up to 256 MiB, 32 KiB up to 32 GiB, 128 KiB beyond. */
static uint32_t usual_cluster(uint64_t size)
{
    return size <= (uint64_t)256 << 20  ? 4 << 10
           : size <= (uint64_t)32 << 30 ? 32 << 10
                                        : 128 << 10;
}

static uint64_t up_to(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static uint8_t shift_of(uint32_t power)
{
    return (uint8_t)__builtin_ctz(power);
}

static uint32_t clusters_for(const struct exfat_layout *layout, uint64_t bytes)
{
    return (uint32_t)((bytes + layout->cluster_size - 1) >> layout->cluster_shift);
}

static int choose_cluster(const struct format_options *options, uint64_t size, uint32_t sector_size,
                          uint32_t *ret_cluster, struct error *err)
{
    uint32_t cluster = options->cluster_size ? options->cluster_size : usual_cluster(size);
    if (cluster < sector_size || cluster > CLUSTER_MOST || (cluster & (cluster - 1)))
        return error_set(err, -EINVAL, "no cluster size: %u (a power of two from %u to %u)",
                         cluster, sector_size, CLUSTER_MOST);
    while (size / cluster > EXFAT_CLUSTERS_MOST && !options->cluster_size && cluster < CLUSTER_MOST)
        cluster *= 2;
    *ret_cluster = cluster;
    return 0;
}

/* The table is as large as there would be clusters without it, which is a little more than needed.
 */
static int lay_out(struct formatting *work, const struct format_options *options, struct error *err)
{
    struct exfat_layout *layout = &work->layout;
    uint64_t size = medium_size(work->medium);
    uint32_t sector_size = medium_sector_size(work->medium), cluster = 0;
    uint64_t alignment = size > SMALL ? ALIGNMENT : ALIGNMENT_SMALL;
    if (size < SIZE_LEAST)
        return error_set(err, -EINVAL, "exFAT needs at least 1 MiB");
    int r = choose_cluster(options, size, sector_size, &cluster, err);
    if (r != 0)
        return r;
    alignment = alignment < sector_size ? sector_size : alignment;
    uint64_t fat = up_to((uint64_t)2 * EXFAT_BOOT_SECTORS * sector_size, alignment);
    uint64_t fat_size = up_to((size / cluster + EXFAT_FIRST_CLUSTER) * 4, sector_size);
    uint64_t heap = up_to(fat + fat_size, alignment);
    if (heap >= size || (size - heap) / cluster > EXFAT_CLUSTERS_MOST ||
        heap / sector_size > UINT32_MAX)
        return error_set(err, -EINVAL, "clusters of %u bytes do not fit a volume of %llu", cluster,
                         (unsigned long long)size);
    *layout = (struct exfat_layout){
        .sector_size = sector_size,
        .cluster_size = cluster,
        .sector_shift = shift_of(sector_size),
        .cluster_shift = shift_of(cluster),
        .size = size,
        .partition = options->hidden,
        .fat = fat,
        .fat_size = fat_size,
        .heap = heap,
        .clusters = (uint32_t)((size - heap) / cluster),
        .serial = options->id,
        .fats = 1,
    };
    if (!options->id && getrandom(&layout->serial, sizeof(layout->serial), 0) < 0)
        return error_errno(err, errno, "a serial number by chance");
    work->bitmap_clusters = clusters_for(layout, (layout->clusters + 7) / 8);
    work->upcase_clusters = clusters_for(layout, work->upcase_size);
    layout->root = EXFAT_FIRST_CLUSTER + work->bitmap_clusters + work->upcase_clusters;
    if (!exfat_is_cluster(layout, layout->root))
        return error_set(err, -EINVAL, "the volume is too small for clusters of %u bytes", cluster);
    return 0;
}

/* Metadata in updates that are not too large. */
static int write_bytes(struct formatting *work, uint64_t offset, const uint8_t *data, size_t size,
                       struct error *err)
{
    uint32_t sector_size = work->layout.sector_size;
    size_t most = (size_t)SECTORS_OF_UPDATE * sector_size;
    int r = 0;
    for (size_t done = 0, part; r == 0 && done < size; done += part) {
        part = size - done < most ? size - done : most;
        r = medium_begin(work->medium, SECTORS_OF_UPDATE + 1, err);
        if (r != 0)
            break;
        r = medium_write(work->medium, offset + done, data + done, part, err);
        medium_end(work->medium);
    }
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

/* A chain of clusters that follow one another, in the table; entries 0 and 1 are the media's
 * (4.1.1). */
static int write_fat(struct formatting *work, struct error *err)
{
    const struct exfat_layout *layout = &work->layout;
    uint32_t count = layout->root + 1;
    uint8_t *words = xcalloc(count, 4);
    put_le32(words, 0xFFFFFFF8);
    put_le32(words + 4, EXFAT_END);
    for (uint32_t cluster = EXFAT_FIRST_CLUSTER; cluster < count; cluster++) {
        bool last = cluster == EXFAT_FIRST_CLUSTER + work->bitmap_clusters - 1 ||
                    cluster == layout->root - 1 || cluster == layout->root;
        put_le32(words + (size_t)cluster * 4, last ? EXFAT_END : cluster + 1);
    }
    int r = zero(work, layout->fat, layout->fat_size, err);
    if (r == 0)
        r = write_bytes(work, layout->fat, words, (size_t)count * 4, err);
    free(words);
    return r;
}

static int write_bitmap(struct formatting *work, struct error *err)
{
    const struct exfat_layout *layout = &work->layout;
    uint32_t used = layout->root + 1 - EXFAT_FIRST_CLUSTER;
    size_t size = (used + 7) / 8;
    uint64_t offset = exfat_offset(layout, EXFAT_FIRST_CLUSTER);
    uint8_t *bits = xcalloc(1, size);
    for (uint32_t i = 0; i < used; i++)
        bits[i / 8] |= (uint8_t)(1 << i % 8);
    int r = zero(work, offset, (uint64_t)work->bitmap_clusters << layout->cluster_shift, err);
    if (r == 0)
        r = write_bytes(work, offset, bits, size, err);
    free(bits);
    return r;
}

static int write_upcase(struct formatting *work, struct error *err)
{
    const struct exfat_layout *layout = &work->layout;
    uint64_t offset = exfat_offset(layout, EXFAT_FIRST_CLUSTER + work->bitmap_clusters);
    int r = zero(work, offset, (uint64_t)work->upcase_clusters << layout->cluster_shift, err);
    return r == 0 ? write_bytes(work, offset, work->upcase, work->upcase_size, err) : r;
}

/* 7.3, 7.1, 7.2: what the root folder begins with. */
static int write_root(struct formatting *work, struct error *err)
{
    const struct exfat_layout *layout = &work->layout;
    uint64_t offset = exfat_offset(layout, layout->root);
    uint8_t entries[3 * EXFAT_ENTRY] = {0};
    uint8_t *label = entries, *bitmap = entries + EXFAT_ENTRY, *upcase = entries + 2 * EXFAT_ENTRY;
    label[0] = work->label_length ? EXFAT_LABEL : EXFAT_LABEL & ~EXFAT_IN_USE;
    label[1] = (uint8_t)work->label_length;
    for (unsigned i = 0; i < work->label_length; i++)
        put_le16(label + 2 + i * 2, work->label[i]);
    bitmap[0] = EXFAT_BITMAP;
    put_le32(bitmap + 20, EXFAT_FIRST_CLUSTER);
    put_le64(bitmap + 24, (layout->clusters + 7) / 8);
    upcase[0] = EXFAT_UPCASE;
    put_le32(upcase + 4, exfat_upcase_sum(work->upcase, work->upcase_size));
    put_le32(upcase + 20, EXFAT_FIRST_CLUSTER + work->bitmap_clusters);
    put_le64(upcase + 24, work->upcase_size);
    int r = zero(work, offset, layout->cluster_size, err);
    return r == 0 ? write_bytes(work, offset, entries, sizeof(entries), err) : r;
}

static uint64_t boots_of(const struct exfat_layout *layout)
{
    return (uint64_t)2 * EXFAT_BOOT_SECTORS * layout->sector_size;
}

/* What was there before is no volume any more, of any kind: neither its first sectors nor the
 * backup of FAT32. */
static int wipe(struct formatting *work, struct error *err)
{
    int r = zero(work, 0, boots_of(&work->layout), err);
    return r == 0 ? medium_sync(work->medium, err) : r;
}

static int write_boot(struct formatting *work, struct error *err)
{
    int r = medium_begin(work->medium, 2 * EXFAT_BOOT_SECTORS, err);
    if (r != 0)
        return r;
    r = exfat_layout_write(work->medium, &work->layout, err);
    medium_end(work->medium);
    return r == 0 ? medium_settle(work->medium, err) : r;
}

static int format(struct formatting *work, struct error *err)
{
    uint32_t clusters = work->bitmap_clusters + work->upcase_clusters + 1; /* of the root folder */
    work->steps.total = boots_of(&work->layout) + work->layout.fat_size +
                        ((uint64_t)clusters << work->layout.cluster_shift);
    int r = wipe(work, err);
    if (r == 0)
        r = discards_of_format(work->medium, boots_of(&work->layout), &work->steps, err);
    if (r == 0)
        r = write_fat(work, err);
    if (r == 0)
        r = write_bitmap(work, err);
    if (r == 0)
        r = write_upcase(work, err);
    if (r == 0)
        r = write_root(work, err);
    if (r == 0)
        r = medium_settle(work->medium, err);
    return r == 0 ? write_boot(work, err) : r;
}

int exfat_format(struct medium *medium, const struct format_options *options, struct error *err)
{
    struct formatting work = {
        .medium = medium,
        .steps = {.progress = options->progress, .data = options->data},
    };
    int length = options->label ? utf16_from_utf8(options->label, work.label, LABEL_UNITS) : 0;
    if (length < 0)
        return error_set(err, -EINVAL, "no label of an exFAT volume: at most %d letters",
                         LABEL_UNITS);
    work.label_length = (unsigned)length;
    work.upcase = exfat_upcase_packed(&work.upcase_size);
    int r = lay_out(&work, options, err);
    if (r == 0)
        r = format(&work, err);
    free(work.upcase);
    return r;
}
