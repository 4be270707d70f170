/* Names of a folder by its index, and room for entries. */
#include "fat.h"

#include <errno.h>
#include <stdlib.h>

#include <block/budget.h>

#include "folder_index.h"

enum {
    GROWTH = 4096,         /* bytes by which a folder becomes larger at least */
    SPARE_PART = 64,       /* ... unless it is more of what is free than one in so many */
    INDEX_ROOM = 16 << 10, /* bytes that one takes at least */
};

struct name {
    uint16_t upper[UNITS_MAX];
    unsigned length;
};

static void make_name(const uint16_t *units, unsigned length, struct name *ret)
{
    ret->length = length;
    for (unsigned i = 0; i < length; i++)
        ret->upper[i] = unit_upper(units[i]);
}

/* Both of its names lead to an entry: whether the short one is another one. */
static bool has_short_name(struct fat_volume *volume, const uint16_t *name, unsigned length,
                           const uint8_t *raw, struct name *ret)
{
    uint16_t units[12];
    unsigned short_length = fat_short_units(volume, raw, units);
    make_name(units, short_length, ret);
    return !units_same(units, short_length, name, length);
}

static void add_entry(struct fat_volume *volume, struct folder_index *index, const uint16_t *units,
                      unsigned length, const uint8_t *raw, uint32_t first)
{
    struct name name;
    make_name(units, length, &name);
    folder_index_add(index, name.upper, length, first);
    if (has_short_name(volume, units, length, raw, &name))
        folder_index_add(index, name.upper, name.length, first);
}

static int find_used(struct fat_volume *volume, struct fat_node *folder, struct folder_index *index,
                     struct error *err)
{
    uint8_t raw[FAT_ENTRY];
    for (uint32_t slot = 0;; slot++) {
        uint64_t offset;
        int r = fat_slot_read(volume, folder, slot, raw, &offset, err);
        if (r <= 0 || raw[0] == 0)
            return r < 0 ? r : 0;
        folder_index_use(index, slot, 1, raw[0] != FAT_DELETED);
    }
}

static int build(struct fat_volume *volume, struct fat_node *folder, struct error *err)
{
    folder->used = atomic_fetch_add_explicit(&volume->clock, 1, memory_order_relaxed);
    if (folder->index)
        return 0;
    struct fat_entry entry = {0};
    uint32_t slot = 0;
    int r = budget_check(INDEX_ROOM, "a folder", err);
    if (r != 0)
        return r;
    struct folder_index *index = folder_index_create();
    r = find_used(volume, folder, index, err);
    while (r == 0 && (r = fat_folder_next(volume, folder, &slot, &entry, err)) == 1) {
        add_entry(volume, index, entry.name, entry.length, entry.raw, entry.first);
        r = budget_check(folder_index_step(index), "a folder of so many files", err);
    }
    if (r == 0)
        folder->index = index;
    else
        folder_index_free(index);
    return r;
}

static bool is_called(struct fat_volume *volume, const struct fat_entry *entry,
                      const uint16_t *name, unsigned length)
{
    uint16_t units[12];
    return units_same(entry->name, entry->length, name, length) ||
           units_same(units, fat_short_units(volume, entry->raw, units), name, length);
}

int fat_folder_find(struct fat_volume *volume, struct fat_node *folder, const uint16_t *units,
                    unsigned length, struct fat_entry *ret_entry, struct error *err)
{
    struct folder_index_search search;
    struct name name;
    int r = build(volume, folder, err);
    if (r != 0)
        return r;
    make_name(units, length, &name);
    uint32_t slot = folder_index_first(folder->index, name.upper, length, &search);
    for (; slot != FOLDER_INDEX_NONE; slot = folder_index_next(&search)) {
        r = fat_folder_next(volume, folder, &slot, ret_entry, err);
        if (r < 0)
            return r;
        if (r == 1 && ret_entry->offset != volume->journal_entry &&
            is_called(volume, ret_entry, units, length))
            return 0;
    }
    return -ENOENT;
}

int fat_folder_may_have(struct fat_volume *volume, struct fat_node *folder, const uint16_t *units,
                        unsigned length, struct error *err)
{
    struct folder_index_search search;
    struct name name;
    int r = build(volume, folder, err);
    if (r != 0)
        return r;
    make_name(units, length, &name);
    return folder_index_first(folder->index, name.upper, length, &search) != FOLDER_INDEX_NONE;
}

/* Room. */

static uint32_t capacity(const struct fat_volume *volume, const struct fat_node *folder)
{
    if (fat_is_fixed_root(volume, folder))
        return volume->layout.root_slots;
    uint64_t slots = (uint64_t)folder->runs.clusters * fat_slots_of_cluster(volume);
    return slots < FAT_SLOTS_MOST ? (uint32_t)slots : FAT_SLOTS_MOST;
}

static int grow_by(struct fat_volume *volume, struct fat_node *folder, uint32_t clusters,
                   struct error *err)
{
    struct runs *runs = &folder->runs;
    const struct run *last = &runs->items[runs->count - 1];
    uint32_t had = runs->clusters;
    unsigned sectors = 0;
    int r = fat_space_take(volume, clusters, last->first + last->count, runs, err);
    if (r != 0)
        return r;
    for (uint32_t at = had, count; r == 0 && at < runs->clusters; at += count) {
        const struct run *run = runs_find(runs, at);
        uint32_t first = run->first + (at - run->at);
        count = run->count - (at - run->at);
        r = medium_zero_content(fat_medium(volume), fat_cluster_offset(&volume->layout, first),
                                (uint64_t)count * volume->layout.cluster_size, err);
        sectors += 2 * fat_table_sectors(volume, first, count);
    }
    if (r == 0 && (r = fat_begin(volume, sectors + 8, err)) == 0) {
        volume->free -= clusters;
        r = fat_table_link_runs(volume, runs, had, runs->clusters, true, err);
        r = fat_finish(volume, r, err);
        if (r != 0)
            volume->free += clusters;
    }
    if (r != 0) {
        fat_space_give_back(volume, runs, had);
        runs_cut(runs, had);
        return r;
    }
    volume->held -= clusters;
    folder->linked = runs->clusters;
    return 0;
}

/* Small clusters a few at a time: each is zeros before it is the folder's, and files that are being
 * written would go around it. */
static int grow(struct fat_volume *volume, struct fat_node *folder, uint32_t clusters,
                struct error *err)
{
    uint32_t some = GROWTH / volume->layout.cluster_size, spare = volume->free - volume->held;
    uint32_t most = FAT_SLOTS_MOST / fat_slots_of_cluster(volume) - folder->runs.clusters;
    some = some < most ? some : most;
    if (clusters < some && some <= spare / SPARE_PART && grow_by(volume, folder, some, NULL) == 0)
        return 0;
    return grow_by(volume, folder, clusters, err);
}

int fat_folder_room(struct fat_volume *volume, struct fat_node *folder, uint32_t count,
                    uint32_t *ret_first, struct error *err)
{
    return fat_folder_room_beside(volume, folder, count, 0, 0, ret_first, err);
}

int fat_folder_room_beside(struct fat_volume *volume, struct fat_node *folder, uint32_t count,
                           uint32_t taken, uint32_t taken_count, uint32_t *ret_first,
                           struct error *err)
{
    int r = build(volume, folder, err);
    if (r == 0 && !fat_is_fixed_root(volume, folder))
        r = fat_runs_load(volume, folder, UINT32_MAX, err);
    if (r != 0)
        return r;
    uint32_t first = folder_index_room(folder->index, count, taken, taken_count);
    uint32_t have = capacity(volume, folder);
    if (first + count > have) {
        if (fat_is_fixed_root(volume, folder) || first + count > FAT_SLOTS_MOST)
            return error_set(err, -ENOSPC, "the folder has as many entries as FAT can keep");
        uint32_t of_cluster = fat_slots_of_cluster(volume);
        r = grow(volume, folder, (first + count - have + of_cluster - 1) / of_cluster, err);
    }
    *ret_first = first;
    return r;
}

/* Behind the folder's end there may be anything: what is to be the end says so. */
static int write_end(struct fat_volume *volume, struct fat_node *folder, uint32_t slot,
                     struct error *err)
{
    uint8_t raw[FAT_ENTRY];
    uint64_t offset;
    if (slot <= folder_index_end(folder->index))
        return 0;
    int r = fat_slot_read(volume, folder, slot, raw, &offset, err);
    if (r <= 0 || raw[0] == 0)
        return r < 0 ? r : 0;
    raw[0] = 0;
    return medium_write(fat_medium(volume), offset, raw, 1, err);
}

int fat_folder_write(struct fat_volume *volume, struct fat_node *folder,
                     const struct fat_new_entry *entry, uint64_t *ret_offset, struct error *err)
{
    int r = write_end(volume, folder, entry->first + entry->count, err);
    for (uint32_t i = 0; r == 0 && i < entry->count; i++) {
        r = fat_slot_offset(volume, folder, entry->first + i, ret_offset, err);
        if (r == 0)
            return fat_damage(volume, err, "a folder has become shorter");
        r = r < 0 ? r
                  : medium_write(fat_medium(volume), *ret_offset, entry->raw[i], FAT_ENTRY, err);
    }
    return r;
}

void fat_folder_added(struct fat_volume *volume, struct fat_node *folder,
                      const struct fat_new_entry *entry)
{
    folder_index_use(folder->index, entry->first, entry->count, true);
    add_entry(volume, folder->index, entry->name, entry->length, entry->raw[entry->count - 1],
              entry->first);
}

void fat_folder_removed(struct fat_volume *volume, struct fat_node *folder,
                        const struct fat_entry *entry)
{
    struct folder_index *index = folder->index;
    struct name name;
    if (!index)
        return;
    folder_index_use(index, entry->first, entry->slot - entry->first + 1, false);
    make_name(entry->name, entry->length, &name);
    folder_index_remove(index, name.upper, name.length, entry->first);
    if (has_short_name(volume, entry->name, entry->length, entry->raw, &name))
        folder_index_remove(index, name.upper, name.length, entry->first);
}
