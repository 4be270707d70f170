/* Names of a folder by its index, and room for entries. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <block/budget.h>

#include "folder_index.h"

enum { ENTRIES_AT_ONCE = 128 };

static void make_upper(const struct exfat_volume *volume, const uint16_t *name, unsigned length,
                       uint16_t ret[static FOLDER_INDEX_UNITS])
{
    for (unsigned i = 0; i < length; i++)
        ret[i] = volume->upcase->units[name[i]];
}

static void add_set(const struct exfat_volume *volume, struct folder_index *index,
                    const struct exfat_set *set, uint32_t position)
{
    uint16_t upper[FOLDER_INDEX_UNITS];
    make_upper(volume, set->name, set->name_length, upper);
    folder_index_add(index, upper, set->name_length, position);
}

static int find_used(struct exfat_volume *volume, struct exfat_node *folder,
                     struct folder_index *index, struct error *err)
{
    uint8_t raw[ENTRIES_AT_ONCE * EXFAT_ENTRY];
    uint32_t at = 0;
    for (;;) {
        int count = exfat_folder_read(volume, folder, at, ENTRIES_AT_ONCE, raw, err);
        if (count <= 0)
            return count;
        for (int i = 0; i < count; i++, at++) {
            uint8_t type = raw[(size_t)i * EXFAT_ENTRY];
            if (type == EXFAT_END_OF_FOLDER)
                return 0;
            folder_index_use(index, at, 1, type & EXFAT_IN_USE);
        }
    }
}

static int find_names(struct exfat_volume *volume, struct exfat_node *folder,
                      struct folder_index *index, struct error *err)
{
    struct exfat_entries *entries = exfat_entries_create();
    uint32_t position = 0;
    int r;
    while ((r = budget_check(folder_index_step(index), "a folder of so many files", err)) == 0 &&
           (r = exfat_folder_next(volume, folder, &position, entries, err)) == 1) {
        add_set(volume, index, &entries->set, entries->place.position);
        exfat_place_finish(&entries->place);
    }
    free(entries);
    return r;
}

static int build(struct exfat_volume *volume, struct exfat_node *folder, struct error *err)
{
    folder->used = atomic_fetch_add_explicit(&volume->clock, 1, memory_order_relaxed);
    if (folder->index)
        return 0;
    struct folder_index *index = folder_index_create();
    int r = find_used(volume, folder, index, err);
    if (r == 0)
        r = find_names(volume, folder, index, err);
    if (r == 0)
        folder->index = index;
    else
        folder_index_free(index);
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
    struct folder_index_search search;
    uint16_t upper[FOLDER_INDEX_UNITS];
    int r = build(volume, folder, err);
    if (r != 0)
        return r;
    make_upper(volume, name, length, upper);
    uint32_t position = folder_index_first(folder->index, upper, length, &search);
    for (; position != FOLDER_INDEX_NONE; position = folder_index_next(&search)) {
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
    for (uint32_t at = had, count; r == 0 && at < runs->clusters; at += count) {
        const struct exfat_run *run = exfat_runs_find(runs, at);
        count = run->count - (at - run->at);
        r = medium_zero_content(exfat_medium(volume),
                                exfat_offset(&volume->layout, run->first + (at - run->at)),
                                (uint64_t)count << shift, err);
    }
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
    return exfat_folder_room_beside(volume, folder, count, NULL, ret_place, err);
}

int exfat_folder_room_beside(struct exfat_volume *volume, struct exfat_node *folder, unsigned count,
                             const struct exfat_place *taken, struct exfat_place *ret_place,
                             struct error *err)
{
    int r = build(volume, folder, err);
    if (r == 0)
        r = exfat_runs_load(volume, folder, UINT64_MAX, err);
    if (r != 0)
        return r;
    uint32_t of_cluster = volume->layout.cluster_size / EXFAT_ENTRY;
    uint32_t first = folder_index_room(folder->index, count, taken ? taken->position : 0,
                                       taken ? taken->count : 0);
    uint32_t have = folder->runs.clusters * of_cluster;
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

/* Behind the folder's end there may be anything: what is to be the end says so. */
static int write_end(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                     struct error *err)
{
    uint8_t raw[EXFAT_ENTRY];
    uint64_t offset;
    if (position <= folder_index_end(folder->index))
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
    return r == 0 ? exfat_place_write(volume, place, raw, err) : r;
}

void exfat_folder_added(struct exfat_volume *volume, struct exfat_node *folder,
                        const struct exfat_place *place, const struct exfat_set *set)
{
    folder_index_use(folder->index, place->position, place->count, true);
    add_set(volume, folder->index, set, place->position);
}

void exfat_folder_removed(struct exfat_volume *volume, struct exfat_node *folder,
                          const struct exfat_place *place, const struct exfat_set *set)
{
    uint16_t upper[FOLDER_INDEX_UNITS];
    if (!folder->index)
        return;
    folder_index_use(folder->index, place->position, place->count, false);
    make_upper(volume, set->name, set->name_length, upper);
    folder_index_remove(folder->index, upper, set->name_length, place->position);
}
