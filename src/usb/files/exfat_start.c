/*
 * Mount: boot region -> the journal, which is found before anything else is believed, and what it
 * recovers -> bitmap, up-case table and label of the root folder. The first write: the journal is
 * made, and the volume says that it is in use. Unmount: it says that it is not.
 */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

#include "utf16.h"
#include "times.h"

enum {
    JOURNAL_ENTRIES = 3,
    JOURNAL_ROOM = 5, /* entries among which three are in one sector */
    JOURNAL_PART = 64,
    JOURNAL_SECTORS = 128, /* at least: updates of 30 sectors */
    BITMAP_FLAGS = 1,
    ENTRY_SUM = 4,
    ENTRY_FIRST = 20,
    ENTRY_SIZE = 24,
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

static void find_journal(struct exfat_volume *volume)
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

static void forget_root(struct exfat_volume *volume)
{
    exfat_runs_finish(&volume->root->runs);
    volume->root->complete = false;
    volume->damaged = false;
}

static int recover(struct exfat_volume *volume, struct error *err)
{
    enum medium_recovery recovery = MEDIUM_NO_JOURNAL;
    volume->dirty_before = volume->layout.flags & EXFAT_DIRTY;
    find_journal(volume);
    if (!volume->journal_place) {
        forget_root(volume);
        return 0;
    }
    uint64_t at = exfat_offset(&volume->layout, volume->journal.first);
    int r = (volume->read_only ? medium_look : medium_recover)(
        exfat_medium(volume), at, volume->journal.size, &recovery, err);
    if (r == 0 && recovery == MEDIUM_REPLAYED)
        r = exfat_layout_read(exfat_medium(volume), &volume->layout, err);
    volume->dirty_before =
        volume->layout.flags & EXFAT_DIRTY && !medium_was_in_use(exfat_medium(volume));
    forget_root(volume);
    find_journal(volume);
    forget_root(volume);
    return r;
}

/* What only the root folder has. */

static int take_bitmap(struct exfat_volume *volume, const uint8_t *entry, struct error *err)
{
    bool second = volume->layout.fats == 2 && volume->layout.flags & EXFAT_SECOND_FAT;
    uint64_t size = get_le64(entry + ENTRY_SIZE);
    if (volume->bitmap.clusters > 0 || (entry[BITMAP_FLAGS] & 1) != second)
        return 0;
    if (size < (volume->layout.clusters + UINT64_C(7)) / 8 || size > UINT32_MAX)
        return exfat_damage(volume, err, "the allocation bitmap is too small");
    return exfat_chain_load(volume, get_le32(entry + ENTRY_FIRST),
                            exfat_clusters_for(&volume->layout, size), &volume->bitmap, err);
}

static int read_upcase(struct exfat_volume *volume, const uint8_t *entry, uint8_t *data)
{
    const struct exfat_layout *layout = &volume->layout;
    uint64_t size = get_le64(entry + ENTRY_SIZE);
    struct exfat_runs runs = {0};
    if (size == 0 || size > EXFAT_UPCASE_BYTES_MOST)
        return -EUCLEAN;
    int r = exfat_chain_load(volume, get_le32(entry + ENTRY_FIRST),
                             exfat_clusters_for(layout, size), &runs, NULL);
    for (uint64_t at = 0; r == 0 && at < size; at += layout->cluster_size) {
        size_t part = size - at < layout->cluster_size ? (size_t)(size - at) : layout->cluster_size;
        uint32_t cluster = exfat_runs_cluster(&runs, (uint32_t)(at >> layout->cluster_shift));
        r = medium_read(exfat_medium(volume), exfat_offset(layout, cluster), data + at, part, NULL);
    }
    exfat_runs_finish(&runs);
    if (r == 0)
        r = exfat_upcase_read(data, (size_t)size, get_le32(entry + ENTRY_SUM), volume->upcase,
                              NULL);
    return r;
}

/* Names on it were written by another table than the recommended one, perhaps. */
static void take_upcase(struct exfat_volume *volume, const uint8_t *entry)
{
    uint8_t *data = xmalloc(EXFAT_UPCASE_BYTES_MOST);
    if (read_upcase(volume, entry, data) == 0)
        volume->upcase_size = get_le64(entry + ENTRY_SIZE);
    else
        exfat_upcase_recommended(volume->upcase);
    free(data);
}

static int take_entry(struct exfat_volume *volume, const uint8_t *entry, uint32_t position,
                      struct error *err)
{
    switch (entry[0]) {
    case EXFAT_BITMAP:
        return take_bitmap(volume, entry, err);
    case EXFAT_UPCASE:
        if (volume->upcase_size == 0)
            take_upcase(volume, entry);
        return 0;
    case EXFAT_LABEL:
    case EXFAT_LABEL & ~EXFAT_IN_USE:
        return volume->label_offset ? 0
                                    : exfat_folder_offset(volume, volume->root, position,
                                                          &volume->label_offset, err);
    case EXFAT_FILE:
        return 0;
    default:
        /* 8.2: who does not know a critical primary entry may not write. */
        if (entry[0] & EXFAT_IN_USE && !(entry[0] & (EXFAT_SECONDARY | EXFAT_BENIGN)))
            volume->read_only = true;
        return 0;
    }
}

static int read_root(struct exfat_volume *volume, struct error *err)
{
    uint8_t entry[EXFAT_ENTRY];
    int r;
    for (uint32_t position = 0;; position++) {
        r = exfat_folder_read(volume, volume->root, position, 1, entry, err);
        if (r <= 0 || entry[0] == EXFAT_END_OF_FOLDER)
            break;
        r = take_entry(volume, entry, position, err);
        if (r < 0)
            break;
    }
    if (r >= 0 && volume->bitmap.clusters == 0)
        r = exfat_damage(volume, err, "there is no allocation bitmap");
    if (volume->upcase_size == 0)
        volume->read_only = true;
    return r < 0 ? r : 0;
}

static void volume_free(struct exfat_volume *volume)
{
    for (struct node *node; (node = nodes_any(&volume->nodes));)
        exfat_node_free((struct exfat_node *)node);
    nodes_finish(&volume->nodes);
    volume_finish(&volume->volume);
    exfat_runs_finish(&volume->bitmap);
    pthread_rwlock_destroy(&volume->lock);
    free(volume->used);
    free(volume->freed);
    discards_finish(&volume->discards);
    free(volume->upcase);
    free(volume);
}

/* Clusters that share a sector of the medium cannot be written one without the other. */
static bool shares_sectors(const struct exfat_volume *volume)
{
    uint32_t sector = medium_sector_size(exfat_medium(volume));
    return volume->layout.cluster_size % sector != 0 ||
           exfat_offset(&volume->layout, EXFAT_FIRST_CLUSTER) % sector != 0;
}

int exfat_mount(struct medium *medium, const struct volume_options *options,
                struct volume **ret_volume, struct error *err)
{
    struct exfat_layout layout;
    int r = exfat_layout_read(medium, &layout, err);
    if (r != 0)
        return r;
    struct exfat_volume *volume = xnew(struct exfat_volume);
    volume_init(&volume->volume, &exfat_ops, medium);
    volume->layout = layout;
    volume->volume.cluster_size = layout.cluster_size;
    volume->options = *options;
    volume->upcase = xnew(struct exfat_upcase);
    exfat_upcase_recommended(volume->upcase);
    pthread_rwlock_init(&volume->lock, NULL);
    nodes_init(&volume->nodes);
    volume->root = exfat_node_create(NULL, NODE_FOLDER);
    nodes_add(&volume->nodes, &volume->root->node, NODE_ROOT);
    volume->read_only = options->read_only || medium_read_only(medium) || shares_sectors(volume);
    r = recover(volume, err);
    if (r == 0)
        r = read_root(volume, err);
    if (volume->layout.fats != 1 || volume->layout.of_backup)
        volume->read_only = true;
    if (r != 0) {
        volume_free(volume);
        return r;
    }
    *ret_volume = &volume->volume;
    return 0;
}

/* The first write. */

static int write_flags(struct exfat_volume *volume, bool dirty, struct error *err)
{
    uint16_t flags = volume->layout.flags;
    uint64_t used = volume->layout.clusters - volume->free;
    flags = (uint16_t)(dirty ? flags | EXFAT_DIRTY : flags & ~EXFAT_DIRTY);
    return exfat_write_flags(exfat_medium(volume), &volume->layout, flags,
                             (uint8_t)(used * 100 / volume->layout.clusters), err);
}

/* Says in one update whether the volume is in use. What others left so stays so. */
static int mark(struct exfat_volume *volume, bool in_use, struct error *err)
{
    int r = exfat_begin(volume, 1, err);
    if (r != 0)
        return r;
    if (!volume->dirty_before)
        medium_set_in_use(exfat_medium(volume), in_use);
    return exfat_finish(volume, write_flags(volume, in_use || volume->dirty_before, err), err);
}

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

/* No two sets of one name: one of ours that is of no use goes, one of others means no journal. */
static bool name_is_free(struct exfat_volume *volume)
{
    struct exfat_entries *entries = xnew(struct exfat_entries);
    uint16_t units[EXFAT_NAME_UNITS], ours = EXFAT_HIDDEN | EXFAT_SYSTEM;
    bool damaged = volume->damaged;
    int length = utf16_from_utf8(EXFAT_JOURNAL_NAME, units, EXFAT_NAME_UNITS);
    int r = exfat_folder_find(volume, volume->root, units, (unsigned)length, entries, NULL);
    exfat_place_finish(&entries->place);
    if (r == 0 && (entries->set.attributes & (ours | EXFAT_FOLDER)) == ours)
        r = exfat_remove(volume, volume->root, EXFAT_JOURNAL_NAME, NODE_FILE, NULL) == 0 ? -ENOENT
                                                                                         : 0;
    volume->damaged = damaged;
    free(entries);
    return r == -ENOENT;
}

static int make_journal(struct exfat_volume *volume, struct error *err)
{
    uint8_t raw[EXFAT_SET_MOST * EXFAT_ENTRY];
    struct exfat_place room;
    uint32_t first = 0;
    if (!name_is_free(volume))
        return 0;
    uint64_t size = journal_size(volume);
    while (size >= journal_least(volume) &&
           exfat_space_contiguous(volume, (uint32_t)exfat_clusters_for(&volume->layout, size),
                                  &first) != 0)
        size /= 2;
    if (size < journal_least(volume))
        return 0;
    int r = exfat_folder_room(volume, volume->root, JOURNAL_ROOM, &room, err);
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

static int use_journal(struct exfat_volume *volume, struct error *err)
{
    if (!volume->journal_place)
        return make_journal(volume, err);
    if (!may_be_used(volume))
        return 0;
    return medium_journal(exfat_medium(volume),
                          exfat_offset(&volume->layout, volume->journal.first),
                          volume->journal.size, err);
}

static int prepare_writing(struct exfat_volume *volume, struct error *err)
{
    int r = exfat_space_read(volume, err);
    if (r == 0)
        r = exfat_runs_load(volume, volume->root, UINT64_MAX, err);
    return r == 0 ? use_journal(volume, err) : r;
}

int exfat_start_writing(struct exfat_volume *volume, struct error *err)
{
    if (volume->started && volume->marked)
        return 0;
    if (volume->read_only || volume->damaged)
        return error_set(err, -EROFS,
                         volume->damaged ? "the volume is damaged" : "the volume is read-only");
    int r = volume->started ? 0 : prepare_writing(volume, err);
    bool first = !volume->started;
    volume->started |= r == 0;
    if (r == 0)
        r = mark(volume, true, err);
    if (r == 0)
        r = medium_settle(exfat_medium(volume), err);
    volume->marked = r == 0;
    return r == 0 && first ? exfat_remove_parked(volume, err) : r;
}

static int mark_clean(struct exfat_volume *volume, struct error *err)
{
    int r = medium_settle(exfat_medium(volume), err);
    if (r == 0)
        r = mark(volume, false, err);
    return r == 0 ? medium_settle(exfat_medium(volume), err) : r;
}

int exfat_rest(struct exfat_volume *volume, struct error *err)
{
    if (!volume->marked || volume->damaged)
        return 0;
    int r = mark_clean(volume, err);
    volume->marked = r != 0;
    return r;
}

int exfat_unmount(struct volume *volume, struct error *err)
{
    struct exfat_volume *exfat = (struct exfat_volume *)volume;
    bool ours = exfat->layout.flags & EXFAT_DIRTY && !exfat->dirty_before;
    int r = 0;
    if (ours && !exfat->read_only && !exfat->damaged)
        r = exfat_start_writing(exfat, err); /* what a power cut left is settled */
    if (r == 0 && exfat->started && !exfat->damaged)
        r = mark_clean(exfat, err);
    else if (r == 0 && exfat->started)
        r = medium_settle(exfat_medium(exfat), err);
    int64_t end = discards_end(DISCARDS_AT_END_MS);
    while (r == 0 && exfat->started && exfat_space_discard(exfat) && discards_have_time(end))
        ;
    volume_free(exfat);
    return r;
}
