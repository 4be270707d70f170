/*
 * Names that go: remove, and what a rename replaces.
 *
 * What one update can free goes with its name. A larger file is parked by that update: it becomes a
 * hidden file of the root folder, so that its name is gone at once and as a whole. Then that one
 * becomes shorter by updates of its own until there is nothing left. Where the power goes
 * meanwhile, the next one to write to the volume goes on. Where the root folder is full, nothing
 * leads to the clusters from that update on, and they are freed by and by: where the power goes,
 * what is left of them is left to a check.
 */
#include <errno.h>
#include <string.h>

#include <block/bytes.h>

#include "fat_names.h"

#define PARKED_SHORT "CLOCHE  DEL"

enum { PARKED_ATTRIBUTES = FAT_HIDDEN | FAT_SYSTEM };

int fat_wrong_type(enum node_type is, struct error *err)
{
    return is == NODE_FOLDER ? error_set(err, -EISDIR, "it is a folder")
                             : error_set(err, -ENOTDIR, "it is no folder");
}

int fat_leave_prepare(struct fat_volume *volume, struct fat_leaving *leaving, struct error *err)
{
    int r = fat_node_of(volume, &leaving->entry, &leaving->node, err);
    if (r != 0)
        return r;
    if (leaving->node->type == NODE_FOLDER)
        r = fat_folder_is_empty(volume, leaving->node, err);
    if (r == -ENOTEMPTY)
        error_set(err, r, "the folder is not empty");
    if (r == 0)
        r = fat_runs_load(volume, leaving->node, UINT32_MAX, err);
    if (r != 0) {
        fat_node_drop(volume, leaving->node, 1);
        return r;
    }
    leaving->left = leaving->node->linked;
    leaving->parks = !fat_frees_at_once(volume, leaving->node, &leaving->sectors);
    unsigned most = fat_table_most(volume); /* one cluster is freed by fewer than are counted */
    leaving->sectors = leaving->parks ? 0 : leaving->sectors < most ? leaving->sectors : most;
    return 0;
}

int fat_leave_room(struct fat_volume *volume, struct fat_leaving *leaving,
                   const struct fat_node *beside, const struct fat_new_entry *made,
                   struct error *err)
{
    struct fat_new_entry *parked = &leaving->parked;
    uint8_t *raw = parked->raw[0];
    if (!leaving->parks)
        return 0;
    bool same = made && beside == volume->root;
    int r = fat_folder_room_beside(volume, volume->root, 1, same ? made->first : 0,
                                   same ? made->count : 0, &parked->first, err);
    leaving->left = 0;
    if (r == -ENOSPC) {
        leaving->parks = false;
        leaving->is_lost = true;
        return 0;
    }
    parked->count = 1;
    memcpy(raw, leaving->node->entry, FAT_ENTRY);
    memcpy(raw, PARKED_SHORT, 11);
    raw[ENTRY_ATTRIBUTES] = PARKED_ATTRIBUTES;
    raw[ENTRY_CASE] = 0;
    parked->length = fat_short_units(volume, raw, parked->name);
    return r;
}

int fat_leave_write(struct fat_volume *volume, struct fat_node *folder, struct fat_leaving *leaving,
                    struct error *err)
{
    int r = 0;
    if (leaving->parks)
        r = fat_folder_write(volume, volume->root, &leaving->parked, &leaving->parked_offset, err);
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = fat_folder_erase(volume, folder, &leaving->entry, err);
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = fat_free_clusters(volume, leaving->node, 0, leaving->left, err);
    if (r == 0)
        volume->free += leaving->left;
    return r;
}

/* What is parked becomes shorter, and goes. Its node is in no table of nodes. */
static int free_parked(struct fat_volume *volume, struct fat_node *node,
                       const struct fat_entry *entry, struct error *err)
{
    uint32_t left = 0;
    int r = fat_detach(volume, node, &left, err);
    if (r == 0)
        r = fat_begin(volume, fat_table_most(volume) + 4, err);
    if (r != 0)
        return r;
    r = fat_folder_erase(volume, volume->root, entry, err);
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = fat_free_clusters(volume, node, 0, left, err);
    volume->free += left;
    r = fat_finish(volume, r, err);
    if (r != 0) {
        volume->free -= left;
        return r;
    }
    volume->held += left;
    fat_folder_removed(volume, volume->root, entry);
    return 0;
}

/* Nothing leads to it any more: what cannot be freed now is left to a check. */
static void free_lost(struct fat_volume *volume, struct fat_node *node)
{
    uint32_t left = 0;
    node->entry_offset = 0;
    int r = fat_detach(volume, node, &left, NULL);
    if (r == 0)
        r = fat_begin(volume, fat_table_most(volume) + 4, NULL);
    if (r == 0) {
        r = fat_free_clusters(volume, node, 0, left, NULL);
        volume->free += left;
        r = fat_finish(volume, r, NULL);
        volume->free -= r == 0 ? 0 : left;
        volume->held += r == 0 ? left : 0;
    }
    node->stays = r != 0;
}

/* The name is gone already: what cannot be freed now is freed when the volume is next written to.
 */
static void free_what_is_parked(struct fat_volume *volume, struct fat_leaving *leaving)
{
    const struct fat_new_entry *parked = &leaving->parked;
    struct fat_entry entry = {.first = parked->first, .slot = parked->first};
    fat_folder_added(volume, volume->root, parked);
    memcpy(entry.raw, parked->raw[0], FAT_ENTRY);
    memcpy(entry.name, parked->name, parked->length * sizeof(*parked->name));
    entry.length = parked->length;
    memcpy(leaving->node->entry, parked->raw[0], FAT_ENTRY);
    leaving->node->entry_offset = leaving->parked_offset;
    leaving->node->stays = free_parked(volume, leaving->node, &entry, NULL) != 0;
}

void fat_leave_memory(struct fat_volume *volume, struct fat_node *folder,
                      struct fat_leaving *leaving)
{
    fat_folder_removed(volume, folder, &leaving->entry);
    volume->held += leaving->left;
    leaving->node->removed = true;
    nodes_move(&volume->nodes, &leaving->node->node, NODE_NOWHERE);
}

void fat_leave_finish(struct fat_volume *volume, struct fat_leaving *leaving)
{
    if (leaving->parks)
        free_what_is_parked(volume, leaving);
    if (leaving->is_lost)
        free_lost(volume, leaving->node);
    fat_node_drop(volume, leaving->node, 1);
}

static int update(struct fat_volume *volume, struct fat_node *folder, struct fat_leaving *leaving,
                  struct error *err)
{
    uint32_t free = volume->free;
    int r = fat_begin(volume, leaving->sectors + FAT_OTHER_SECTORS - 1, err);
    if (r != 0)
        return r;
    r = fat_finish(volume, fat_leave_write(volume, folder, leaving, err), err);
    if (r != 0)
        volume->free = free;
    return r;
}

int fat_remove(struct fat_volume *volume, struct fat_node *folder, const char *name,
               enum node_type type, struct error *err)
{
    struct fat_leaving leaving = {0};
    int r = fat_find(volume, folder, name, &leaving.entry, err);
    if (r != 0)
        return r;
    if (fat_entry_type(&leaving.entry) != type)
        return fat_wrong_type(fat_entry_type(&leaving.entry), err);
    r = fat_leave_prepare(volume, &leaving, err);
    if (r != 0)
        return r;
    r = fat_leave_room(volume, &leaving, NULL, NULL, err);
    if (r == 0)
        r = update(volume, folder, &leaving, err);
    if (r != 0) {
        fat_node_drop(volume, leaving.node, 1);
        return r;
    }
    fat_leave_memory(volume, folder, &leaving);
    fat_leave_finish(volume, &leaving);
    return 0;
}

int fat_leave_resume(struct fat_volume *volume, struct error *err)
{
    uint16_t units[12];
    uint8_t raw[FAT_ENTRY] = PARKED_SHORT;
    struct fat_entry entry = {0};
    struct fat_node *node;
    int r = fat_folder_find(volume, volume->root, units, fat_short_units(volume, raw, units),
                            &entry, err);
    if (r != 0 || (entry.raw[ENTRY_ATTRIBUTES] & FAT_ATTRIBUTES) != PARKED_ATTRIBUTES)
        return r == -ENOENT ? 0 : r;
    r = fat_node_of(volume, &entry, &node, err);
    if (r != 0)
        return r;
    r = fat_runs_load(volume, node, UINT32_MAX, err);
    if (r == 0)
        r = free_parked(volume, node, &entry, err);
    if (r == 0) {
        node->removed = true;
        nodes_move(&volume->nodes, &node->node, NODE_NOWHERE);
    }
    fat_node_drop(volume, node, 1);
    return r;
}
