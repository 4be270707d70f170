/* The journal's file: a hidden one of the root folder, in one run. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "utf16.h"
#include "times.h"

enum {
    JOURNAL_ENTRIES = 3,
    JOURNAL_ROOM = 5, /* entries among which three are in one sector */
    JOURNAL_PART = 64,
    JOURNAL_SECTORS = 128, /* at least: updates of 30 sectors */
};

static uint64_t journal_least(const struct exfat_volume *volume)
{
    uint64_t least = (uint64_t)JOURNAL_SECTORS * medium_sector_size(exfat_medium(volume));
    return least > MEDIUM_JOURNAL_LEAST ? least : MEDIUM_JOURNAL_LEAST;
}

static bool is_journal(const struct exfat_volume *volume, const struct exfat_set *set)
{
    uint16_t wanted = EXFAT_HIDDEN | EXFAT_SYSTEM;
    char name[EXFAT_NAME_UNITS * 3 + 1];
    utf8_from_utf16(set->name, set->name_length, name);
    uint64_t clusters = exfat_clusters_for(&volume->layout, set->size);
    return strcmp(name, EXFAT_JOURNAL_NAME) == 0 && (set->attributes & wanted) == wanted &&
           !(set->attributes & EXFAT_FOLDER) && (set->contiguous || clusters == 1) &&
           set->valid == set->size && set->size >= journal_least(volume) &&
           set->size <= MEDIUM_JOURNAL_MOST && set->size % volume->layout.sector_size == 0 &&
           exfat_is_cluster(&volume->layout, set->first) &&
           clusters <= volume->layout.clusters - (set->first - EXFAT_FIRST_CLUSTER);
}

/* When the journal is made, its entries become used by one write, which the power may have cut: one
 * that is used stands for all. */
static bool take_journal(struct exfat_volume *volume, uint8_t *raw, uint64_t offset)
{
    struct exfat_set set;
    unsigned used = 0;
    for (unsigned i = 0; i < JOURNAL_ENTRIES; i++) {
        used += (raw[(size_t)i * EXFAT_ENTRY] & EXFAT_IN_USE) != 0;
        raw[(size_t)i * EXFAT_ENTRY] |= EXFAT_IN_USE;
    }
    if (used == 0 || exfat_set_parse(raw, JOURNAL_ENTRIES, &set, NULL) != 0 ||
        !is_journal(volume, &set))
        return false;
    volume->journal_place = offset;
    volume->journal = set;
    return true;
}

void exfat_journal_find(struct exfat_volume *volume)
{
    uint8_t raw[JOURNAL_ENTRIES * EXFAT_ENTRY];
    volume->journal_place = 0;
    /* The power may have cut a write of the table: what is before that is looked at. */
    if (exfat_runs_load(volume, volume->root, UINT64_MAX, NULL) != 0)
        volume->root->complete = true;
    for (uint32_t position = 0;; position++) {
        uint64_t offset = 0;
        if (exfat_folder_read(volume, volume->root, position, JOURNAL_ENTRIES, raw, NULL) <
                JOURNAL_ENTRIES ||
            raw[0] == EXFAT_END_OF_FOLDER)
            return;
        if ((raw[0] | EXFAT_IN_USE) == EXFAT_FILE && raw[1] == JOURNAL_ENTRIES - 1 &&
            exfat_folder_offset(volume, volume->root, position, &offset, NULL) == 0 &&
            take_journal(volume, raw, offset))
            return;
    }
}

/* Making it. */

static bool overlaps(const struct exfat_runs *runs, uint32_t first, uint64_t count)
{
    for (size_t i = 0; i < runs->count; i++)
        if (runs->items[i].first < first + count &&
            first < runs->items[i].first + (uint64_t)runs->items[i].count)
            return true;
    return false;
}

/* The file that is there is the journal's, and its clusters are nobody else's that matters. */
static bool may_be_used(const struct exfat_volume *volume)
{
    uint32_t first = volume->journal.first;
    uint64_t count = exfat_clusters_for(&volume->layout, volume->journal.size);
    for (uint64_t bit = first - EXFAT_FIRST_CLUSTER; bit < first - EXFAT_FIRST_CLUSTER + count;
         bit++)
        if (!(volume->used[bit / 64] >> (bit % 64) & 1))
            return false;
    return !overlaps(&volume->bitmap, first, count) && !overlaps(&volume->root->runs, first, count);
}

/* A part of the volume, but not where it would take a quarter of what is free. 0: there is no room.
 */
static uint64_t journal_size(const struct exfat_volume *volume)
{
    const struct exfat_layout *layout = &volume->layout;
    uint64_t room = (uint64_t)(volume->free - volume->held) << layout->cluster_shift;
    uint64_t size = MEDIUM_JOURNAL_MOST, least = journal_least(volume);
    while (size > least && size > layout->size / JOURNAL_PART)
        size /= 2;
    while (size >= least && exfat_clusters_for(layout, size) << layout->cluster_shift > room / 4)
        size /= 2;
    return size >= least ? size : 0;
}

static struct exfat_set journal_set(const struct exfat_volume *volume, uint32_t first,
                                    uint64_t size)
{
    struct exfat_time now = exfat_time_from(volume, times_now());
    struct exfat_set set = {
        .entries = JOURNAL_ENTRIES,
        .attributes = EXFAT_HIDDEN | EXFAT_SYSTEM,
        .created = now,
        .modified = now,
        .accessed = now,
        .contiguous = true,
        .size = size,
        .valid = size,
        .first = first,
    };
    set.name_length = (unsigned)utf16_from_utf8(EXFAT_JOURNAL_NAME, set.name, EXFAT_NAME_UNITS);
    return set;
}

/* Of a few entries next to each other, those that are in one sector. */
static struct exfat_place in_one_sector(const struct exfat_volume *volume,
                                        const struct exfat_place *room)
{
    uint32_t size = medium_sector_size(exfat_medium(volume));
    unsigned at = 0;
    while (at + JOURNAL_ENTRIES < room->count &&
           room->offsets[at] / size != room->offsets[at + JOURNAL_ENTRIES - 1] / size)
        at++;
    return (struct exfat_place){room->position + at, JOURNAL_ENTRIES, room->offsets + at};
}

/* The set as it will be, but not in use: what is changed by the update that matters are the bits
 * that say so. */
static int write_unused(struct exfat_volume *volume, const struct exfat_place *room,
                        const struct exfat_place *place, const uint8_t *raw, struct error *err)
{
    uint8_t entries[JOURNAL_ROOM * EXFAT_ENTRY] = {0};
    memcpy(entries + (size_t)(place->position - room->position) * EXFAT_ENTRY, raw,
           JOURNAL_ENTRIES * EXFAT_ENTRY);
    for (unsigned i = 0; i < JOURNAL_ROOM; i++) {
        uint8_t *type = &entries[(size_t)i * EXFAT_ENTRY];
        *type = (uint8_t)((*type ? *type : EXFAT_FILE) & ~EXFAT_IN_USE);
    }
    int r = exfat_begin(volume, 6, err);
    if (r == 0)
        r = exfat_finish(volume, exfat_folder_write(volume, volume->root, room, entries, err), err);
    return r == 0 ? medium_settle(exfat_medium(volume), err) : r;
}

static void give_back(struct exfat_volume *volume, uint32_t first, uint64_t size)
{
    struct exfat_runs runs = {0};
    exfat_runs_add(&runs, first, (uint32_t)exfat_clusters_for(&volume->layout, size));
    exfat_space_give_back(volume, &runs, 0);
    exfat_runs_finish(&runs);
}

/* The clusters stay the journal's, whatever becomes of its file: the medium writes to them. */
static int write_journal(struct exfat_volume *volume, const struct exfat_place *place,
                         const struct exfat_set *set, const uint8_t *raw, struct error *err)
{
    struct exfat_runs runs = {0};
    uint32_t clusters = (uint32_t)exfat_clusters_for(&volume->layout, set->size);
    exfat_runs_add(&runs, set->first, clusters);
    int r = medium_journal(exfat_medium(volume), exfat_offset(&volume->layout, set->first),
                           set->size, err);
    if (r == 0 && (r = exfat_begin(volume, exfat_bitmap_sectors(volume, clusters) + 4, err)) == 0) {
        medium_first(exfat_medium(volume), place->offsets[0]);
        r = exfat_space_mark(volume, &runs, 0, clusters, true, err);
        if (r == 0)
            r = exfat_folder_write(volume, volume->root, place, raw, err);
        r = exfat_finish(volume, r, err);
    }
    exfat_runs_finish(&runs);
    if (r != 0)
        return r;
    volume->free -= clusters;
    volume->held -= clusters;
    volume->journal_place = place->offsets[0];
    volume->journal = *set;
    exfat_folder_added(volume, volume->root, place, set);
    return medium_settle(exfat_medium(volume), err);
}

/* No two sets of one name: one of ours that is of no use goes, one of others (-EEXIST) means no
 * journal. */
static int name_is_free(struct exfat_volume *volume, struct error *err)
{
    struct exfat_entries *entries = exfat_entries_create();
    uint16_t units[EXFAT_NAME_UNITS], ours = EXFAT_HIDDEN | EXFAT_SYSTEM;
    bool damaged = volume->damaged;
    int length = utf16_from_utf8(EXFAT_JOURNAL_NAME, units, EXFAT_NAME_UNITS);
    int r = exfat_folder_find(volume, volume->root, units, (unsigned)length, entries, err);
    exfat_place_finish(&entries->place);
    if (r == 0 && (entries->set.attributes & (ours | EXFAT_FOLDER)) == ours)
        r = exfat_remove(volume, volume->root, EXFAT_JOURNAL_NAME, NODE_FILE, NULL) == 0 ? -ENOENT
                                                                                         : 0;
    volume->damaged = damaged;
    free(entries);
    return r == -ENOENT ? 0 : r == -ENOMEM ? r : -EEXIST;
}

static int make_journal(struct exfat_volume *volume, struct error *err)
{
    uint8_t raw[EXFAT_SET_MOST * EXFAT_ENTRY];
    struct exfat_place room;
    uint32_t first = 0;
    int r = name_is_free(volume, err);
    if (r != 0)
        return r == -ENOMEM ? r : 0;
    uint64_t size = journal_size(volume);
    while (size >= journal_least(volume) &&
           exfat_space_contiguous(volume, (uint32_t)exfat_clusters_for(&volume->layout, size),
                                  &first) != 0)
        size /= 2;
    if (size < journal_least(volume))
        return 0;
    r = exfat_folder_room(volume, volume->root, JOURNAL_ROOM, &room, err);
    if (r != 0) {
        give_back(volume, first, size);
        return r;
    }
    struct exfat_set set = journal_set(volume, first, size);
    struct exfat_place place = in_one_sector(volume, &room);
    exfat_set_make(&set, volume->upcase, raw);
    r = write_unused(volume, &room, &place, raw, err);
    if (r != 0)
        give_back(volume, first, size);
    if (r == 0)
        r = write_journal(volume, &place, &set, raw, err);
    exfat_place_finish(&room);
    return r;
}

int exfat_journal_use(struct exfat_volume *volume, struct error *err)
{
    if (!volume->journal_place)
        return make_journal(volume, err);
    if (!may_be_used(volume))
        return 0;
    return medium_journal(exfat_medium(volume),
                          exfat_offset(&volume->layout, volume->journal.first),
                          volume->journal.size, err);
}
