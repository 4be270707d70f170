/* Folders: slots of 32 bytes; a file is a short entry, with the long ones before it that carry its
 * name, the last part first (FAT specification, 7). */
#include "fat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

enum {
    LONG_LAST = 0x40, /* of an order: the name's last part, which comes first */
    LONG_SUM = 13,
    BUCKETS_FIRST = 64,
    AHEAD = 32 << 10, /* bytes of a folder that are asked for at once */
    SHORT_TRIES = 65536,
};
#define NOTHING UINT32_MAX

static const uint8_t long_places[FAT_LONG_UNITS] = {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};

void fat_entry_set_first(const struct fat_layout *layout, uint8_t *raw, uint32_t first)
{
    put_le16(raw + ENTRY_FIRST_LOW, (uint16_t)first);
    put_le16(raw + ENTRY_FIRST_HIGH, layout->kind == VOLUME_FAT32 ? (uint16_t)(first >> 16) : 0);
}

/* Slots. */

static bool is_fixed_root(const struct fat_volume *volume, const struct fat_node *folder)
{
    return folder == volume->root && volume->layout.kind != VOLUME_FAT32;
}

static uint32_t slots_of_cluster(const struct fat_volume *volume)
{
    return volume->layout.cluster_size / FAT_ENTRY;
}

/* 1, or 0: beyond the end. */
static int slot_offset(struct fat_volume *volume, struct fat_node *folder, uint32_t slot,
                       uint64_t *ret_offset, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    if (is_fixed_root(volume, folder)) {
        *ret_offset = layout->root_offset + (uint64_t)slot * FAT_ENTRY;
        return slot < layout->root_slots;
    }
    uint32_t cluster = slot / slots_of_cluster(volume), in = slot % slots_of_cluster(volume);
    if (slot >= FAT_SLOTS_MOST)
        return 0;
    int r = fat_runs_load(volume, folder, cluster + 1, err);
    if (r != 0 || cluster >= folder->runs.clusters)
        return r;
    const struct run *run = runs_find(&folder->runs, cluster);
    *ret_offset =
        fat_cluster_offset(layout, run->first + (cluster - run->at)) + (uint64_t)in * FAT_ENTRY;
    uint64_t left = fat_cluster_offset(layout, run->first + run->count) - *ret_offset;
    if (slot % (AHEAD / FAT_ENTRY) == 0)
        medium_expect(fat_medium(volume), *ret_offset, left < AHEAD ? left : AHEAD);
    return 1;
}

int fat_slot_read(struct fat_volume *volume, struct fat_node *folder, uint32_t slot, uint8_t *raw,
                  uint64_t *ret_offset, struct error *err)
{
    int r = slot_offset(volume, folder, slot, ret_offset, err);
    if (r <= 0)
        return r;
    r = medium_read(fat_medium(volume), *ret_offset, raw, FAT_ENTRY, err);
    return r == 0 ? 1 : r;
}

/* Reading entries. */

static void take_long(struct fat_assembly *assembly, const uint8_t *raw, uint32_t slot,
                      struct fat_entry *entry)
{
    unsigned order = raw[0] & 0xBF; /* without LONG_LAST */
    if (raw[0] & LONG_LAST) {
        *assembly = (struct fat_assembly){
            .begun = order >= 1 && order <= FAT_LONG_MOST,
            .next = order,
            .sum = raw[LONG_SUM],
            .first = slot,
        };
        entry->length = 0;
    }
    if (!assembly->begun || order != assembly->next || order == 0 ||
        raw[LONG_SUM] != assembly->sum) {
        assembly->begun = false;
        return;
    }
    assembly->next = order - 1;
    for (unsigned i = FAT_LONG_UNITS; i-- > 0;) {
        unsigned at = (order - 1) * FAT_LONG_UNITS + i;
        uint16_t unit = get_le16(raw + long_places[i]);
        if (unit == 0)
            entry->length = at;
        if (at < UNITS_MAX)
            entry->name[at] = unit;
        else if (unit != 0 && unit != 0xFFFF)
            assembly->begun = false;
    }
    if ((raw[0] & LONG_LAST) && entry->length == 0)
        entry->length = order * FAT_LONG_UNITS;
    if (entry->length > UNITS_MAX)
        assembly->begun = false;
}

static bool has_its_long_name(const struct fat_assembly *assembly, const uint8_t *raw,
                              const struct fat_entry *entry)
{
    return assembly->begun && assembly->next == 0 && assembly->sum == fat_short_sum(raw) &&
           fat_name_may_be_shown(entry->name, entry->length);
}

static bool is_dot(const uint8_t *raw)
{
    return memcmp(raw, ".          ", 11) == 0 || memcmp(raw, "..         ", 11) == 0;
}

bool fat_take_slot(struct fat_volume *volume, struct fat_assembly *assembly, uint32_t slot,
                   const uint8_t *raw, struct fat_entry *entry)
{
    uint8_t attributes = raw[ENTRY_ATTRIBUTES] & FAT_ATTRIBUTES;
    if (raw[0] != FAT_DELETED && attributes == FAT_LONG) {
        take_long(assembly, raw, slot, entry);
        return false;
    }
    if (raw[0] == FAT_DELETED || (attributes & FAT_LABEL) || is_dot(raw)) {
        assembly->begun = false;
        return false;
    }
    entry->has_long = has_its_long_name(assembly, raw, entry);
    entry->first = entry->has_long ? assembly->first : slot;
    assembly->begun = false;
    entry->slot = slot;
    memcpy(entry->raw, raw, FAT_ENTRY);
    if (!entry->has_long)
        entry->length = fat_short_units(volume, raw, entry->name);
    return true;
}

int fat_folder_next(struct fat_volume *volume, struct fat_node *folder, uint32_t *slot,
                    struct fat_entry *ret_entry, struct error *err)
{
    struct fat_assembly assembly = {0};
    uint8_t raw[FAT_ENTRY];
    for (;;) {
        int r = fat_slot_read(volume, folder, *slot, raw, &ret_entry->offset, err);
        if (r <= 0 || raw[0] == 0)
            return r < 0 ? r : 0;
        uint32_t at = (*slot)++;
        if (fat_take_slot(volume, &assembly, at, raw, ret_entry))
            return 1;
    }
}

/* The index: names by their hash, and which slots are used. */

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

int fat_folder_is_empty(struct fat_volume *volume, struct fat_node *folder, struct error *err)
{
    struct fat_entry entry;
    uint32_t slot = 0;
    int r = fat_folder_next(volume, folder, &slot, &entry, err);
    return r < 0 ? r : r == 1 ? -ENOTEMPTY : 0;
}

/* Room. */

static uint32_t capacity(const struct fat_volume *volume, const struct fat_node *folder)
{
    if (is_fixed_root(volume, folder))
        return volume->layout.root_slots;
    uint64_t slots = (uint64_t)folder->runs.clusters * slots_of_cluster(volume);
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
    if (r == 0 && !is_fixed_root(volume, folder))
        r = fat_runs_load(volume, folder, UINT32_MAX, err);
    if (r != 0)
        return r;
    uint32_t first = find_slots(folder->index, count), have = capacity(volume, folder);
    if (first + count > have) {
        if (is_fixed_root(volume, folder) || first + count > FAT_SLOTS_MOST)
            return error_set(err, -ENOSPC, "the folder has as many entries as FAT can keep");
        uint32_t of_cluster = slots_of_cluster(volume);
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

/* Making entries. */

static int find_short(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                      unsigned length, struct fat_short *ret, struct error *err)
{
    struct fat_entry other;
    struct fat_short made;
    fat_short_make(volume, name, length, &made);
    *ret = made;
    if (made.is_enough)
        return 0;
    for (unsigned tries = 1; tries < SHORT_TRIES; tries++) {
        uint8_t raw[FAT_ENTRY] = {0};
        uint16_t units[12];
        *ret = made;
        fat_short_number(ret, name, length, tries);
        memcpy(raw, ret->name, sizeof(ret->name));
        int r = fat_folder_find(volume, folder, units, fat_short_units(volume, raw, units), &other,
                                err);
        if (r != 0)
            return r == -ENOENT ? 0 : r;
    }
    return error_set(err, -ENOSPC, "there is no short name left");
}

static void make_long(const uint16_t *name, unsigned length, unsigned order, unsigned parts,
                      uint8_t sum, uint8_t *raw)
{
    memset(raw, 0, FAT_ENTRY);
    raw[0] = (uint8_t)(order | (order == parts ? LONG_LAST : 0));
    raw[ENTRY_ATTRIBUTES] = FAT_LONG;
    raw[LONG_SUM] = sum;
    for (unsigned i = 0; i < FAT_LONG_UNITS; i++) {
        unsigned at = (order - 1) * FAT_LONG_UNITS + i;
        put_le16(raw + long_places[i], at < length ? name[at] : at == length ? 0 : 0xFFFF);
    }
}

int fat_folder_prepare(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                       unsigned length, struct fat_new_entry *ret, struct error *err)
{
    struct fat_short made;
    int r = find_short(volume, folder, name, length, &made, err);
    if (r != 0)
        return r;
    unsigned parts = made.is_enough ? 0 : (length + FAT_LONG_UNITS - 1) / FAT_LONG_UNITS;
    ret->count = parts + 1;
    r = fat_folder_room(volume, folder, ret->count, &ret->first, err);
    if (r != 0)
        return r;
    for (unsigned i = 0; i < parts; i++)
        make_long(name, length, parts - i, parts, fat_short_sum(made.name), ret->raw[i]);
    uint8_t *raw = ret->raw[parts];
    memset(raw, 0, FAT_ENTRY);
    memcpy(raw, made.name, sizeof(made.name));
    raw[ENTRY_CASE] = made.flags;
    memcpy(ret->name, name, length * sizeof(*name));
    ret->length = length;
    return 0;
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
        r = slot_offset(volume, folder, entry->first + i, ret_offset, err);
        if (r == 0)
            return fat_damage(volume, err, "a folder has become shorter");
        r = r < 0 ? r
                  : medium_write(fat_medium(volume), *ret_offset, entry->raw[i], FAT_ENTRY, err);
    }
    return r;
}

int fat_folder_erase(struct fat_volume *volume, struct fat_node *folder,
                     const struct fat_entry *entry, struct error *err)
{
    const uint8_t deleted = FAT_DELETED;
    int r = 0;
    for (uint32_t slot = entry->first; r == 0 && slot <= entry->slot; slot++) {
        uint64_t offset;
        r = slot_offset(volume, folder, slot, &offset, err);
        if (r == 0)
            return fat_damage(volume, err, "a folder has become shorter");
        r = r < 0 ? r : medium_write(fat_medium(volume), offset, &deleted, 1, err);
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
