#include "fat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

#include "folder_index.h"
#include "times.h"

struct fat_node *fat_node_create(uint64_t offset, const uint8_t *raw,
                                 const struct fat_layout *layout)
{
    struct fat_node *node = xnew(struct fat_node);
    pthread_mutex_init(&node->lock, NULL);
    node->entry_offset = offset;
    memcpy(node->entry, raw, FAT_ENTRY);
    node->type = raw[ENTRY_ATTRIBUTES] & FAT_FOLDER ? NODE_FOLDER : NODE_FILE;
    node->size = node->type == NODE_FILE ? get_le32(raw + ENTRY_SIZE) : 0;
    node->reserved_end = node->size;
    node->first = fat_entry_first(layout, raw);
    return node;
}

void fat_node_free(struct fat_node *node)
{
    runs_finish(&node->runs);
    folder_index_free(node->index);
    pthread_mutex_destroy(&node->lock);
    free(node);
}

static int check_entry(struct fat_volume *volume, const struct fat_entry *entry, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint32_t first = fat_entry_first(layout, entry->raw);
    bool folder = entry->raw[ENTRY_ATTRIBUTES] & FAT_FOLDER;
    uint32_t size = get_le32(entry->raw + ENTRY_SIZE);
    if (first != 0 && !fat_is_cluster(layout, first))
        return fat_damage(volume, err, "an entry leads to cluster %u, which there is not", first);
    if (folder && (first == 0 || first == volume->root->first))
        return fat_damage(volume, err, "a folder that leads to cluster %u", first);
    if (!folder && (first == 0) != (size == 0) && first == 0)
        return fat_damage(volume, err, "a file of %u bytes without a cluster", size);
    return 0;
}

int fat_node_of(struct fat_volume *volume, const struct fat_entry *entry, struct fat_node **ret,
                struct error *err)
{
    uint64_t place = entry->offset / FAT_ENTRY + NODE_ROOT + 1;
    struct node *found = nodes_find(&volume->nodes, place);
    if (!found) {
        int r = check_entry(volume, entry, err);
        if (r != 0)
            return r;
        struct fat_node *node = fat_node_create(entry->offset, entry->raw, &volume->layout);
        found = nodes_add(&volume->nodes, &node->node, place);
        if (found != &node->node)
            fat_node_free(node);
    }
    *ret = (struct fat_node *)found;
    return 0;
}

/* What only memory knew of it is free again; what was removed while it was held, too, when its
 * removal is durable. */
static void release(struct fat_volume *volume, struct fat_node *node)
{
    struct runs *runs = &node->runs;
    if (!volume->used || !node->complete)
        return;
    fat_space_give_back(volume, runs, node->linked);
    runs_cut(runs, node->linked);
    if (node->removed && !node->stays && node->linked > 0) {
        fat_space_freed(volume, runs, 0, node->linked, medium_running(fat_medium(volume)),
                        node->type == NODE_FOLDER);
        volume->held -= node->linked;
    }
}

void fat_node_drop(struct fat_volume *volume, struct fat_node *node, uint64_t times)
{
    if (node == volume->root || !nodes_drop(&volume->nodes, &node->node, times))
        return;
    release(volume, node);
    fat_node_free(node);
}

int64_t fat_entry_modified(const uint8_t *raw, int minutes_east)
{
    struct dos_time time = {get_le16(raw + ENTRY_DATE), get_le16(raw + ENTRY_TIME), 0};
    return dos_time_to(time, minutes_east);
}

void fat_entry_set_modified(uint8_t *raw, int64_t when, int minutes_east)
{
    struct dos_time time = dos_time_from(when, minutes_east);
    put_le16(raw + ENTRY_DATE, time.date);
    put_le16(raw + ENTRY_TIME, time.time);
    put_le16(raw + ENTRY_ACCESSED_DATE, time.date);
}

int fat_entry_write(struct fat_volume *volume, const struct fat_node *node, struct error *err)
{
    return medium_write(fat_medium(volume), node->entry_offset, node->entry, FAT_ENTRY, err);
}

/* Since when it was not used; those whose runs are only in memory stay. */
struct shrinking {
    struct fat_volume *volume;
    uint64_t oldest, newest, before;
};

static bool can_forget(const struct fat_volume *volume, const struct fat_node *node)
{
    return node != volume->root && !node->removed &&
           (!node->complete || node->linked == node->runs.clusters);
}

static void look_how_old(struct node *node, void *data)
{
    const struct fat_node *fat = (struct fat_node *)node;
    struct shrinking *shrinking = data;
    if (!fat->runs.room && !fat->index)
        return;
    if (fat->used < shrinking->oldest)
        shrinking->oldest = fat->used;
    if (fat->used > shrinking->newest)
        shrinking->newest = fat->used;
}

static void forget_old(struct node *node, void *data)
{
    struct fat_node *fat = (struct fat_node *)node;
    const struct shrinking *shrinking = data;
    if (fat->used > shrinking->before)
        return;
    folder_index_free(steal_ptr(fat->index));
    if (!can_forget(shrinking->volume, fat))
        return;
    runs_finish(&fat->runs);
    fat->complete = false;
    fat->linked = 0;
}

void fat_nodes_shrink(struct fat_volume *volume, bool all)
{
    struct shrinking shrinking = {.volume = volume, .oldest = UINT64_MAX};
    if (!budget_is_tight())
        return;
    nodes_each(&volume->nodes, look_how_old, &shrinking);
    if (shrinking.oldest < shrinking.newest) {
        shrinking.before = shrinking.oldest + (shrinking.newest - shrinking.oldest) / 2;
        nodes_each(&volume->nodes, forget_old, &shrinking);
    }
    if (!budget_is_tight() || (shrinking.newest == 0 && !all))
        return;
    shrinking.before = all ? UINT64_MAX : shrinking.newest - 1;
    nodes_each(&volume->nodes, forget_old, &shrinking);
}
