/* Mounting: the journal is recovered before anything else is believed. The first change makes the
 * journal, and says that the volume is in use; unmounting says that it is not. */
#include "fat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

#include "fat_names.h"
#include "journal_file.h"
#include "kinds.h"
#include "times.h"

enum {
    BOOT = 512,
    CLEAN_16 = 0x8000,
    CLEAN_32 = 0x08000000,
    SOUND_16 = 0x4000,
    SOUND_32 = 0x04000000,
};

static void destroy(struct fat_volume *volume)
{
    struct node *node;
    while ((node = nodes_any(&volume->nodes)))
        fat_node_free((struct fat_node *)node);
    nodes_finish(&volume->nodes);
    volume_finish(&volume->volume);
    pthread_rwlock_destroy(&volume->lock);
    budget_free(BUDGET_FIXED, volume->used);
    budget_free(BUDGET_FIXED, volume->freed);
    discards_finish(&volume->discards);
    free(volume);
}

static struct fat_node *make_root(const struct fat_layout *layout)
{
    uint8_t raw[FAT_ENTRY] = {[ENTRY_ATTRIBUTES] = FAT_FOLDER};
    fat_entry_set_first(layout, raw, layout->root_cluster);
    return fat_node_create(0, raw, layout);
}

/* What others say by the second word of the table, beside what is in the boot sector. */
static bool table_says_dirty(struct medium *medium, const struct fat_layout *layout)
{
    uint32_t value, bits = layout->kind == VOLUME_FAT16 ? CLEAN_16 | SOUND_16 : CLEAN_32 | SOUND_32;
    return layout->kind != VOLUME_FAT12 && fat_table_raw(medium, layout, 1, &value, NULL) == 0 &&
           (value & bits) != bits;
}

/* By what is on the medium now. */
static int build(struct medium *medium, const struct volume_options *options,
                 struct fat_volume **ret, struct error *err)
{
    uint8_t sector[BOOT];
    struct fat_layout layout;
    const char *page = options->codepage ? options->codepage : "cp437";
    const struct code_page *code_page = code_page_find(page);
    if (!code_page)
        return error_set(err, -EINVAL, "no code page: %s", page);
    int r = medium_read(medium, 0, sector, sizeof(sector), err);
    if (r == 0)
        r = fat_layout_read(sector, medium_size(medium), &layout, err);
    if (r != 0)
        return r;
    struct fat_volume *volume = xnew(struct fat_volume);
    volume_init(&volume->volume, &fat_ops, medium);
    volume->layout = layout;
    volume->volume.cluster_size = layout.cluster_size;
    volume->options = *options;
    volume->code_page = code_page;
    /* Content and tables that share a sector of the medium cannot be written one without the other.
     */
    volume->read_only = options->read_only || medium_read_only(medium) ||
                        layout.data_offset % medium_sector_size(medium) != 0 ||
                        layout.cluster_size % medium_sector_size(medium) != 0;
    volume->was_dirty = layout.dirty || table_says_dirty(medium, &layout);
    pthread_rwlock_init(&volume->lock, NULL);
    nodes_init(&volume->nodes);
    volume->root = make_root(&layout);
    nodes_add(&volume->nodes, &volume->root->node, NODE_ROOT);
    *ret = volume;
    return 0;
}

/* The journal's entry, without belief in anything but its slot. */
static void find_journal(struct fat_volume *volume)
{
    uint8_t raw[FAT_ENTRY];
    uint64_t offset;
    for (uint32_t slot = 0;
         fat_slot_read(volume, volume->root, slot, raw, &offset, NULL) == 1 && raw[0] != 0;
         slot++) {
        if (memcmp(raw, FAT_JOURNAL_SHORT, 11) != 0 ||
            (raw[ENTRY_ATTRIBUTES] & (FAT_FOLDER | FAT_LABEL)))
            continue;
        uint32_t first = fat_entry_first(&volume->layout, raw), size = get_le32(raw + ENTRY_SIZE);
        if (!fat_is_cluster(&volume->layout, first))
            continue;
        volume->journal_entry = offset;
        volume->journal_first = first;
        volume->journal_size = size;
        return;
    }
}

int fat_mount(struct medium *medium, const struct volume_options *options,
              struct volume **ret_volume, struct error *err)
{
    struct fat_volume *volume = NULL;
    enum medium_recovery recovery = MEDIUM_NO_JOURNAL;
    int r = build(medium, options, &volume, err);
    if (r != 0)
        return r;
    find_journal(volume);
    if (volume->journal_entry != 0)
        r = (options->read_only ? medium_look : medium_recover)(
            medium, fat_cluster_offset(&volume->layout, volume->journal_first),
            volume->journal_size, &recovery, err);
    if (r == 0 && recovery == MEDIUM_REPLAYED) {
        destroy(volume);
        r = build(medium, options, &volume, err);
        if (r != 0)
            return r;
        find_journal(volume);
    }
    if (r != 0) {
        destroy(volume);
        return r;
    }
    volume->damaged = false;
    volume->ours = volume->was_dirty && medium_was_in_use(medium);
    *ret_volume = &volume->volume;
    return 0;
}

/* The journal. */

/* Whether the file is what a journal must be: clusters next to each other, and no others. */
static bool is_usable(struct fat_volume *volume)
{
    uint32_t size = volume->layout.cluster_size, next;
    uint32_t least = journal_file_least(medium_sector_size(fat_medium(volume)));
    if (volume->journal_size % size != 0 || volume->journal_size < least ||
        volume->journal_size > MEDIUM_JOURNAL_MOST)
        return false;
    uint32_t count = volume->journal_size / size;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t cluster = volume->journal_first + i;
        if (!fat_is_cluster(&volume->layout, cluster) ||
            fat_table_get(volume, cluster, &next, NULL) != 0 ||
            next != (i + 1 < count ? cluster + 1 : TABLE_END))
            return false;
    }
    return true;
}

static void make_entry(struct fat_volume *volume, uint32_t first, uint32_t size, uint8_t *raw)
{
    memset(raw, 0, FAT_ENTRY);
    memcpy(raw, FAT_JOURNAL_SHORT, 11);
    raw[ENTRY_ATTRIBUTES] = FAT_HIDDEN | FAT_SYSTEM;
    fat_entry_set_first(&volume->layout, raw, first);
    put_le32(raw + ENTRY_SIZE, size);
    fat_entry_set_modified(raw, times_now(), volume->options.minutes_east);
    memcpy(raw + ENTRY_CREATED_TIME, raw + ENTRY_TIME, 4);
}

/* One update, through the new journal: the entry that leads to it is the first thing in place. */
static int make_file(struct fat_volume *volume, uint32_t first, uint32_t count, uint32_t slot,
                     struct error *err)
{
    struct fat_new_entry entry = {.first = slot, .count = 1};
    uint32_t size = count * volume->layout.cluster_size;
    uint64_t offset = 0;
    make_entry(volume, first, size, entry.raw[0]);
    int r = fat_begin(volume, fat_table_sectors(volume, first, count) + 4, err);
    if (r != 0)
        return r;
    r = fat_table_link(fat_medium(volume), &volume->layout, first, count, TABLE_END, err);
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = fat_folder_write(volume, volume->root, &entry, &offset, err);
    if (r == 0)
        medium_first(fat_medium(volume), offset);
    volume->free -= count;
    r = fat_finish(volume, r, err);
    if (r != 0) {
        volume->free += count;
        return r;
    }
    entry.length = fat_short_units(volume, entry.raw[0], entry.name);
    fat_folder_added(volume, volume->root, &entry);
    volume->held -= count;
    volume->journal_entry = offset;
    volume->journal_first = first;
    volume->journal_size = size;
    return medium_sync(fat_medium(volume), err);
}

/* Clusters that are the journal's stay so, whatever becomes of its file: the medium writes to them.
 */
static int place_journal(struct fat_volume *volume, const struct runs *runs, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint32_t first = runs->items[0].first, slot;
    int r = fat_folder_room(volume, volume->root, 1, &slot, err);
    /* What leads to the journal is in no journal. */
    if (r == 0)
        r = medium_settle(fat_medium(volume), err);
    if (r == 0)
        r = medium_journal(fat_medium(volume), fat_cluster_offset(layout, first),
                           (uint64_t)runs->clusters * layout->cluster_size, err);
    if (r != 0) {
        fat_space_give_back(volume, runs, 0);
        return r;
    }
    return make_file(volume, first, runs->clusters, slot, err);
}

/* No two files of one name: one of ours that is of no use goes, one of others (-EEXIST) means no
 * journal. */
static int name_is_free(struct fat_volume *volume, struct error *err)
{
    struct fat_entry entry;
    bool damaged = volume->damaged;
    int r = fat_find(volume, volume->root, FAT_JOURNAL, &entry, err);
    uint8_t ours = FAT_HIDDEN | FAT_SYSTEM;
    if (r == 0 && (entry.raw[ENTRY_ATTRIBUTES] & (ours | FAT_FOLDER)) == ours)
        r = fat_remove(volume, volume->root, FAT_JOURNAL, NODE_FILE, NULL) == 0 ? -ENOENT : 0;
    volume->damaged = damaged;
    return r == -ENOENT ? 0 : r == -ENOMEM ? r : -EEXIST;
}

static int make_journal(struct fat_volume *volume, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint32_t size = journal_file_size(layout->size, layout->cluster_size,
                                      medium_sector_size(fat_medium(volume)));
    uint32_t first;
    uint32_t count = size / layout->cluster_size;
    int r = name_is_free(volume, err);
    if (r == -ENOMEM)
        return r;
    if (r != 0 || count > volume->free / JOURNAL_SHARE ||
        fat_space_contiguous(volume, count, &first) != 0)
        return 0; /* there is no room for one */
    struct runs runs = {0};
    runs_add(&runs, first, count);
    r = place_journal(volume, &runs, err);
    runs_finish(&runs);
    return r == -ENOSPC ? 0 : r;
}

/* One that others have moved, so that it is not in one piece, makes way for a new one. */
static int open_journal(struct fat_volume *volume, struct error *err)
{
    bool damaged = volume->damaged;
    if (volume->journal_entry != 0 && is_usable(volume))
        return medium_journal(fat_medium(volume),
                              fat_cluster_offset(&volume->layout, volume->journal_first),
                              volume->journal_size, err);
    volume->damaged = damaged;
    volume->journal_entry = 0; /* a file like any other */
    return make_journal(volume, err);
}

/* Whether it is in use. */

static int mark_table(struct fat_volume *volume, bool dirty, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint32_t value, bit = layout->kind == VOLUME_FAT16 ? CLEAN_16 : CLEAN_32;
    if (layout->kind == VOLUME_FAT12)
        return 0;
    int r = fat_table_raw(fat_medium(volume), layout, 1, &value, err);
    if (r != 0)
        return r;
    value = dirty ? value & ~bit : value | bit;
    return fat_table_link(fat_medium(volume), layout, 1, 1, value, err);
}

static int mark(struct fat_volume *volume, bool dirty, struct error *err)
{
    struct medium *medium = fat_medium(volume);
    uint8_t flags;
    int r = fat_begin(volume, fat_table_sectors(volume, 1, 1) + 4, err);
    if (r != 0)
        return r;
    r = medium_read(medium, volume->layout.flags_offset, &flags, 1, err);
    flags = (uint8_t)(dirty ? flags | 1 : flags & ~1);
    if (r == 0)
        r = medium_write(medium, volume->layout.flags_offset, &flags, 1, err);
    if (r == 0)
        r = mark_table(volume, dirty, err);
    if (!volume->was_dirty || volume->ours)
        medium_set_in_use(medium, dirty);
    return fat_finish(volume, r, err);
}

int fat_start_writing(struct fat_volume *volume, struct error *err)
{
    if (volume->read_only)
        return error_set(err, -EROFS, "the volume is read-only");
    if (volume->damaged)
        return error_set(err, -EROFS, "the volume is damaged: it takes no more writes");
    if (volume->started && volume->marked)
        return 0;
    int r = volume->started ? 0 : fat_space_count(volume, err);
    if (r == 0 && !volume->started)
        r = open_journal(volume, err);
    bool first = !volume->started;
    volume->started |= r == 0;
    if (r == 0)
        r = mark(volume, true, err);
    if (r == 0)
        r = medium_settle(fat_medium(volume), err);
    volume->marked = r == 0;
    return r == 0 && first ? fat_leave_resume(volume, err) : r;
}

int fat_rest(struct fat_volume *volume, struct error *err)
{
    if (!volume->marked || volume->damaged || (volume->was_dirty && !volume->ours))
        return 0;
    int r = mark(volume, false, err);
    if (r == 0)
        r = medium_settle(fat_medium(volume), err);
    volume->marked = r != 0;
    return r;
}

int fat_start_repair(struct fat_volume *volume, struct error *err)
{
    if (volume->read_only)
        return error_set(err, -EROFS, "the volume is read-only");
    int r = fat_space_count(volume, err);
    volume->started = volume->marked = r == 0;
    return r;
}

int fat_unmount(struct volume *base, struct error *err)
{
    struct fat_volume *volume = (struct fat_volume *)base;
    int r = 0;
    if (!volume->read_only && !volume->damaged && (volume->started || volume->ours)) {
        r = volume->started ? fat_space_count(volume, err) : fat_start_writing(volume, err);
        if (r == 0 && (!volume->was_dirty || volume->ours))
            r = mark(volume, false, err);
        if (r == 0)
            r = medium_settle(fat_medium(volume), err);
        int64_t end = discards_end(DISCARDS_AT_END_MS);
        while (r == 0 && fat_space_discard(volume) && discards_have_time(end))
            ;
    }
    destroy(volume);
    return r;
}

int fat_find_label(struct fat_volume *volume, uint32_t *ret_slot, uint8_t *raw,
                   uint64_t *ret_offset, struct error *err)
{
    for (uint32_t slot = 0;; slot++) {
        int r = fat_slot_read(volume, volume->root, slot, raw, ret_offset, err);
        if (r <= 0 || raw[0] == 0)
            return r < 0 ? r : 0;
        uint8_t attributes = raw[ENTRY_ATTRIBUTES] & FAT_ATTRIBUTES;
        if (raw[0] != FAT_DELETED && attributes != FAT_LONG && (attributes & FAT_LABEL)) {
            *ret_slot = slot;
            return 1;
        }
    }
}
