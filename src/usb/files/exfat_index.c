/* The index of a folder: names by their hash, and which entries are used. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

enum { BUCKETS_FIRST = 64, ENTRIES_AT_ONCE = 128 };
#define NOTHING UINT32_MAX

struct name_item {
    uint32_t hash, position, next;
};

struct exfat_index {
    uint32_t *heads; /* owned, buckets of them */
    struct name_item *items;
    uint32_t buckets, count, room, spare;
    uint32_t end;  /* entries from here on were never used */
    uint32_t hint; /* before this one all are used */
    uint8_t *used; /* a bit an entry, used_room of them */
    uint32_t used_room;
};

static uint32_t hash_name(const struct exfat_volume *volume, const uint16_t *name, unsigned length)
{
    uint32_t hash = 2166136261;
    for (unsigned i = 0; i < length; i++)
        hash = (hash ^ volume->upcase->units[name[i]]) * 16777619;
    return hash ^ hash >> 15;
}

static void link_item(struct exfat_index *index, uint32_t i)
{
    uint32_t *head = &index->heads[index->items[i].hash & (index->buckets - 1)];
    index->items[i].next = *head;
    *head = i;
}

static void grow_heads(struct exfat_index *index, uint32_t buckets)
{
    index->buckets = buckets;
    index->heads = xrealloc(index->heads, buckets, sizeof(uint32_t));
    memset(index->heads, 0xFF, buckets * sizeof(uint32_t));
    for (uint32_t i = 0; i < index->count; i++)
        if (index->items[i].position != NOTHING)
            link_item(index, i);
}

static void add_name(struct exfat_index *index, uint32_t hash, uint32_t position)
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
    index->items[i] = (struct name_item){.hash = hash, .position = position};
    link_item(index, i);
    if (index->count > index->buckets * 2) {
        free(steal_ptr(index->heads));
        grow_heads(index, index->buckets * 4);
    }
}

static void forget_name(struct exfat_index *index, uint32_t hash, uint32_t position)
{
    uint32_t *at = &index->heads[hash & (index->buckets - 1)];
    while (*at != NOTHING && index->items[*at].position != position)
        at = &index->items[*at].next;
    if (*at == NOTHING)
        return;
    uint32_t i = *at;
    *at = index->items[i].next;
    index->items[i] = (struct name_item){.position = NOTHING, .next = index->spare};
    index->spare = i;
}

static bool entry_is_used(const struct exfat_index *index, uint32_t position)
{
    return position < index->used_room && index->used[position / 8] >> position % 8 & 1;
}

static void use_entries(struct exfat_index *index, uint32_t first, uint32_t count, bool used)
{
    if (first + count > index->used_room) {
        uint32_t had = index->used_room, room = had ? had : 1024;
        while (room < first + count)
            room *= 2;
        index->used = xrealloc(index->used, room / 8, 1);
        memset(index->used + had / 8, 0, (room - had) / 8);
        index->used_room = room;
    }
    for (uint32_t at = first; at < first + count; at++) {
        if (used)
            index->used[at / 8] |= (uint8_t)(1 << at % 8);
        else
            index->used[at / 8] &= (uint8_t) ~(1 << at % 8);
    }
}

void exfat_index_free(struct exfat_index *index)
{
    if (!index)
        return;
    free(index->heads);
    free(index->items);
    free(index->used);
    free(index);
}

static int find_used(struct exfat_volume *volume, struct exfat_node *folder,
                     struct exfat_index *index, struct error *err)
{
    uint8_t raw[ENTRIES_AT_ONCE * EXFAT_ENTRY];
    for (;;) {
        int count = exfat_folder_read(volume, folder, index->end, ENTRIES_AT_ONCE, raw, err);
        if (count <= 0)
            return count;
        for (int i = 0; i < count; i++, index->end++) {
            uint8_t type = raw[(size_t)i * EXFAT_ENTRY];
            if (type == EXFAT_END_OF_FOLDER)
                return 0;
            use_entries(index, index->end, 1, type & EXFAT_IN_USE);
        }
    }
}

static int find_names(struct exfat_volume *volume, struct exfat_node *folder,
                      struct exfat_index *index, struct error *err)
{
    struct exfat_entries *entries = xnew(struct exfat_entries);
    uint32_t position = 0;
    int r;
    while ((r = exfat_folder_next(volume, folder, &position, entries, err)) == 1) {
        const struct exfat_set *set = &entries->set;
        add_name(index, hash_name(volume, set->name, set->name_length), entries->place.position);
        exfat_place_finish(&entries->place);
    }
    free(entries);
    return r;
}

static int build(struct exfat_volume *volume, struct exfat_node *folder, struct error *err)
{
    if (folder->index)
        return 0;
    struct exfat_index *index = xnew(struct exfat_index);
    index->spare = NOTHING;
    grow_heads(index, BUCKETS_FIRST);
    int r = find_used(volume, folder, index, err);
    if (r == 0)
        r = find_names(volume, folder, index, err);
    if (r == 0)
        folder->index = index;
    else
        exfat_index_free(index);
    return r;
}

static bool is_called(const struct exfat_volume *volume, const struct exfat_set *set,
                      const uint16_t *name, unsigned length)
{
    if (set->name_length != length)
        return false;
    for (unsigned i = 0; i < length; i++)
        if (volume->upcase->units[set->name[i]] != volume->upcase->units[name[i]])
            return false;
    return true;
}

int exfat_folder_find(struct exfat_volume *volume, struct exfat_node *folder, const uint16_t *name,
                      unsigned length, struct exfat_entries *ret_entries, struct error *err)
{
    uint32_t hash = hash_name(volume, name, length);
    int r = build(volume, folder, err);
    if (r != 0)
        return r;
    const struct exfat_index *index = folder->index;
    for (uint32_t i = index->heads[hash & (index->buckets - 1)]; i != NOTHING;
         i = index->items[i].next) {
        uint32_t position = index->items[i].position;
        if (index->items[i].hash != hash)
            continue;
        r = exfat_folder_next(volume, folder, &position, ret_entries, err);
        if (r < 0)
            return r;
        if (r == 1 && ret_entries->place.offsets[0] != volume->journal_place &&
            is_called(volume, &ret_entries->set, name, length))
            return 0;
        if (r == 1)
            exfat_place_finish(&ret_entries->place);
    }
    return error_set(err, -ENOENT, "there is none of this name");
}

/* Room. */

/* The first of count free entries, which may reach beyond the folder's clusters. */
static uint32_t find_room(struct exfat_index *index, unsigned count)
{
    uint32_t run = 0, at = index->hint;
    bool skipped = false;
    for (; run < count && at < index->end; at++) {
        bool used = entry_is_used(index, at);
        if (used && run > 0)
            skipped = true;
        run = used ? 0 : run + 1;
        if (used && !skipped)
            index->hint = at + 1;
    }
    return at - run;
}

/* Zeroed clusters at its end. */
static int grow(struct exfat_volume *volume, struct exfat_node *folder, uint32_t clusters,
                struct error *err)
{
    struct exfat_runs *runs = &folder->runs;
    uint32_t had = runs->clusters, shift = volume->layout.cluster_shift;
    uint32_t near = had ? exfat_runs_cluster(runs, had - 1) + 1 : 0;
    int r = exfat_space_take(volume, clusters, near, runs, err);
    if (r != 0)
        return r;
    for (uint32_t at = had; r == 0 && at < runs->clusters; at++)
        r = medium_zero_content(exfat_medium(volume),
                                exfat_offset(&volume->layout, exfat_runs_cluster(runs, at)),
                                volume->layout.cluster_size, err);
    struct exfat_set set = folder->set;
    set.size = set.valid = (uint64_t)runs->clusters << shift;
    if (r == 0)
        r = exfat_link(volume, folder, runs->clusters, &set, err);
    if (r != 0) {
        exfat_space_give_back(volume, runs, folder->linked);
        exfat_runs_cut(runs, folder->linked);
    }
    return r;
}

int exfat_folder_room(struct exfat_volume *volume, struct exfat_node *folder, unsigned count,
                      struct exfat_place *ret_place, struct error *err)
{
    int r = build(volume, folder, err);
    if (r == 0)
        r = exfat_runs_load(volume, folder, UINT64_MAX, err);
    if (r != 0)
        return r;
    uint32_t of_cluster = volume->layout.cluster_size / EXFAT_ENTRY;
    uint32_t first = find_room(folder->index, count), have = folder->runs.clusters * of_cluster;
    if (first + count > EXFAT_ENTRIES_MOST)
        return error_set(err, -ENOSPC, "the folder has as many entries as exFAT can keep");
    if (first + count > have)
        r = grow(volume, folder, (first + count - have + of_cluster - 1) / of_cluster, err);
    if (r != 0)
        return r;
    *ret_place = (struct exfat_place){.position = first, .count = count};
    ret_place->offsets = xnew_array(uint64_t, count);
    for (unsigned i = 0; r == 0 && i < count; i++)
        r = exfat_folder_offset(volume, folder, first + i, &ret_place->offsets[i], err);
    if (r != 0)
        exfat_place_finish(ret_place);
    return r;
}

int exfat_folder_room_beside(struct exfat_volume *volume, struct exfat_node *folder, unsigned count,
                             const struct exfat_place *taken, struct exfat_place *ret_place,
                             struct error *err)
{
    int r = build(volume, folder, err);
    if (r != 0 || !taken)
        return r == 0 ? exfat_folder_room(volume, folder, count, ret_place, err) : r;
    struct exfat_index *index = folder->index;
    uint32_t end = index->end, hint = index->hint;
    use_entries(index, taken->position, taken->count, true);
    if (taken->position + taken->count > end)
        index->end = taken->position + taken->count;
    r = exfat_folder_room(volume, folder, count, ret_place, err);
    use_entries(index, taken->position, taken->count, false);
    index->end = end;
    index->hint = hint;
    return r;
}

/* Behind the folder's end there may be anything: what is to be the end says so. */
static int write_end(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                     struct error *err)
{
    uint8_t raw[EXFAT_ENTRY];
    uint64_t offset;
    if (position <= folder->index->end)
        return 0;
    int r = exfat_folder_read(volume, folder, position, 1, raw, err);
    if (r <= 0 || raw[0] == EXFAT_END_OF_FOLDER)
        return r < 0 ? r : 0;
    r = exfat_folder_offset(volume, folder, position, &offset, err);
    raw[0] = EXFAT_END_OF_FOLDER;
    return r == 0 ? medium_write(exfat_medium(volume), offset, raw, 1, err) : r;
}

int exfat_folder_write(struct exfat_volume *volume, struct exfat_node *folder,
                       const struct exfat_place *place, const uint8_t *raw, struct error *err)
{
    int r = write_end(volume, folder, place->position + place->count, err);
    for (unsigned i = 0; r == 0 && i < place->count; i++)
        r = medium_write(exfat_medium(volume), place->offsets[i], raw + (size_t)i * EXFAT_ENTRY,
                         EXFAT_ENTRY, err);
    return r;
}

void exfat_folder_added(struct exfat_volume *volume, struct exfat_node *folder,
                        const struct exfat_place *place, const struct exfat_set *set)
{
    struct exfat_index *index = folder->index;
    use_entries(index, place->position, place->count, true);
    if (place->position + place->count > index->end)
        index->end = place->position + place->count;
    add_name(index, hash_name(volume, set->name, set->name_length), place->position);
}

void exfat_folder_removed(struct exfat_volume *volume, struct exfat_node *folder,
                          const struct exfat_place *place, const struct exfat_set *set)
{
    struct exfat_index *index = folder->index;
    if (!index)
        return;
    use_entries(index, place->position, place->count, false);
    if (place->position < index->hint)
        index->hint = place->position;
    forget_name(index, hash_name(volume, set->name, set->name_length), place->position);
}
