/* A set that goes: remove, and what a rename replaces. */
#include "exfat_leave.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

#include "utf16.h"

#define PARKED_NAME "CLOCHE.DEL"

enum {
    EXTRA_MOST = EXFAT_SET_READ - EXFAT_SET_LEAST,
    PARKED_ENTRIES = 3,
    PARKED_ATTRIBUTES = EXFAT_HIDDEN | EXFAT_SYSTEM,
};

/* 8.2 of the specification: entries that we do not know may have clusters; they go with the file.
 * Where what they say cannot be, they are left to a check. */
static void extra_clusters(const struct exfat_volume *volume, const struct exfat_entries *entries,
                           struct exfat_runs *ret_runs)
{
    enum { POSSIBLE = 1, CONTIGUOUS = 2 };
    for (unsigned i = 2; i < entries->place.count && i < EXTRA_MOST; i++) {
        const uint8_t *entry = entries->raw + (size_t)i * EXFAT_ENTRY;
        uint32_t first = get_le32(entry + 20);
        uint64_t clusters = exfat_clusters_for(&volume->layout, get_le64(entry + 24));
        if (entry[0] == EXFAT_NAME || !(entry[1] & POSSIBLE) || clusters == 0 ||
            !exfat_is_cluster(&volume->layout, first) ||
            clusters > volume->layout.clusters - (first - EXFAT_FIRST_CLUSTER))
            continue;
        if (entry[1] & CONTIGUOUS || clusters == 1)
            exfat_runs_add(ret_runs, first, (uint32_t)clusters);
    }
}

struct exfat_doomed *exfat_doomed_create(void)
{
    struct exfat_doomed *doomed = xnew(struct exfat_doomed);
    doomed->entries = exfat_entries_create();
    return doomed;
}

void exfat_doomed_finish(struct exfat_volume *volume, struct exfat_doomed *doomed)
{
    exfat_runs_finish(&doomed->extra);
    exfat_place_finish(&doomed->entries->place);
    free(doomed->entries);
    exfat_place_finish(&doomed->parked);
    if (doomed->node)
        exfat_node_drop(volume, doomed->node, 1);
    free(doomed);
}

/* Sectors of the update that removes it. */
unsigned exfat_doomed_sectors(const struct exfat_volume *volume, const struct exfat_doomed *doomed)
{
    if (doomed->parks)
        return exfat_set_sectors(volume, doomed->node->place.count) +
               exfat_set_sectors(volume, PARKED_ENTRIES) + 2;
    return exfat_set_sectors(volume, doomed->node->place.count) +
           exfat_free_sectors(volume, &doomed->node->runs, doomed->left, doomed->node->linked);
}

static bool is_parked(const struct exfat_volume *volume, const struct exfat_node *folder,
                      const struct exfat_set *set)
{
    char name[EXFAT_NAME_UNITS * 3 + 1];
    utf8_from_utf16(set->name, set->name_length, name);
    return folder == volume->root && strcmp(name, PARKED_NAME) == 0 &&
           set->attributes == PARKED_ATTRIBUTES;
}

/* Entries of others cannot be parked with it. */
static bool must_park(const struct exfat_volume *volume, const struct exfat_doomed *doomed)
{
    const struct exfat_node *node = doomed->node;
    unsigned most = medium_update_most(exfat_medium(volume));
    return node->type == NODE_FILE && doomed->extra.clusters == 0 &&
           node->place.count == exfat_set_size(node->set.name_length) &&
           exfat_free_sectors(volume, &node->runs, 0, node->linked) > most / 4 &&
           !doomed->was_parked;
}

/* What goes with its set: what is parked itself has become shorter until that is all. */
static int prepare_clusters(struct exfat_volume *volume, struct exfat_doomed *doomed,
                            struct error *err)
{
    unsigned most = medium_update_most(exfat_medium(volume)) / 4;
    int r = 0;
    if (doomed->was_parked)
        r = exfat_shrink(volume, doomed->node, 0, most, err);
    else
        doomed->left = exfat_frees_from(volume, doomed->node, most);
    return r;
}

/* Where it is parked: beside the entries that are to be made in `beside` (NULL: none are). */
int exfat_doomed_park(struct exfat_volume *volume, struct exfat_doomed *doomed,
                      const struct exfat_node *beside, const struct exfat_place *place,
                      struct error *err)
{
    int r = 0;
    if (doomed->parks)
        r = exfat_folder_room_beside(volume, volume->root, PARKED_ENTRIES,
                                     beside == volume->root ? place : NULL, &doomed->parked, err);
    if (r == -ENOSPC)
        doomed->parks = false;
    if (!doomed->parks)
        return prepare_clusters(volume, doomed, err);
    struct exfat_set *set = &doomed->parked_set;
    *set = doomed->node->set;
    set->attributes = PARKED_ATTRIBUTES;
    set->entries = PARKED_ENTRIES;
    set->name_length = (unsigned)utf16_from_utf8(PARKED_NAME, set->name, EXFAT_NAME_UNITS);
    return r;
}

int exfat_doomed_prepare(struct exfat_volume *volume, struct exfat_node *folder,
                         struct exfat_doomed *doomed, struct error *err)
{
    extra_clusters(volume, doomed->entries, &doomed->extra);
    doomed->node = exfat_node_of(volume, folder, doomed->entries);
    int r = exfat_runs_load(volume, doomed->node, UINT64_MAX, err);
    if (r == 0 && doomed->node->type == NODE_FOLDER)
        r = exfat_folder_is_empty(volume, doomed->node, err);
    doomed->set = doomed->node->set;
    doomed->was_parked = is_parked(volume, folder, &doomed->set);
    doomed->parks = r == 0 && must_park(volume, doomed);
    return r;
}

/* Within an update. */
int exfat_doomed_write(struct exfat_volume *volume, const struct exfat_doomed *doomed,
                       struct error *err)
{
    const struct exfat_node *node = doomed->node;
    uint8_t raw[EXFAT_SET_MOST * EXFAT_ENTRY];
    int r = 0;
    if (doomed->parks) {
        exfat_set_make(&doomed->parked_set, volume->upcase, raw);
        r = exfat_folder_write(volume, volume->root, &doomed->parked, raw, err);
        medium_barrier(exfat_medium(volume));
        return r == 0 ? exfat_folder_erase(volume, &node->place, err) : r;
    }
    r = exfat_folder_erase(volume, &node->place, err);
    medium_barrier(exfat_medium(volume));
    if (r == 0)
        r = exfat_space_mark(volume, &node->runs, doomed->left, node->linked, false, err);
    return r;
}

/* It is a file of the root folder now. */
static void has_parked(struct exfat_volume *volume, struct exfat_node *folder,
                       struct exfat_doomed *doomed)
{
    struct exfat_node *node = doomed->node;
    exfat_folder_removed(volume, folder, &node->place, &node->set);
    exfat_folder_added(volume, volume->root, &doomed->parked, &doomed->parked_set);
    exfat_place_finish(&node->place);
    node->place = doomed->parked;
    doomed->parked.offsets = NULL;
    node->set = doomed->parked_set;
    nodes_move(&volume->nodes, &node->node, node->place.offsets[0]);
    nodes_hold(&volume->nodes, &volume->root->node);
    node->parent = volume->root;
    exfat_node_drop(volume, folder, 1);
}

/* The update has ended. Whoever holds the file keeps its clusters. */
void exfat_doomed_memory(struct exfat_volume *volume, struct exfat_node *folder,
                         struct exfat_doomed *doomed)
{
    struct exfat_node *node = doomed->node;
    if (doomed->parks) {
        has_parked(volume, folder, doomed);
        return;
    }
    exfat_folder_removed(volume, folder, &node->place, &node->set);
    exfat_place_finish(&node->place);
    volume->free += node->linked + doomed->extra.clusters;
    volume->held += node->linked;
    node->linked = node->runs.clusters;
    node->set = doomed->set;
    node->removed = true;
    nodes_move(&volume->nodes, &node->node, NODE_NOWHERE);
}

/* To the rest nothing leads any more; what cannot be freed now is left to a check. */
void exfat_doomed_free_rest(struct exfat_volume *volume, struct exfat_doomed *doomed)
{
    struct exfat_node *node = doomed->node;
    uint32_t extra = doomed->extra.clusters;
    if (doomed->parks)
        return;
    if (exfat_free_lost(volume, &node->runs, doomed->left, NULL) == 0)
        exfat_free_lost(volume, &doomed->extra, extra, NULL);
    node->freed_by = medium_running(exfat_medium(volume));
    exfat_space_freed(volume, &doomed->extra, 0, extra, node->freed_by, false);
}

int exfat_remove(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                 enum node_type type, struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = exfat_name_from(name, units, err);
    if (length < 0)
        return length == -EINVAL ? -ENOENT : length;
    struct exfat_doomed *doomed = exfat_doomed_create();
    int r = exfat_folder_find(volume, folder, units, (unsigned)length, doomed->entries, err);
    if (r == 0) {
        bool wrong = exfat_set_is_folder(&doomed->entries->set) != (type == NODE_FOLDER);
        r = !wrong                ? exfat_doomed_prepare(volume, folder, doomed, err)
            : type == NODE_FOLDER ? error_set(err, -ENOTDIR, "%s is no folder", name)
                                  : error_set(err, -EISDIR, "%s is a folder", name);
    }
    if (r == 0)
        r = exfat_doomed_park(volume, doomed, NULL, NULL, err);
    if (r == 0)
        r = exfat_begin(volume, exfat_doomed_sectors(volume, doomed), err);
    if (r == 0)
        r = exfat_finish(volume, exfat_doomed_write(volume, doomed, err), err);
    if (r == 0) {
        exfat_doomed_memory(volume, folder, doomed);
        exfat_doomed_free_rest(volume, doomed);
    }
    bool parked = r == 0 && doomed->parks;
    exfat_doomed_finish(volume, doomed);
    if (parked)
        exfat_remove_parked(volume, NULL); /* what stays is freed when it is next written to */
    return r;
}

int exfat_remove_parked(struct exfat_volume *volume, struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = utf16_from_utf8(PARKED_NAME, units, EXFAT_NAME_UNITS);
    struct exfat_entries *entries = exfat_entries_create();
    int r = exfat_folder_find(volume, volume->root, units, (unsigned)length, entries, NULL);
    bool is_ours = r == 0 && is_parked(volume, volume->root, &entries->set);
    if (r == 0)
        exfat_place_finish(&entries->place);
    free(entries);
    return is_ours ? exfat_remove(volume, volume->root, PARKED_NAME, NODE_FILE, err) : 0;
}
