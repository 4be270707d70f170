/*
 * Mount: boot region -> the journal (exfat_journal.c), which is found before anything else is
 * believed, and what it recovers -> bitmap, up-case table and label of the root folder. The first
 * write: the journal is made, and the volume says that it is in use. Unmount: it says that it is
 * not.
 */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

enum {
    BITMAP_FLAGS = 1,
    ENTRY_SUM = 4,
    ENTRY_FIRST = 20,
    ENTRY_SIZE = 24,
};

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
    exfat_journal_find(volume);
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
    exfat_journal_find(volume);
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
    budget_free(BUDGET_FIXED, volume->used);
    budget_free(BUDGET_FIXED, volume->freed);
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

static int prepare_writing(struct exfat_volume *volume, struct error *err)
{
    int r = exfat_space_read(volume, err);
    if (r == 0)
        r = exfat_runs_load(volume, volume->root, UINT64_MAX, err);
    return r == 0 ? exfat_journal_use(volume, err) : r;
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
