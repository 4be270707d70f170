/* The tables while a volume is checked: their copies, lost chains, how many clusters are free. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

#include "fat_check.h"
#include "fat_layout.h"
#include "fat_names.h"
#include "kinds.h"

enum {
    PIECE = 4096, /* bytes of tables that are compared at once */
    PIECE_SECTORS = PIECE / 512 + 1,
    LOST_FILES_MOST = 50000, /* that one folder has room for */
};
#define LOST_FOLDER "LOST.DIR"

/* Copies. */

/* Whether entries 0 and 1 are what they are in every table. */
static bool begins_right(struct fat_checking *check, unsigned table)
{
    const struct fat_layout *layout = &check->volume.layout;
    uint8_t first[3];
    return medium_read(fat_medium(&check->volume), fat_table_start(layout, table), first,
                       sizeof(first), NULL) == 0 &&
           first[0] == layout->media && first[1] == 0xFF && (first[2] & 0x0F) == 0x0F;
}

/* The first one is believed, unless its beginning is broken and another one's is not. */
static void choose_table(struct fat_checking *check)
{
    struct fat_layout *layout = &check->volume.layout;
    if (!layout->mirrored || begins_right(check, 0))
        return;
    for (unsigned table = 1; table < layout->tables; table++)
        if (begins_right(check, table)) {
            layout->active = table;
            return;
        }
}

static int copy_piece(struct fat_checking *check, uint64_t to, const uint8_t *piece, size_t size,
                      struct error *err)
{
    int r = fat_repair_begin(check, PIECE_SECTORS, err);
    return r == 0 ? fat_repair_end(check,
                                   medium_write(fat_medium(&check->volume), to, piece, size, err))
                  : r;
}

/* Table `table` beside the one that is believed; what is behind the last cluster does not count. */
static int compare(struct fat_checking *check, unsigned table, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    struct medium *medium = fat_medium(&check->volume);
    unsigned bits = layout->kind == VOLUME_FAT12 ? 12 : layout->kind == VOLUME_FAT16 ? 16 : 32;
    uint64_t size = (((uint64_t)layout->clusters + FAT_FIRST) * bits + 7) / 8;
    uint8_t right[PIECE], other[PIECE];
    bool told = false, repair = false;
    int r = 0;
    for (uint64_t at = 0; r == 0 && at < size; at += PIECE) {
        size_t part = size - at < PIECE ? (size_t)(size - at) : PIECE;
        r = steps_take(&check->steps, part * 8 / bits, err);
        if (r == 0)
            r = medium_read(medium, fat_table_start(layout, layout->active) + at, right, part, err);
        if (r == 0)
            r = medium_read(medium, fat_table_start(layout, table) + at, other, part, err);
        if (r != 0 || memcmp(right, other, part) == 0)
            continue;
        if (!told)
            repair = fat_say(check, "table %u is not as table %u", table + 1, layout->active + 1);
        told = true;
        if (repair)
            r = copy_piece(check, fat_table_start(layout, table) + at, right, part, err);
    }
    return r;
}

/* The mark of an end that every table begins with. */
static int check_beginning(struct fat_checking *check, struct error *err)
{
    struct fat_volume *volume = &check->volume;
    const struct fat_layout *layout = &volume->layout;
    uint32_t most = fat_table_word(layout, TABLE_END), value = 0, right;
    int r = fat_table_raw(fat_medium(volume), layout, 0, &value, err);
    right = (most & ~UINT32_C(0xFF)) | layout->media;
    if (r != 0 || value == right || !fat_say(check, "the table does not begin as it should"))
        return r;
    r = fat_repair_begin(check, fat_table_sectors(volume, 0, 1), err);
    if (r != 0)
        return r;
    return fat_repair_end(check, fat_table_link(fat_medium(volume), layout, 0, 1, right, err));
}

int fat_check_tables(struct fat_checking *check, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    int r = 0;
    choose_table(check);
    for (unsigned table = 0; r == 0 && layout->mirrored && table < layout->tables; table++)
        if (table != layout->active)
            r = compare(check, table, err);
    return r == 0 ? check_beginning(check, err) : r;
}

/* Lost chains. */

static int read_table(struct fat_checking *check, uint32_t first, uint32_t *ret_count,
                      uint32_t *meanings, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    uint32_t left = layout->clusters - (first - FAT_FIRST);
    *ret_count = left < FAT_WORDS ? left : FAT_WORDS;
    int r = steps_take(&check->steps, *ret_count, err);
    return r == 0 ? fat_table_meanings(fat_medium(&check->volume), layout, first, *ret_count,
                                       meanings, err)
                  : r;
}

/* Bits of clusters. */
struct lost_bits {
    uint8_t *lost;   /* owned: nothing leads to them from the root folder */
    uint8_t *led_to; /* owned: another lost one does: those begin no chain */
    bool any;
};

static void set_bit(uint8_t *bits, uint32_t cluster)
{
    uint32_t bit = cluster - FAT_FIRST;
    bits[bit / 8] |= (uint8_t)(1 << bit % 8);
}

static bool has_bit(const uint8_t *bits, uint32_t cluster)
{
    uint32_t bit = cluster - FAT_FIRST;
    return bits[bit / 8] >> bit % 8 & 1;
}

static int find_lost(struct fat_checking *check, struct lost_bits *bits, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    uint32_t meanings[FAT_WORDS], count = 0;
    int r = 0;
    for (uint32_t first = FAT_FIRST; r == 0 && fat_is_cluster(layout, first); first += count) {
        r = read_table(check, first, &count, meanings, err);
        for (uint32_t i = 0; r == 0 && i < count; i++) {
            if (meanings[i] == TABLE_FREE || meanings[i] == TABLE_BAD ||
                fat_is_marked(check, first + i))
                continue;
            bits->any = true;
            set_bit(bits->lost, first + i);
            if (fat_is_cluster(layout, meanings[i]))
                set_bit(bits->led_to, meanings[i]);
        }
    }
    return r;
}

static int end_lost(struct fat_checking *check, uint32_t last, struct error *err)
{
    struct fat_volume *volume = &check->volume;
    if (!check->options.repair)
        return 0;
    int r = fat_repair_begin(check, fat_table_sectors(volume, last, 1), err);
    return r == 0 ? fat_repair_end(check, fat_table_link(fat_medium(volume), &volume->layout, last,
                                                         1, TABLE_END, err))
                  : r;
}

/* A chain, or its first 4 GiB: what is behind is another one. */
static int take_lost(struct fat_checking *check, uint32_t first, struct error *err)
{
    uint32_t most = FAT_SIZE_MOST / check->volume.layout.cluster_size;
    struct fat_chain chain;
    int r = fat_mark_chain(check, first, most, &chain, err);
    if (r != 0)
        return r;
    runs_finish(&chain.runs);
    if (check->lost_count == check->lost_room) {
        r = budget_check(check->lost_room * sizeof(*check->lost), "a check of so many lost chains",
                         err);
        if (r != 0)
            return r;
        check->lost_room = check->lost_room ? check->lost_room * 2 : 64;
        check->lost =
            budget_resize(BUDGET_FIXED, check->lost, check->lost_room, sizeof(*check->lost));
    }
    check->lost[check->lost_count++] = (struct lost_chain){first, chain.sound};
    return chain.ends ? 0 : end_lost(check, chain.last, err);
}

/* First those that begin somewhere; what is left then are circles. */
static int collect_lost(struct fat_checking *check, const struct lost_bits *bits, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    int r = 0;
    for (int round = 0; round < 2; round++)
        for (uint32_t at = FAT_FIRST; r == 0 && fat_is_cluster(layout, at); at++)
            if (has_bit(bits->lost, at) && (round == 1 || !has_bit(bits->led_to, at)) &&
                !fat_is_marked(check, at))
                r = take_lost(check, at, err);
    return r;
}

/* Makes files of them, in a folder that is made when there is none. Returns how many, which may be
 * fewer: there is no room. */
static int adopt(struct fat_checking *check, struct fat_volume *volume, struct error *err)
{
    struct node *base = NULL, *root = &volume->root->node;
    uint32_t size = volume->layout.cluster_size, number = 0;
    size_t done = 0;
    int r = fat_start_repair(volume, err);
    if (r == 0 && fat_ops.lookup(&volume->volume, root, LOST_FOLDER, &base, err) != 0)
        r = fat_ops.create(&volume->volume, root, LOST_FOLDER, NODE_FOLDER, &base, err);
    for (; r == 0 && done < check->lost_count && number < LOST_FILES_MOST; number++) {
        const struct lost_chain *lost = &check->lost[done];
        char name[16];
        snprintf(name, sizeof(name), "FILE%04u.CHK", number);
        r = steps_take(&check->steps, 0, err);
        if (r == 0)
            r = fat_adopt(volume, (struct fat_node *)base, name, lost->first, lost->clusters * size,
                          err);
        done += r == 0;
        r = r == -EEXIST ? 0 : r;
    }
    if (base)
        fat_ops.node_drop(&volume->volume, base, 1);
    return r == 0 || r == -ENOSPC || r == -EEXIST || r == -ENOTDIR ? (int)done : r;
}

static int adopt_lost(struct fat_checking *check, struct error *err)
{
    struct medium *medium = fat_medium(&check->volume);
    struct volume_options options = {0};
    struct volume *volume;
    int r = medium_settle(medium, err);
    if (r == 0)
        r = fat_mount(medium, &options, &volume, err);
    if (r != 0)
        return r;
    int adopted = adopt(check, (struct fat_volume *)volume, err);
    r = fat_unmount(volume, err);
    return adopted < 0 ? adopted : r < 0 ? r : adopted;
}

static int tell_lost(struct fat_checking *check, struct error *err)
{
    uint64_t clusters = 0;
    for (size_t i = 0; i < check->lost_count; i++)
        clusters += check->lost[i].clusters;
    _cleanup_error_ struct error why = ERROR_INIT;
    int adopted = check->options.repair ? adopt_lost(check, &why) : 0;
    if (adopted < 0 && adopted != -EUCLEAN)
        return error_move(err, &why);
    if (adopted == (int)check->lost_count)
        fat_say(check, "lost chains: %zu, of %llu clusters, the first at %u: files in /%s",
                check->lost_count, (unsigned long long)clusters, check->lost[0].first, LOST_FOLDER);
    else
        fat_say_left(check, "lost chains: %zu, of %llu clusters, the first at %u%s%s",
                     check->lost_count, (unsigned long long)clusters, check->lost[0].first,
                     check->options.repair ? ": " : "", why.message ? why.message : "");
    return 0;
}

int fat_check_lost(struct fat_checking *check, struct error *err)
{
    size_t size = (size_t)check->volume.layout.clusters / 8 + 1;
    int r = budget_check(size * 2, "a check of so many clusters", err);
    if (r != 0)
        return r;
    struct lost_bits bits = {.lost = budget_new(BUDGET_FIXED, size, 1),
                             .led_to = budget_new(BUDGET_FIXED, size, 1)};
    r = find_lost(check, &bits, err);
    if (r == 0 && bits.any)
        r = collect_lost(check, &bits, err);
    budget_free(BUDGET_FIXED, bits.lost);
    budget_free(BUDGET_FIXED, bits.led_to);
    return r == 0 && check->lost_count > 0 ? tell_lost(check, err) : r;
}

/* The number of free clusters. */

static int count_free(struct fat_checking *check, uint32_t *ret_free, struct error *err)
{
    const struct fat_layout *layout = &check->volume.layout;
    uint32_t meanings[FAT_WORDS], count = 0, free = 0;
    for (uint32_t first = FAT_FIRST; fat_is_cluster(layout, first); first += count) {
        int r = read_table(check, first, &count, meanings, err);
        if (r != 0)
            return r;
        for (uint32_t i = 0; i < count; i++)
            free += meanings[i] == TABLE_FREE;
    }
    *ret_free = free;
    return 0;
}

int fat_check_info(struct fat_checking *check, struct error *err)
{
    struct medium *medium = fat_medium(&check->volume);
    uint64_t at = check->volume.layout.info_offset;
    uint8_t info[BOOT_SIZE];
    uint32_t free = 0;
    if (at == 0)
        return 0;
    int r = count_free(check, &free, err);
    if (r == 0)
        r = medium_read(medium, at, info, sizeof(info), err);
    if (r != 0)
        return r;
    uint32_t says = get_le32(info + INFO_AT + 4), next = get_le32(info + INFO_AT + 8);
    bool sound = get_le32(info) == INFO_LEAD && get_le32(info + INFO_AT) == INFO_MAGIC;
    bool knows_next = next == UINT32_MAX || fat_is_cluster(&check->volume.layout, next);
    if (sound && knows_next && (says == UINT32_MAX || says == free))
        return 0;
    bool repair = sound && knows_next
                      ? fat_say(check, "it says that %u clusters are free, %u are", says, free)
                      : fat_say(check, "the sector that tells how many clusters are free is none");
    if (!repair)
        return 0;
    fat_info_make(free, UINT32_MAX, info);
    r = fat_repair_begin(check, 2, err);
    return r == 0 ? fat_repair_end(check, medium_write(medium, at, info, sizeof(info), err)) : r;
}
