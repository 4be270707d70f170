#include "fat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

enum { PIECE = 4096 }; /* bytes of a table that are changed at once */

/* Runs. */

void runs_add(struct runs *runs, uint32_t first, uint32_t count)
{
    struct run *last = runs->count ? &runs->items[runs->count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += count;
    } else {
        if (runs->count == runs->room) {
            runs->room = runs->room ? runs->room * 2 : 4;
            runs->items = budget_resize(BUDGET_KEPT, runs->items, runs->room, sizeof(struct run));
        }
        runs->items[runs->count++] = (struct run){runs->clusters, first, count};
    }
    runs->clusters += count;
}

int runs_check_room(const struct runs *runs, struct error *err)
{
    return runs->count < runs->room
               ? 0
               : budget_check(runs->room * sizeof(struct run), "a file in so many pieces", err);
}

void runs_cut(struct runs *runs, uint32_t clusters)
{
    if (clusters >= runs->clusters)
        return;
    while (runs->count > 0 && runs->items[runs->count - 1].at >= clusters)
        runs->count--;
    if (runs->count > 0)
        runs->items[runs->count - 1].count = clusters - runs->items[runs->count - 1].at;
    runs->clusters = clusters;
}

void runs_finish(struct runs *runs)
{
    budget_free(BUDGET_KEPT, runs->items);
    *runs = (struct runs){0};
}

const struct run *runs_find(const struct runs *runs, uint32_t at)
{
    size_t low = 0, high = runs->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (runs->items[middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    return &runs->items[low];
}

/* Entries. */

uint32_t fat_table_meaning(const struct fat_layout *layout, uint32_t value)
{
    uint32_t end = layout->kind == VOLUME_FAT12   ? 0xFF8
                   : layout->kind == VOLUME_FAT16 ? 0xFFF8
                                                  : 0x0FFFFFF8;
    if (value >= end)
        return TABLE_END;
    return value == end - 1 ? TABLE_BAD : value;
}

uint32_t fat_table_word(const struct fat_layout *layout, uint32_t meaning)
{
    uint32_t most = layout->kind == VOLUME_FAT12   ? 0xFFF
                    : layout->kind == VOLUME_FAT16 ? 0xFFFF
                                                   : 0x0FFFFFFF;
    if (meaning == TABLE_BAD)
        return most - 8;
    return meaning == TABLE_END ? most : meaning;
}

static uint64_t place(const struct fat_layout *layout, uint32_t cluster)
{
    switch (layout->kind) {
    case VOLUME_FAT12:
        return cluster + cluster / 2;
    case VOLUME_FAT16:
        return (uint64_t)cluster * 2;
    default:
        return (uint64_t)cluster * 4;
    }
}

static uint32_t word_at(const struct fat_layout *layout, uint32_t cluster, const uint8_t *at)
{
    switch (layout->kind) {
    case VOLUME_FAT12:
        return cluster % 2 ? get_le16(at) >> 4 : get_le16(at) & 0xFFF;
    case VOLUME_FAT16:
        return get_le16(at);
    default:
        return get_le32(at) & 0x0FFFFFFF;
    }
}

/* The upper four bits of an entry of FAT32 are not ours. */
static void put_word(const struct fat_layout *layout, uint32_t cluster, uint8_t *at, uint32_t value)
{
    switch (layout->kind) {
    case VOLUME_FAT12:
        put_le16(at, (uint16_t)(cluster % 2 ? (get_le16(at) & 0xF) | value << 4
                                            : (get_le16(at) & 0xF000) | value));
        break;
    case VOLUME_FAT16:
        put_le16(at, (uint16_t)value);
        break;
    default:
        put_le32(at, (get_le32(at) & 0xF0000000) | value);
        break;
    }
}

uint64_t fat_table_start(const struct fat_layout *layout, unsigned table)
{
    return layout->table_offset + table * layout->table_size;
}

int fat_table_raw(struct medium *medium, const struct fat_layout *layout, uint32_t cluster,
                  uint32_t *ret_value, struct error *err)
{
    uint8_t bytes[4] = {0};
    size_t size = layout->kind == VOLUME_FAT32 ? 4 : 2;
    uint64_t offset = fat_table_start(layout, layout->active) + place(layout, cluster);
    int r = medium_read(medium, offset, bytes, size, err);
    if (r == 0)
        *ret_value = word_at(layout, cluster, bytes);
    return r;
}

int fat_table_meanings(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                       uint32_t count, uint32_t *ret_meanings, struct error *err)
{
    uint8_t bytes[FAT_WORDS * 4];
    uint64_t at = place(layout, first);
    size_t last = layout->kind == VOLUME_FAT32 ? 4 : 2;
    size_t size = (size_t)(place(layout, first + count - 1) - at) + last;
    int r = medium_read(medium, fat_table_start(layout, layout->active) + at, bytes, size, err);
    for (uint32_t i = 0; r == 0 && i < count; i++)
        ret_meanings[i] = fat_table_meaning(
            layout, word_at(layout, first + i, bytes + (place(layout, first + i) - at)));
    return r;
}

int fat_table_get(struct fat_volume *volume, uint32_t cluster, uint32_t *ret_next,
                  struct error *err)
{
    uint32_t value = 0;
    int r = fat_table_raw(fat_medium(volume), &volume->layout, cluster, &value, err);
    if (r != 0)
        return r;
    uint32_t next = fat_table_meaning(&volume->layout, value);
    if (next != TABLE_END && next != TABLE_BAD && next != TABLE_FREE &&
        !fat_is_cluster(&volume->layout, next))
        return fat_damage(volume, err, "cluster %u leads to %u, which there is not", cluster, next);
    *ret_next = next;
    return 0;
}

/* How many entries from this one on are changed in one piece. */
static uint32_t entries_of_piece(const struct fat_layout *layout, uint32_t cluster)
{
    if (layout->kind == VOLUME_FAT12)
        return 1;
    uint32_t size = layout->kind == VOLUME_FAT16 ? 2 : 4;
    return (uint32_t)((PIECE - place(layout, cluster) % PIECE) / size);
}

/* chain: each entry leads to the next, the last one of all to `last`; else all are `last`. */
static int change(struct medium *medium, const struct fat_layout *layout, unsigned table,
                  uint32_t first, uint32_t count, bool chain, uint32_t last, struct error *err)
{
    uint8_t piece[PIECE];
    uint32_t end = fat_table_word(layout, last);
    int r = 0;
    for (uint32_t done = 0, part; r == 0 && done < count; done += part) {
        uint32_t cluster = first + done;
        part = entries_of_piece(layout, cluster);
        if (part > count - done)
            part = count - done;
        uint64_t at = place(layout, cluster);
        size_t size = (size_t)(place(layout, cluster + part - 1) - at) +
                      (layout->kind == VOLUME_FAT32 ? 4 : 2);
        r = medium_read(medium, fat_table_start(layout, table) + at, piece, size, err);
        for (uint32_t i = 0; r == 0 && i < part; i++) {
            bool leads = chain && done + i + 1 < count;
            put_word(layout, cluster + i, piece + (place(layout, cluster + i) - at),
                     leads ? cluster + i + 1 : end);
        }
        if (r == 0)
            r = medium_write(medium, fat_table_start(layout, table) + at, piece, size, err);
    }
    return r;
}

static int change_all(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                      uint32_t count, bool chain, uint32_t last, struct error *err)
{
    if (!layout->mirrored)
        return change(medium, layout, layout->active, first, count, chain, last, err);
    int r = 0;
    for (unsigned table = 0; r == 0 && table < layout->tables; table++)
        r = change(medium, layout, table, first, count, chain, last, err);
    return r;
}

int fat_table_link(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                   uint32_t count, uint32_t last, struct error *err)
{
    return change_all(medium, layout, first, count, true, last, err);
}

int fat_table_fill(struct medium *medium, const struct fat_layout *layout, uint32_t first,
                   uint32_t count, uint32_t meaning, struct error *err)
{
    return change_all(medium, layout, first, count, false, meaning, err);
}

unsigned fat_table_sectors(const struct fat_volume *volume, uint32_t first, uint32_t count)
{
    const struct fat_layout *layout = &volume->layout;
    uint32_t size = medium_sector_size(fat_medium(volume));
    uint64_t bytes = place(layout, first + count) + 4 - place(layout, first);
    return (unsigned)(bytes / size + 2) * (layout->mirrored ? layout->tables : 1);
}

/* Clusters [from, to) of the runs, each to the next; the one before `from` leads to them. */
int fat_table_link_runs(struct fat_volume *volume, const struct runs *runs, uint32_t from,
                        uint32_t to, bool ends, struct error *err)
{
    struct medium *medium = fat_medium(volume);
    uint32_t at = from > 0 ? from - 1 : 0;
    int r = 0;
    while (r == 0 && at < to) {
        const struct run *run = runs_find(runs, at);
        uint32_t first = run->first + (at - run->at), count = run->at + run->count - at;
        if (count > to - at)
            count = to - at;
        uint32_t last = TABLE_END;
        if (at + count < to || !ends) {
            const struct run *next = runs_find(runs, at + count);
            last = next->first + (at + count - next->at);
        }
        r = fat_table_link(medium, &volume->layout, first, count, last, err);
        at += count;
    }
    return r;
}

/* Chains. */

enum { RUNS_MOST = 4 << 20 }; /* of one file; a stick may say that there are more */

/* More than a file or folder can have is a loop, too. */
static uint32_t chain_most(const struct fat_volume *volume, const struct fat_node *node)
{
    uint64_t bytes =
        node->type == NODE_FOLDER ? (uint64_t)FAT_SLOTS_MOST * FAT_ENTRY : (uint64_t)FAT_SIZE_MOST;
    uint32_t most = fat_clusters_of(&volume->layout, bytes);
    return most < volume->layout.clusters ? most : volume->layout.clusters;
}

/* Brent's: a chain that goes round comes back to the cluster that is kept, of which a later one is
 * kept after twice as many steps. */
struct round {
    uint32_t kept, steps, most;
};

static bool goes_round(struct round *round, uint32_t next)
{
    if (next == round->kept)
        return true;
    if (round->steps++ == round->most)
        *round = (struct round){.kept = next, .most = round->most * 2 + 1};
    return false;
}

int fat_runs_load(struct fat_volume *volume, struct fat_node *node, uint32_t clusters,
                  struct error *err)
{
    uint32_t most = chain_most(volume, node);
    struct round round = {0};
    node->used = atomic_fetch_add_explicit(&volume->clock, 1, memory_order_relaxed);
    if (node->first == 0)
        node->complete = true;
    while (!node->complete && node->runs.clusters < clusters) {
        uint32_t next = node->first;
        if (node->runs.count > 0) {
            const struct run *last = &node->runs.items[node->runs.count - 1];
            int r = fat_table_get(volume, last->first + last->count - 1, &next, err);
            if (r != 0)
                return r;
        }
        if (next == TABLE_END) {
            node->complete = true;
            node->linked = node->runs.clusters;
            break;
        }
        if (!fat_is_cluster(&volume->layout, next))
            return fat_damage(volume, err, "a chain from cluster %u leads to a %s cluster",
                              node->first, next == TABLE_BAD ? "bad" : "free");
        if (node->runs.count >= RUNS_MOST)
            return error_set(err, -EFBIG, "a file in more than %d pieces", RUNS_MOST);
        int r = runs_check_room(&node->runs, err);
        if (r != 0)
            return r;
        if (node->runs.clusters >= most || goes_round(&round, next))
            return fat_damage(volume, err, "a chain from cluster %u does not end", node->first);
        runs_add(&node->runs, next, 1);
    }
    return 0;
}
