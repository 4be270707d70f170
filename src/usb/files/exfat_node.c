/* Files and folders that are held. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>

#include "folder_index.h"
#include "times.h"
#include "utf16.h"

enum {
    OFFSET_SAYS = 0x80,  /* 7.4.10: it is known */
    OFFSET_MINUTES = 15, /* of a step */
    OFFSET_LEAST = -16 * 60,
    OFFSET_MOST = 15 * 60, /* minutes that seven bits can say */
};

struct exfat_node *exfat_node_create(struct exfat_node *parent, enum node_type type)
{
    struct exfat_node *node = xnew(struct exfat_node);
    node->type = type;
    node->parent = parent;
    pthread_mutex_init(&node->lock, NULL);
    return node;
}

void exfat_node_free(struct exfat_node *node)
{
    exfat_place_finish(&node->place);
    exfat_runs_finish(&node->runs);
    folder_index_free(node->index);
    pthread_mutex_destroy(&node->lock);
    free(node);
}

struct exfat_node *exfat_node_of(struct exfat_volume *volume, struct exfat_node *folder,
                                 struct exfat_entries *entries)
{
    uint64_t place = entries->place.offsets[0];
    struct node *found = nodes_find(&volume->nodes, place);
    if (found) {
        exfat_place_finish(&entries->place);
        return (struct exfat_node *)found;
    }
    bool is_folder = entries->set.attributes & EXFAT_FOLDER;
    struct exfat_node *node = exfat_node_create(folder, is_folder ? NODE_FOLDER : NODE_FILE);
    node->place = entries->place;
    node->set = entries->set;
    entries->place.offsets = NULL;
    found = nodes_add(&volume->nodes, &node->node, place);
    if (found != &node->node)
        exfat_node_free(node);
    else
        nodes_hold(&volume->nodes, &folder->node);
    return (struct exfat_node *)found;
}

/* What it had is free now: in memory only, or on the medium since it was removed. */
static void let_clusters_go(struct exfat_volume *volume, struct exfat_node *node)
{
    if (!volume->used || !node->complete)
        return;
    if (!node->removed) {
        exfat_space_give_back(volume, &node->runs, node->linked);
        return;
    }
    exfat_space_freed(volume, &node->runs, 0, node->runs.clusters, node->freed_by,
                      node->type == NODE_FOLDER);
    volume->held -= node->runs.clusters;
}

void exfat_node_drop(struct exfat_volume *volume, struct exfat_node *node, uint64_t times)
{
    while (node && node != volume->root && nodes_drop(&volume->nodes, &node->node, times)) {
        struct exfat_node *parent = node->parent;
        let_clusters_go(volume, node);
        exfat_node_free(node);
        node = parent;
        times = 1;
    }
}

unsigned exfat_set_sectors(const struct exfat_volume *volume, unsigned entries)
{
    return entries * EXFAT_ENTRY / medium_sector_size(exfat_medium(volume)) + 3;
}

int exfat_node_write(struct exfat_volume *volume, const struct exfat_node *node,
                     const struct exfat_set *set, struct error *err)
{
    uint8_t raw[EXFAT_SET_READ * EXFAT_ENTRY] _uninitialized_;
    if (node == volume->root || node->removed)
        return 0;
    int r = exfat_place_read(volume, &node->place, raw, err);
    if (r != 0)
        return r;
    exfat_set_update(set, raw, node->place.count);
    return exfat_place_write(volume, &node->place, raw, err);
}

/* Times are kept with their zone where that can be said, and in UTC else. */
struct exfat_time exfat_time_from(const struct exfat_volume *volume, int64_t nanoseconds)
{
    int east = volume->options.minutes_east;
    if (east % OFFSET_MINUTES != 0 || east < OFFSET_LEAST || east > OFFSET_MOST)
        east = 0;
    struct dos_time time = dos_time_from(nanoseconds, east);
    return (struct exfat_time){
        .stamp = (uint32_t)time.date << 16 | time.time,
        .hundredths = time.hundredths,
        .offset = (uint8_t)(OFFSET_SAYS | (east / OFFSET_MINUTES & 0x7F)),
    };
}

int64_t exfat_time_to(const struct exfat_volume *volume, struct exfat_time time)
{
    int east = volume->options.minutes_east;
    if (time.offset & OFFSET_SAYS)
        east = (time.offset & 0x40 ? (time.offset & 0x7F) - 0x80 : time.offset & 0x7F) *
               OFFSET_MINUTES;
    struct dos_time dos = {
        .date = (uint16_t)(time.stamp >> 16),
        .time = (uint16_t)time.stamp,
        .hundredths = time.hundredths,
    };
    return dos_time_to(dos, east);
}

int exfat_name_from(const char *name, uint16_t units[static EXFAT_NAME_UNITS], struct error *err)
{
    int length = utf16_from_utf8(name, units, EXFAT_NAME_UNITS);
    if (length == -ENAMETOOLONG)
        return error_set(err, -ENAMETOOLONG, "a name of more than %d letters", EXFAT_NAME_UNITS);
    if (length < 0 || !exfat_name_is_allowed(units, (unsigned)length))
        return error_set(err, -EINVAL, "exFAT cannot keep the name %s", name);
    return length;
}

/* Since when it was not used; those whose runs are only in memory stay. */
struct shrinking {
    struct exfat_volume *volume;
    uint64_t oldest, newest, before;
};

static bool can_forget(const struct exfat_volume *volume, const struct exfat_node *node)
{
    return node != volume->root && !node->removed && node->reserved_end == node->reserved_from &&
           (!node->complete || node->linked == node->runs.clusters);
}

static void look_how_old(struct node *node, void *data)
{
    const struct exfat_node *exfat = (struct exfat_node *)node;
    struct shrinking *shrinking = data;
    if (!exfat->runs.room && !exfat->index)
        return;
    if (exfat->used < shrinking->oldest)
        shrinking->oldest = exfat->used;
    if (exfat->used > shrinking->newest)
        shrinking->newest = exfat->used;
}

static void forget_old(struct node *node, void *data)
{
    struct exfat_node *exfat = (struct exfat_node *)node;
    const struct shrinking *shrinking = data;
    if (exfat->used > shrinking->before)
        return;
    folder_index_free(steal_ptr(exfat->index));
    if (!can_forget(shrinking->volume, exfat))
        return;
    exfat_runs_finish(&exfat->runs);
    exfat->complete = false;
    exfat->linked = 0;
}

void exfat_nodes_shrink(struct exfat_volume *volume, bool all)
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
