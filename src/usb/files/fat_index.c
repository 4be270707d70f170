/* The index of a folder: names by their hash, which slots are used, and room for entries. */
#include "fat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

enum { BUCKETS_FIRST = 64 };
#define NOTHING UINT32_MAX

struct name_item {
    uint32_t hash, first, next;
};

struct fat_index {
    uint32_t *heads; /* owned, buckets of them */
    struct name_item *items;
    uint32_t buckets, count, room, spare;
    uint32_t end; /* slots from here on were never used */
    uint32_t hint;
    uint8_t used[FAT_SLOTS_MOST / 8];
};

static void index_link(struct fat_index *index, uint32_t i)
{
    uint32_t *head = &index->heads[index->items[i].hash & (index->buckets - 1)];
    index->items[i].next = *head;
    *head = i;
}

static void index_grow(struct fat_index *index)
{
    index->buckets *= 4;
    index->heads = xrealloc(index->heads, index->buckets, sizeof(uint32_t));
    memset(index->heads, 0xFF, index->buckets * sizeof(uint32_t));
    for (uint32_t i = 0; i < index->count; i++)
        if (index->items[i].first != NOTHING)
            index_link(index, i);
}

static void index_name(struct fat_index *index, uint32_t hash, uint32_t first)
{
    uint32_t i = index->spare;
    if (i != NOTHING) {
        index->spare = index->items[i].next;
    } else {
        if (index->count == index->room) {
            index->room = index->room ? index->room * 2 : 64;
            index->items = xrealloc(index->items, index->room, sizeof(struct name_item));
        }
        i = index->count++;
    }
    index->items[i] = (struct name_item){.hash = hash, .first = first};
    index_link(index, i);
    if (index->count > index->buckets * 2)
        index_grow(index);
}

static void index_forget(struct fat_index *index, uint32_t hash, uint32_t first)
{
    uint32_t *at = &index->heads[hash & (index->buckets - 1)];
    while (*at != NOTHING && (index->items[*at].hash != hash || index->items[*at].first != first))
        at = &index->items[*at].next;
    if (*at == NOTHING)
        return;
    uint32_t i = *at;
    *at = index->items[i].next;
    index->items[i] = (struct name_item){.first = NOTHING, .next = index->spare};
    index->spare = i;
}

/* Both of its names lead to it. */
static uint32_t short_hash(struct fat_volume *volume, const uint8_t *raw)
{
    uint16_t units[12];
    return units_hash(units, fat_short_units(volume, raw, units));
}

static void index_entry(struct fat_volume *volume, struct fat_index *index, const uint16_t *name,
                        unsigned length, const uint8_t *raw, uint32_t first)
{
    uint32_t hash = units_hash(name, length), other = short_hash(volume, raw);
    index_name(index, hash, first);
    if (other != hash)
        index_name(index, other, first);
}

static void use_slots(struct fat_index *index, uint32_t first, uint32_t count, bool used)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        if (used)
            index->used[slot / 8] |= (uint8_t)(1 << slot % 8);
        else
            index->used[slot / 8] &= (uint8_t) ~(1 << slot % 8);
    }
}

void fat_index_free(struct fat_index *index)
{
    if (!index)
        return;
    free(index->heads);
    free(index->items);
    free(index);
}

static int find_used(struct fat_volume *volume, struct fat_node *folder, struct fat_index *index,
                     struct error *err)
{
    uint8_t raw[FAT_ENTRY];
    for (uint32_t slot = 0;; slot++) {
        uint64_t offset;
        int r = fat_slot_read(volume, folder, slot, raw, &offset, err);
        if (r <= 0 || raw[0] == 0) {
            index->end = slot;
            return r < 0 ? r : 0;
        }
        if (raw[0] != FAT_DELETED)
            use_slots(index, slot, 1, true);
    }
}

static int index_build(struct fat_volume *volume, struct fat_node *folder, struct error *err)
{
    if (folder->index)
        return 0;
    struct fat_index *index = xnew(struct fat_index);
    struct fat_entry entry = {0};
    uint32_t slot = 0;
    index->buckets = BUCKETS_FIRST;
    index->heads = xmalloc(BUCKETS_FIRST * sizeof(uint32_t));
    memset(index->heads, 0xFF, BUCKETS_FIRST * sizeof(uint32_t));
    index->spare = NOTHING;
    int r = find_used(volume, folder, index, err);
    while (r == 0 && (r = fat_folder_next(volume, folder, &slot, &entry, err)) == 1) {
        index_entry(volume, index, entry.name, entry.length, entry.raw, entry.first);
        r = 0;
    }
    if (r < 0) {
        fat_index_free(index);
        return r;
    }
    folder->index = index;
    return 0;
}

static bool is_called(struct fat_volume *volume, const struct fat_entry *entry,
                      const uint16_t *name, unsigned length)
{
    uint16_t units[12];
    return units_same(entry->name, entry->length, name, length) ||
           units_same(units, fat_short_units(volume, entry->raw, units), name, length);
}

int fat_folder_find(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                    unsigned length, struct fat_entry *ret_entry, struct error *err)
{
    uint32_t hash = units_hash(name, length);
    int r = index_build(volume, folder, err);
    if (r != 0)
        return r;
    const struct fat_index *index = folder->index;
    for (uint32_t i = index->heads[hash & (index->buckets - 1)]; i != NOTHING;
         i = index->items[i].next) {
        uint32_t slot = index->items[i].first;
        if (index->items[i].hash != hash)
            continue;
        r = fat_folder_next(volume, folder, &slot, ret_entry, err);
        if (r < 0)
            return r;
        if (r == 1 && ret_entry->offset != volume->journal_entry &&
            is_called(volume, ret_entry, name, length))
            return 0;
    }
    return -ENOENT;
}

/* Room. */

static uint32_t capacity(const struct fat_volume *volume, const struct fat_node *folder)
{
    if (fat_is_fixed_root(volume, folder))
        return volume->layout.root_slots;
    uint64_t slots = (uint64_t)folder->runs.clusters * fat_slots_of_cluster(volume);
    return slots < FAT_SLOTS_MOST ? (uint32_t)slots : FAT_SLOTS_MOST;
}

/* The first of count free slots, which may reach beyond the capacity. */
static uint32_t find_slots(struct fat_index *index, uint32_t count)
{
    uint32_t run = 0, slot = index->hint;
    bool skipped = false;
    for (; run < count && slot < index->end; slot++) {
        bool used = index->used[slot / 8] >> slot % 8 & 1;
        if (used && run > 0)
            skipped = true;
        run = used ? 0 : run + 1;
        if (used && !skipped)
            index->hint = slot + 1;
    }
    return slot - run;
}

static int grow(struct fat_volume *volume, struct fat_node *folder, uint32_t clusters,
                struct error *err)
{
    struct runs *runs = &folder->runs;
    const struct run *last = &runs->items[runs->count - 1];
    uint32_t had = runs->clusters;
    unsigned sectors = 0;
    int r = fat_space_take(volume, clusters, last->first + last->count, runs, err);
    if (r != 0)
        return r;
    for (uint32_t at = had; r == 0 && at < runs->clusters; at++) {
        const struct run *run = runs_find(runs, at);
        uint64_t offset = fat_cluster_offset(&volume->layout, run->first + (at - run->at));
        r = medium_zero_content(fat_medium(volume), offset, volume->layout.cluster_size, err);
        sectors += 2 * fat_table_sectors(volume, run->first, 1);
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

int fat_folder_room(struct fat_volume *volume, struct fat_node *folder, uint32_t count,
                    uint32_t *ret_first, struct error *err)
{
    int r = index_build(volume, folder, err);
    if (r == 0 && !fat_is_fixed_root(volume, folder))
        r = fat_runs_load(volume, folder, UINT32_MAX, err);
    if (r != 0)
        return r;
    uint32_t first = find_slots(folder->index, count), have = capacity(volume, folder);
    if (first + count > have) {
        if (fat_is_fixed_root(volume, folder) || first + count > FAT_SLOTS_MOST)
            return error_set(err, -ENOSPC, "the folder has as many entries as FAT can keep");
        uint32_t of_cluster = fat_slots_of_cluster(volume);
        r = grow(volume, folder, (first + count - have + of_cluster - 1) / of_cluster, err);
    }
    *ret_first = first;
    return r;
}

int fat_folder_room_beside(struct fat_volume *volume, struct fat_node *folder, uint32_t count,
                           uint32_t taken, uint32_t taken_count, uint32_t *ret_first,
                           struct error *err)
{
    int r = index_build(volume, folder, err);
    if (r != 0)
        return r;
    struct fat_index *index = folder->index;
    uint32_t end = index->end, hint = index->hint;
    use_slots(index, taken, taken_count, true);
    if (taken + taken_count > end)
        index->end = taken + taken_count;
    r = fat_folder_room(volume, folder, count, ret_first, err);
    use_slots(index, taken, taken_count, false);
    index->end = end;
    index->hint = hint;
    return r;
}

/* Behind the folder's end there may be anything: what is to be the end says so. */
static int write_end(struct fat_volume *volume, struct fat_node *folder, uint32_t slot,
                     struct error *err)
{
    uint8_t raw[FAT_ENTRY];
    uint64_t offset;
    if (slot <= folder->index->end)
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
    struct fat_index *index = folder->index;
    use_slots(index, entry->first, entry->count, true);
    if (entry->first + entry->count > index->end)
        index->end = entry->first + entry->count;
    index_entry(volume, index, entry->name, entry->length, entry->raw[entry->count - 1],
                entry->first);
}

void fat_folder_removed(struct fat_volume *volume, struct fat_node *folder,
                        const struct fat_entry *entry)
{
    struct fat_index *index = folder->index;
    if (!index)
        return;
    use_slots(index, entry->first, entry->slot - entry->first + 1, false);
    if (entry->first < index->hint)
        index->hint = entry->first;
    index_forget(index, units_hash(entry->name, entry->length), entry->first);
    index_forget(index, short_hash(volume, entry->raw), entry->first);
}
