/*
 * Size and content of files.
 *
 * Room for a write is taken in memory only; when the content was written, one update links the
 * clusters and sets the size. So a chain is never longer than its file.
 */
#include "fat.h"

#include <errno.h>
#include <string.h>

#include <block/bytes.h>

#include "content.h"
#include "times.h"

static int load_all(struct fat_volume *volume, struct fat_node *file, struct error *err)
{
    int r = fat_runs_load(volume, file, UINT32_MAX, err);
    if (r == 0 && file->runs.clusters < fat_clusters_of(&volume->layout, file->size))
        r = fat_damage(volume, err, "a file of %u bytes with %u clusters", file->size,
                       file->runs.clusters);
    return r;
}

int fat_map(struct fat_volume *volume, struct fat_node *file, uint64_t offset, uint64_t length,
            struct extent *extents, size_t room, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint64_t end = file->reserved_end > file->size ? file->reserved_end : file->size;
    size_t count = 0;
    if (offset >= end)
        return 0;
    end = length < end - offset ? offset + length : end;
    int r = fat_runs_load(volume, file, fat_clusters_of(layout, end), err);
    if (r == 0 && file->runs.clusters < fat_clusters_of(layout, end))
        r = fat_damage(volume, err, "a file of %u bytes with %u clusters", file->size,
                       file->runs.clusters);
    while (r == 0 && count < room && offset < end) {
        const struct run *run = runs_find(&file->runs, (uint32_t)(offset / layout->cluster_size));
        uint64_t in = offset - (uint64_t)run->at * layout->cluster_size;
        uint64_t part = (uint64_t)run->count * layout->cluster_size - in;
        if (part > end - offset)
            part = end - offset;
        extents[count++] = (struct extent){fat_cluster_offset(layout, run->first) + in, part};
        offset += part;
    }
    return r == 0 ? (int)count : r;
}

static int zero(struct fat_volume *volume, struct fat_node *file, uint64_t from, uint64_t to,
                struct error *err)
{
    while (from < to) {
        struct extent extent;
        int r = fat_map(volume, file, from, to - from, &extent, 1, err);
        if (r == 1)
            r = medium_zero_content(fat_medium(volume), extent.offset, extent.length, err);
        if (r != 0)
            return r;
        from += extent.length;
    }
    return 0;
}

/* Clusters in memory up to `bytes` of the file. */
static int take_up_to(struct fat_volume *volume, struct fat_node *file, uint64_t bytes,
                      struct error *err)
{
    uint32_t want = fat_clusters_of(&volume->layout, bytes), have = file->runs.clusters;
    const struct run *last = file->runs.count ? &file->runs.items[file->runs.count - 1] : NULL;
    uint32_t near = last ? last->first + last->count : 0;
    return want > have ? fat_space_take(volume, want - have, near, &file->runs, err) : 0;
}

int fat_reserve(struct fat_volume *volume, struct fat_node *file, uint64_t offset, uint64_t length,
                struct error *err)
{
    if (length > FAT_SIZE_MOST || offset > FAT_SIZE_MOST - length)
        return error_set(err, -EFBIG, "a file of FAT has at most 4 GiB");
    int r = load_all(volume, file, err);
    if (r == 0)
        r = take_up_to(volume, file, offset + length, err);
    uint64_t had = file->reserved_end;
    if (r == 0 && offset > had) {
        file->reserved_end = offset - had > CONTENT_STEP ? had + CONTENT_STEP : offset;
        r = zero(volume, file, had, file->reserved_end, err);
        if (r != 0)
            file->reserved_end = had;
        else if (file->reserved_end < offset)
            return 1;
    }
    if (r == 0 && offset + length > file->reserved_end)
        file->reserved_end = offset + length;
    return r;
}

void fat_unreserve(struct fat_volume *volume, struct fat_node *file)
{
    uint32_t keep_clusters = fat_clusters_of(&volume->layout, file->size);
    keep_clusters = keep_clusters > file->linked ? keep_clusters : file->linked;
    if (file->complete && file->runs.clusters > keep_clusters) {
        fat_space_give_back(volume, &file->runs, keep_clusters);
        runs_cut(&file->runs, keep_clusters);
    }
    file->reserved_end = file->size;
}

/* How many of the clusters [from, to) can be linked or freed within so many sectors; at least one.
 * From the end: those at the end. */
static uint32_t clusters_within(const struct fat_volume *volume, const struct runs *runs,
                                uint32_t from, uint32_t to, unsigned sectors, bool from_end,
                                unsigned *ret_sectors)
{
    uint32_t count = 0;
    unsigned used = fat_table_sectors(volume, FAT_FIRST, 1);
    while (count < to - from) {
        const struct run *run = runs_find(runs, from_end ? to - count - 1 : from + count);
        uint32_t low = run->at < from ? from : run->at, high = run->at + run->count;
        if (high > to)
            high = to;
        uint32_t part = from_end ? to - count - low : high - from - count;
        unsigned need = fat_table_sectors(volume, run->first, part);
        while (count == 0 && part > 1 && used + need > sectors) {
            part /= 2;
            need = fat_table_sectors(volume, run->first, part);
        }
        if (count > 0 && used + need > sectors)
            break;
        used += need;
        count += part;
        if (used > sectors)
            break;
    }
    *ret_sectors = used;
    return count;
}

static int write_size(struct fat_volume *volume, struct fat_node *file, uint32_t size,
                      struct error *err)
{
    file->size = size;
    put_le32(file->entry + ENTRY_SIZE, size);
    fat_entry_set_first(&volume->layout, file->entry, file->first);
    return fat_entry_write(volume, file, err);
}

struct before {
    uint8_t entry[FAT_ENTRY];
    uint32_t size, first;
};

static struct before keep(const struct fat_node *file)
{
    struct before before = {.size = file->size, .first = file->first};
    memcpy(before.entry, file->entry, FAT_ENTRY);
    return before;
}

static void put_back(struct fat_node *file, const struct before *before)
{
    memcpy(file->entry, before->entry, FAT_ENTRY);
    file->size = before->size;
    file->first = before->first;
}

/* Links reserved clusters up to number `to`, and the size becomes `size`: one update. */
static int link_up_to(struct fat_volume *volume, struct fat_node *file, uint32_t to, uint32_t size,
                      unsigned sectors, struct error *err)
{
    struct before before = keep(file);
    uint32_t count = to - file->linked;
    int r = fat_begin(volume, sectors + 4, err);
    if (r != 0)
        return r;
    if (count > 0)
        r = fat_table_link_runs(volume, &file->runs, file->linked, to, true, err);
    if (file->linked == 0 && count > 0)
        file->first = file->runs.items[0].first;
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = write_size(volume, file, size, err);
    volume->free -= count;
    r = fat_finish(volume, r, err);
    if (r != 0) {
        volume->free += count;
        put_back(file, &before);
        return r;
    }
    volume->held -= count;
    file->linked = to;
    return 0;
}

static void touch(struct fat_volume *volume, struct fat_node *file)
{
    fat_entry_set_modified(file->entry, times_now(), volume->options.minutes_east);
    file->entry[ENTRY_ATTRIBUTES] |= FAT_ARCHIVE;
}

int fat_wrote(struct fat_volume *volume, struct fat_node *file, uint64_t end, bool dated,
              struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint8_t before[FAT_ENTRY];
    memcpy(before, file->entry, FAT_ENTRY);
    if (end > file->reserved_end && end > file->size)
        return error_set(err, -EINVAL, "nothing was reserved up to %llu", (unsigned long long)end);
    bool grows = end > file->size;
    int r = grows ? load_all(volume, file, err) : 0; /* they may have been dropped since */
    if (r != 0)
        return r;
    uint32_t size = grows ? (uint32_t)end : file->size;
    if (dated)
        file->entry[ENTRY_ATTRIBUTES] |= FAT_ARCHIVE;
    else
        touch(volume, file);
    if (file->removed) {
        file->size = size;
        return 0;
    }
    uint32_t want = grows ? fat_clusters_of(layout, size) : file->linked;
    if (want <= file->linked && size == file->size && memcmp(before, file->entry, FAT_ENTRY) == 0)
        return 0;
    while (want > file->linked) {
        unsigned sectors;
        uint32_t part = clusters_within(volume, &file->runs, file->linked, want,
                                        fat_table_most(volume), false, &sectors);
        uint32_t to = file->linked + part;
        uint64_t bytes = (uint64_t)to * layout->cluster_size;
        r = link_up_to(volume, file, to, to < want ? (uint32_t)bytes : size, sectors, err);
        if (r != 0 || to == want)
            return r;
    }
    return link_up_to(volume, file, file->linked, size, 0, err);
}

int fat_free_clusters(struct fat_volume *volume, struct fat_node *node, uint32_t from, uint32_t to,
                      struct error *err)
{
    int r = 0;
    for (uint32_t at = from; r == 0 && at < to;) {
        const struct run *run = runs_find(&node->runs, at);
        uint32_t end = run->at + run->count < to ? run->at + run->count : to;
        r = fat_table_fill(fat_medium(volume), &volume->layout, run->first + (at - run->at),
                           end - at, TABLE_FREE, err);
        at = end;
    }
    return r;
}

/* The chain ends behind `count` clusters. */
static int end_chain(struct fat_volume *volume, struct fat_node *node, uint32_t count,
                     struct error *err)
{
    const struct run *run = count > 0 ? runs_find(&node->runs, count - 1) : NULL;
    return run ? fat_table_link(fat_medium(volume), &volume->layout,
                                run->first + (count - 1 - run->at), 1, TABLE_END, err)
               : 0;
}

/* Frees the clusters from number `keep` on; the size is that of what is left. One update. */
static int unlink_from(struct fat_volume *volume, struct fat_node *node, uint32_t keep_clusters,
                       uint32_t size, unsigned sectors, struct error *err)
{
    struct before before = keep(node);
    uint32_t count = node->linked - keep_clusters;
    int r = fat_begin(volume, sectors + 4, err);
    if (r != 0)
        return r;
    if (keep_clusters == 0)
        node->first = 0;
    r = write_size(volume, node, size, err);
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = end_chain(volume, node, keep_clusters, err);
    if (r == 0)
        r = fat_free_clusters(volume, node, keep_clusters, node->linked, err);
    volume->free += count;
    uint64_t update = medium_running(fat_medium(volume));
    r = fat_finish(volume, r, err);
    if (r != 0) {
        volume->free -= count;
        put_back(node, &before);
        return r;
    }
    fat_space_freed(volume, &node->runs, keep_clusters, count, update, node->type == NODE_FOLDER);
    runs_cut(&node->runs, keep_clusters);
    node->linked = keep_clusters;
    return 0;
}

static void give_back_reserved(struct fat_volume *volume, struct fat_node *file)
{
    fat_space_give_back(volume, &file->runs, file->linked);
    runs_cut(&file->runs, file->linked);
}

/* Shortens the chain so far that what is left above `keep_clusters` can be freed by one update. */
static int shrink(struct fat_volume *volume, struct fat_node *node, uint32_t keep_clusters,
                  unsigned sectors, struct error *err)
{
    give_back_reserved(volume, node);
    while (node->linked > keep_clusters) {
        unsigned used;
        uint32_t part =
            clusters_within(volume, &node->runs, keep_clusters, node->linked, sectors, true, &used);
        if (part == node->linked - keep_clusters)
            break;
        uint64_t size = (uint64_t)(node->linked - part) * volume->layout.cluster_size;
        int r = unlink_from(volume, node, node->linked - part,
                            size < node->size ? (uint32_t)size : node->size, used, err);
        if (r != 0)
            return r;
        node->reserved_end = node->size;
    }
    return 0;
}

bool fat_frees_at_once(struct fat_volume *volume, const struct fat_node *node,
                       unsigned *ret_sectors)
{
    return clusters_within(volume, &node->runs, 0, node->linked, fat_table_most(volume), true,
                           ret_sectors) == node->linked;
}

int fat_detach(struct fat_volume *volume, struct fat_node *node, uint32_t *ret_left,
               struct error *err)
{
    uint32_t left = node->linked;
    for (;;) {
        unsigned sectors;
        uint32_t part =
            clusters_within(volume, &node->runs, 0, left, fat_table_most(volume), true, &sectors);
        if (part == left)
            break;
        uint64_t size = (uint64_t)(left - part) * volume->layout.cluster_size;
        uint8_t entry[FAT_ENTRY];
        memcpy(entry, node->entry, FAT_ENTRY);
        if (size < node->size)
            put_le32(entry + ENTRY_SIZE, (uint32_t)size);
        int r = fat_begin(volume, sectors + 4, err);
        if (r != 0)
            return r;
        if (node->entry_offset != 0)
            r = medium_write(fat_medium(volume), node->entry_offset, entry, FAT_ENTRY, err);
        medium_barrier(fat_medium(volume));
        if (r == 0)
            r = end_chain(volume, node, left - part, err);
        if (r == 0)
            r = fat_free_clusters(volume, node, left - part, left, err);
        volume->free += part;
        r = fat_finish(volume, r, err);
        if (r != 0) {
            volume->free -= part;
            return r;
        }
        volume->held += part;
        left -= part;
    }
    *ret_left = left;
    return 0;
}

/* Of a file that has no entry any more, the clusters are in memory only. */
static void cut_removed(struct fat_volume *volume, struct fat_node *file, uint32_t size)
{
    uint32_t keep_clusters = fat_clusters_of(&volume->layout, size);
    if (keep_clusters < file->linked) {
        uint32_t count = file->linked - keep_clusters;
        give_back_reserved(volume, file);
        fat_space_freed(volume, &file->runs, keep_clusters, count,
                        medium_running(fat_medium(volume)), false);
        volume->held -= count;
        file->linked = keep_clusters;
    } else {
        fat_space_give_back(volume, &file->runs, keep_clusters);
    }
    runs_cut(&file->runs, keep_clusters);
    file->size = size;
}

int fat_truncate(struct fat_volume *volume, struct fat_node *file, uint64_t size, struct error *err)
{
    if (size > FAT_SIZE_MOST)
        return error_set(err, -EFBIG, "a file of FAT has at most 4 GiB");
    int r = load_all(volume, file, err);
    if (r != 0)
        return r;
    if (size > file->size) {
        r = fat_reserve(volume, file, size, 0, err);
        return r == 0 ? fat_wrote(volume, file, size, false, err) : r;
    }
    touch(volume, file);
    uint32_t keep_clusters = fat_clusters_of(&volume->layout, size);
    if (file->removed) {
        cut_removed(volume, file, (uint32_t)size);
    } else {
        unsigned sectors = 0;
        r = shrink(volume, file, keep_clusters, fat_table_most(volume), err);
        if (r == 0 && file->linked > keep_clusters)
            clusters_within(volume, &file->runs, keep_clusters, file->linked,
                            fat_table_most(volume), true, &sectors);
        if (r == 0)
            r = unlink_from(volume, file, keep_clusters, (uint32_t)size,
                            sectors + fat_table_sectors(volume, FAT_FIRST, 1), err);
    }
    if (r == 0)
        file->reserved_end = size;
    return r;
}
