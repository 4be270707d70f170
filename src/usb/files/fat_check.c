/*
 * Every cluster that something leads to is marked once, by a walk from the root folder over all of
 * them; what leads to a cluster that is marked already, or is none, ends there. What the table has
 * beyond the marks is lost, and becomes files.
 *
 * Main flow: boot sector and its copy -> the tables beside each other -> each folder's entries:
 * name, size, chain, ".." -> lost chains -> the number of free clusters -> the dirty marks go.
 */
#include "fat_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

#include "fat_layout.h"

enum {
    CLEAN_16 = 0xC000, /* entry 1: it was unmounted, and no error was met */
    CLEAN_32 = 0x0C000000,
};

static void tell(struct fat_checking *check, bool repaired, const char *format, va_list args)
{
    _cleanup_free_ char *what = xvasprintf(format, args);
    struct finding finding = {.what = what, .repaired = repaired};
    check->left += !repaired;
    check->found(&finding, check->data);
}

bool fat_say(struct fat_checking *check, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    tell(check, check->options.repair, format, args);
    va_end(args);
    return check->options.repair;
}

void fat_say_left(struct fat_checking *check, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    tell(check, false, format, args);
    va_end(args);
}

int fat_repair_begin(struct fat_checking *check, unsigned sectors, struct error *err)
{
    return medium_begin(fat_medium(&check->volume), sectors, err);
}

int fat_repair_end(struct fat_checking *check, int r)
{
    if (r == 0)
        medium_end(fat_medium(&check->volume));
    else
        medium_abort(fat_medium(&check->volume));
    return r;
}

/* Marks. */

bool fat_is_marked(const struct fat_checking *check, uint32_t cluster)
{
    uint32_t bit = cluster - FAT_FIRST;
    return check->marks[bit / 8] & 1 << bit % 8;
}

static void mark(struct fat_checking *check, uint32_t cluster)
{
    uint32_t bit = cluster - FAT_FIRST;
    check->marks[bit / 8] |= (uint8_t)(1 << bit % 8);
}

int fat_mark_chain(struct fat_checking *check, uint32_t first, uint32_t wanted,
                   struct fat_chain *ret, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    uint32_t cluster = first;
    *ret = (struct fat_chain){0};
    while (ret->sound < wanted && fat_is_cluster(layout, cluster) &&
           !fat_is_marked(check, cluster)) {
        uint32_t value = 0;
        int r = steps_take(&check->steps, 1, err);
        if (r == 0)
            r = runs_check_room(&ret->runs, err);
        if (r == 0)
            r = fat_table_raw(fat_medium(&check->volume), layout, cluster, &value, err);
        if (r != 0) {
            runs_finish(&ret->runs);
            return r;
        }
        value = fat_table_meaning(layout, value);
        if (value == TABLE_FREE || value == TABLE_BAD)
            break;
        mark(check, cluster);
        runs_add(&ret->runs, cluster, 1);
        ret->sound++;
        ret->last = cluster;
        ret->ends = value == TABLE_END;
        if (ret->ends)
            break;
        cluster = value;
    }
    return 0;
}

/* The boot sector. */

static bool read_backup(struct medium *medium, uint32_t sector_size, uint8_t *sector,
                        struct fat_layout *ret)
{
    uint64_t at = (uint64_t)FAT_BACKUP_SECTOR * sector_size;
    return medium_size(medium) >= at + BOOT_SIZE &&
           medium_read(medium, at, sector, BOOT_SIZE, NULL) == 0 &&
           fat_layout_read(sector, medium_size(medium), ret, NULL) == 0 &&
           ret->kind == VOLUME_FAT32 && ret->sector_size == sector_size && ret->backup_offset == at;
}

static bool find_backup(struct medium *medium, uint8_t *sector, struct fat_layout *ret)
{
    for (uint32_t size = 512; size <= 4096; size *= 2)
        if (read_backup(medium, size, sector, ret))
            return true;
    return false;
}

bool fat_check_has_backup(struct medium *medium)
{
    uint8_t sector[BOOT_SIZE];
    struct fat_layout layout;
    return find_backup(medium, sector, &layout);
}

static int write_sector(struct fat_checking *check, uint64_t offset, const uint8_t *sector,
                        struct error *err)
{
    int r = fat_repair_begin(check, 2, err);
    return r == 0 ? fat_repair_end(check, medium_write(fat_medium(&check->volume), offset, sector,
                                                       BOOT_SIZE, err))
                  : r;
}

/* But for its dirty mark, which is in the first one only. */
static int check_backup(struct fat_checking *check, uint8_t *boot, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    uint8_t backup[BOOT_SIZE];
    if (layout->backup_offset == 0)
        return 0;
    int r = medium_read(fat_medium(&check->volume), layout->backup_offset, backup, BOOT_SIZE, err);
    if (r != 0)
        return r;
    boot[layout->flags_offset] = backup[layout->flags_offset];
    if (memcmp(boot, backup, BOOT_SIZE) == 0 ||
        !fat_say(check, "the copy of the boot sector is another one"))
        return 0;
    boot[layout->flags_offset] = 0;
    return write_sector(check, layout->backup_offset, boot, err);
}

static int check_boot(struct fat_checking *check, struct error *err)
{
    struct medium *medium = fat_medium(&check->volume);
    struct fat_layout *layout = &check->volume.layout;
    uint8_t boot[BOOT_SIZE], backup[BOOT_SIZE];
    int r = medium_read(medium, 0, boot, sizeof(boot), err);
    if (r != 0)
        return r;
    r = fat_layout_read(boot, medium_size(medium), layout, err);
    if (r == 0)
        return check_backup(check, boot, err);
    if (!find_backup(medium, backup, layout))
        return r;
    return fat_say(check, "the boot sector is broken, its copy is not")
               ? write_sector(check, 0, backup, err)
               : 0;
}

/* The dirty marks. */

static uint32_t clean_bits(const struct fat_layout *layout)
{
    return layout->kind == VOLUME_FAT12 ? 0 : layout->kind == VOLUME_FAT16 ? CLEAN_16 : CLEAN_32;
}

static int read_marks(struct fat_checking *check, uint8_t *ret_flags, uint32_t *ret_word,
                      struct error *err)
{
    struct fat_volume *volume = &check->volume;
    int r = medium_read(fat_medium(volume), volume->layout.flags_offset, ret_flags, 1, err);
    return r == 0 ? fat_table_raw(fat_medium(volume), &volume->layout, 1, ret_word, err) : r;
}

/* It is clean when everything was mended. */
static int check_marks(struct fat_checking *check, struct error *err)
{
    enum { DIRTY = 3 }; /* in use, and an error was met */
    struct fat_volume *volume = &check->volume;
    uint32_t word = 0, bits = clean_bits(&volume->layout);
    uint8_t flags = 0;
    int r = read_marks(check, &flags, &word, err);
    if (r != 0 || (!(flags & DIRTY) && (word & bits) == bits))
        return r;
    if (!check->options.repair || check->left > 0) {
        fat_say_left(check, "it is marked as in use, or as one with errors");
        return 0;
    }
    fat_say(check, "it was marked as in use, or as one with errors");
    flags &= (uint8_t)~DIRTY;
    r = fat_repair_begin(check, fat_table_sectors(volume, 1, 1) + 1, err);
    if (r != 0)
        return r;
    r = medium_write(fat_medium(volume), volume->layout.flags_offset, &flags, 1, err);
    if (r == 0 && bits)
        r = fat_table_link(fat_medium(volume), &volume->layout, 1, 1, word | bits, err);
    return fat_repair_end(check, r);
}

/* Parts that look at every cluster: tables, folders, lost chains, the number of free ones. */
static int check_parts(struct fat_checking *check, struct error *err)
{
    uint64_t part = check->volume.layout.clusters;
    check->steps = (struct steps){
        .progress = check->options.progress,
        .data = check->options.data,
        .total = part * 4,
    };
    int r = fat_check_tables(check, err);
    if (r == 0)
        r = steps_reach(&check->steps, part, err);
    if (r == 0)
        r = fat_check_folders(check, err);
    if (r == 0)
        r = steps_reach(&check->steps, part * 2, err);
    if (r == 0)
        r = fat_check_lost(check, err);
    if (r == 0)
        r = steps_reach(&check->steps, part * 3, err);
    return r == 0 ? fat_check_info(check, err) : r;
}

static int check_all(struct fat_checking *check, struct error *err)
{
    size_t size = (size_t)check->volume.layout.clusters / 8 + 1;
    int r = budget_check(size, "a check of so many clusters", err);
    if (r != 0)
        return r;
    check->marks = budget_new(BUDGET_FIXED, size, 1);
    r = check_parts(check, err);
    if (r == 0)
        r = check_marks(check, err);
    if (r == 0 && check->options.repair)
        r = medium_settle(fat_medium(&check->volume), err);
    budget_free(BUDGET_FIXED, check->lost);
    budget_free(BUDGET_FIXED, check->marks);
    return r;
}

int fat_check(struct medium *medium, const struct check_options *options, volume_finding found,
              void *data, struct error *err)
{
    struct fat_checking *check = xnew(struct fat_checking);
    check->options = *options;
    check->found = found;
    check->data = data;
    check->volume.volume.medium = medium;
    check->volume.code_page = code_page_find("cp437");
    int r = check_boot(check, err);
    if (r == 0)
        r = check_all(check, err);
    int left = check->left;
    free(check);
    return r < 0 ? r : left;
}
