/* Create, remove, rename: each one update. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

#include "utf16.h"
#include "times.h"

#define PARKED_NAME "CLOCHE.DEL"

enum {
    EXTRA_MOST = EXFAT_SET_READ - EXFAT_SET_LEAST,
    PARKED_ENTRIES = 3,
    PARKED_ATTRIBUTES = EXFAT_HIDDEN | EXFAT_SYSTEM,
};

/* The name of what is parked is gone already: what cannot be freed now is freed when the volume is
 * next written to. */
static void remove_parked(struct exfat_volume *volume)
{
    exfat_remove_parked(volume, NULL);
}

static bool is_folder(const struct exfat_set *set)
{
    return set->attributes & EXFAT_FOLDER;
}

static int name_of(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                   uint16_t *units, struct error *err)
{
    int length = exfat_name_from(name, units, err);
    if (length > 0 && folder == volume->root && strcasecmp(name, EXFAT_JOURNAL_NAME) == 0)
        return error_set(err, -EPERM, "%s is the name of the journal", name);
    return length;
}

/* -EEXIST: there is one. Its place is not owned then. */
static int must_be_new(struct exfat_volume *volume, struct exfat_node *folder,
                       const uint16_t *units, int length, struct error *err)
{
    struct exfat_entries *entries = xnew(struct exfat_entries);
    int r = exfat_folder_find(volume, folder, units, (unsigned)length, entries, err);
    if (r == 0) {
        exfat_place_finish(&entries->place);
        r = error_set(err, -EEXIST, "there is one of this name");
    }
    free(entries);
    return r == -ENOENT ? 0 : r;
}

static struct exfat_set new_set(const struct exfat_volume *volume, const uint16_t *units,
                                int length, enum node_type type)
{
    struct exfat_time now = exfat_time_from(volume, times_now());
    struct exfat_set set = {
        .entries = exfat_set_size((unsigned)length),
        .attributes = type == NODE_FOLDER ? EXFAT_FOLDER : EXFAT_ARCHIVE,
        .created = now,
        .modified = now,
        .accessed = now,
        .name_length = (unsigned)length,
    };
    memcpy(set.name, units, (size_t)length * sizeof(*units));
    return set;
}

/* The one cluster that a new folder has. */
static int take_first(struct exfat_volume *volume, struct exfat_node *node, struct error *err)
{
    int r = exfat_space_take(volume, 1, 0, &node->runs, err);
    if (r != 0)
        return r;
    uint32_t first = node->runs.items[0].first;
    node->set.first = first;
    node->set.contiguous = true;
    node->set.size = node->set.valid = volume->layout.cluster_size;
    return medium_zero_content(exfat_medium(volume), exfat_offset(&volume->layout, first),
                               volume->layout.cluster_size, err);
}

static int write_new(struct exfat_volume *volume, struct exfat_node *folder,
                     struct exfat_node *node, struct error *err)
{
    uint8_t raw[EXFAT_SET_MOST * EXFAT_ENTRY];
    uint32_t clusters = node->runs.clusters;
    exfat_set_make(&node->set, volume->upcase, raw);
    int r = exfat_begin(volume, exfat_set_sectors(volume, node->place.count) + 4, err);
    if (r != 0)
        return r;
    r = exfat_space_mark(volume, &node->runs, 0, clusters, true, err);
    medium_barrier(exfat_medium(volume));
    if (r == 0)
        r = exfat_folder_write(volume, folder, &node->place, raw, err);
    r = exfat_finish(volume, r, err);
    if (r != 0)
        return r;
    volume->free -= clusters;
    volume->held -= clusters;
    node->linked = clusters;
    return 0;
}

int exfat_create(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                 enum node_type type, struct exfat_node **ret_node, struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = name_of(volume, folder, name, units, err);
    int r = length < 0 ? length : must_be_new(volume, folder, units, length, err);
    if (r != 0)
        return r;
    struct exfat_node *node = exfat_node_create(folder, type);
    node->set = new_set(volume, units, length, type);
    node->complete = true;
    r = exfat_folder_room(volume, folder, node->set.entries, &node->place, err);
    if (r == 0 && type == NODE_FOLDER)
        r = take_first(volume, node, err);
    if (r == 0)
        r = write_new(volume, folder, node, err);
    if (r != 0) {
        exfat_space_give_back(volume, &node->runs, 0);
        exfat_node_free(node);
        return r;
    }
    exfat_folder_added(volume, folder, &node->place, &node->set);
    nodes_add(&volume->nodes, &node->node, node->place.offsets[0]);
    nodes_hold(&volume->nodes, &folder->node);
    *ret_node = node;
    return 0;
}

/* Removing. */

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

/*
 * What is to be removed, with all that is its. What one update can free goes with its name. A
 * larger file is parked by that update: it becomes a hidden file of the root folder, so that its
 * name is gone at once and as a whole. Then that one is removed, for which it becomes shorter by
 * updates of its own. Where the power goes meanwhile, the next one to write to the volume goes on.
 * What cannot be parked is lost by that update, and freed by and by: where the power goes, that is
 * left to a check.
 */
struct doomed {
    struct exfat_entries entries;
    bool parks, was_parked;
    struct exfat_place parked; /* owned */
    struct exfat_set parked_set;
    struct exfat_node *node; /* held */
    struct exfat_runs extra; /* owned */
    uint32_t left;           /* the first clusters, which are freed afterwards */
    struct exfat_set set;    /* before anything of it was freed: whoever holds it keeps that */
};

static void doomed_finish(struct exfat_volume *volume, struct doomed *doomed)
{
    exfat_runs_finish(&doomed->extra);
    exfat_place_finish(&doomed->entries.place);
    exfat_place_finish(&doomed->parked);
    if (doomed->node)
        exfat_node_drop(volume, doomed->node, 1);
    free(doomed);
}

/* Sectors of the update that removes it. */
static unsigned doomed_sectors(const struct exfat_volume *volume, const struct doomed *doomed)
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
static bool must_park(const struct exfat_volume *volume, const struct doomed *doomed)
{
    const struct exfat_node *node = doomed->node;
    unsigned most = medium_update_most(exfat_medium(volume));
    return node->type == NODE_FILE && doomed->extra.clusters == 0 &&
           node->place.count == exfat_set_size(node->set.name_length) &&
           exfat_free_sectors(volume, &node->runs, 0, node->linked) > most / 4 &&
           !doomed->was_parked;
}

/* What goes with its set: what is parked itself has become shorter until that is all. */
static int prepare_clusters(struct exfat_volume *volume, struct doomed *doomed, struct error *err)
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
static int find_parking(struct exfat_volume *volume, struct doomed *doomed,
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

static int prepare_doomed(struct exfat_volume *volume, struct exfat_node *folder,
                          struct doomed *doomed, struct error *err)
{
    extra_clusters(volume, &doomed->entries, &doomed->extra);
    doomed->node = exfat_node_of(volume, folder, &doomed->entries);
    int r = exfat_runs_load(volume, doomed->node, UINT64_MAX, err);
    if (r == 0 && doomed->node->type == NODE_FOLDER)
        r = exfat_folder_is_empty(volume, doomed->node, err);
    doomed->set = doomed->node->set;
    doomed->was_parked = is_parked(volume, folder, &doomed->set);
    doomed->parks = r == 0 && must_park(volume, doomed);
    return r;
}

/* Within an update. */
static int write_doomed(struct exfat_volume *volume, const struct doomed *doomed, struct error *err)
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
                       struct doomed *doomed)
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
static void is_removed(struct exfat_volume *volume, struct exfat_node *folder,
                       struct doomed *doomed)
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
static void free_the_rest(struct exfat_volume *volume, struct doomed *doomed)
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
    struct doomed *doomed = xnew(struct doomed);
    int r = exfat_folder_find(volume, folder, units, (unsigned)length, &doomed->entries, err);
    if (r == 0) {
        bool wrong = is_folder(&doomed->entries.set) != (type == NODE_FOLDER);
        r = !wrong                ? prepare_doomed(volume, folder, doomed, err)
            : type == NODE_FOLDER ? error_set(err, -ENOTDIR, "%s is no folder", name)
                                  : error_set(err, -EISDIR, "%s is a folder", name);
    }
    if (r == 0)
        r = find_parking(volume, doomed, NULL, NULL, err);
    if (r == 0)
        r = exfat_begin(volume, doomed_sectors(volume, doomed), err);
    if (r == 0)
        r = exfat_finish(volume, write_doomed(volume, doomed, err), err);
    if (r == 0) {
        is_removed(volume, folder, doomed);
        free_the_rest(volume, doomed);
    }
    bool parked = r == 0 && doomed->parks;
    doomed_finish(volume, doomed);
    if (parked)
        remove_parked(volume);
    return r;
}

int exfat_remove_parked(struct exfat_volume *volume, struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = utf16_from_utf8(PARKED_NAME, units, EXFAT_NAME_UNITS);
    struct exfat_entries *entries = xnew(struct exfat_entries);
    int r = exfat_folder_find(volume, volume->root, units, (unsigned)length, entries, NULL);
    bool is_ours = r == 0 && is_parked(volume, volume->root, &entries->set);
    if (r == 0)
        exfat_place_finish(&entries->place);
    free(entries);
    return is_ours ? exfat_remove(volume, volume->root, PARKED_NAME, NODE_FILE, err) : 0;
}

/* Renaming. */

struct renaming {
    struct exfat_node *node; /* held */
    struct exfat_node *from, *to;
    struct exfat_place place; /* the new one */
    struct exfat_set set;
    uint8_t raw[EXFAT_SET_READ * EXFAT_ENTRY];
    struct doomed *doomed; /* NULL: nothing has the new name */
};

/* The set with its new name, and behind that whatever the old one had beside its own. */
static int make_set(struct exfat_volume *volume, struct renaming *work, const uint16_t *units,
                    int length, struct error *err)
{
    const struct exfat_node *node = work->node;
    unsigned had = exfat_set_size(node->set.name_length), count = exfat_set_size((unsigned)length);
    unsigned extra = node->place.count - had;
    if (count + extra > EXFAT_SET_READ)
        return error_set(err, -ENAMETOOLONG, "there is no room for so long a name");
    work->set = node->set;
    work->set.name_length = (unsigned)length;
    work->set.entries = count + extra;
    memcpy(work->set.name, units, (size_t)length * sizeof(*units));
    exfat_set_make(&work->set, volume->upcase, work->raw);
    work->raw[1] = (uint8_t)(count + extra - 1);
    for (unsigned i = 0; i < extra; i++) {
        int r = medium_read(exfat_medium(volume), node->place.offsets[had + i],
                            work->raw + (size_t)(count + i) * EXFAT_ENTRY, EXFAT_ENTRY, err);
        if (r != 0)
            return r;
    }
    exfat_set_update(&work->set, work->raw, count + extra);
    return exfat_folder_room(volume, work->to, count + extra, &work->place, err);
}

/* A folder does not go below itself. */
static int check_ancestry(const struct renaming *work, struct error *err)
{
    for (const struct exfat_node *at = work->to; at; at = at->parent)
        if (at == work->node)
            return error_set(err, -EINVAL, "a folder does not go below itself");
    return 0;
}

/* What has the new name, if that is not the file itself. */
static int find_doomed(struct exfat_volume *volume, struct renaming *work, const uint16_t *units,
                       int length, bool replace, struct error *err)
{
    struct doomed *doomed = xnew(struct doomed);
    int r = exfat_folder_find(volume, work->to, units, (unsigned)length, &doomed->entries, err);
    bool same = r == 0 && doomed->entries.place.offsets[0] == work->node->place.offsets[0];
    bool folder = r == 0 && is_folder(&doomed->entries.set);
    if (r != 0 || same) {
        doomed_finish(volume, doomed);
        return r == -ENOENT ? 0 : r;
    }
    work->doomed = doomed;
    bool is = work->node->type == NODE_FOLDER;
    if (!replace)
        r = error_set(err, -EEXIST, "there is one of the new name");
    else if (folder != is)
        r = folder ? error_set(err, -EISDIR, "what has the new name is a folder")
                   : error_set(err, -ENOTDIR, "what has the new name is no folder");
    return r == 0 ? prepare_doomed(volume, work->to, doomed, err) : r;
}

static int write_renamed(struct exfat_volume *volume, struct renaming *work, struct error *err)
{
    unsigned sectors = exfat_set_sectors(volume, work->place.count) +
                       exfat_set_sectors(volume, work->node->place.count) +
                       (work->doomed ? doomed_sectors(volume, work->doomed) : 0);
    int r = exfat_begin(volume, sectors, err);
    if (r != 0)
        return r;
    r = exfat_folder_write(volume, work->to, &work->place, work->raw, err);
    medium_barrier(exfat_medium(volume));
    if (r == 0)
        r = exfat_folder_erase(volume, &work->node->place, err);
    if (r == 0 && work->doomed)
        r = write_doomed(volume, work->doomed, err);
    return exfat_finish(volume, r, err);
}

static void is_renamed(struct exfat_volume *volume, struct renaming *work)
{
    struct exfat_node *node = work->node;
    if (work->doomed)
        is_removed(volume, work->to, work->doomed);
    exfat_folder_removed(volume, work->from, &node->place, &node->set);
    exfat_folder_added(volume, work->to, &work->place, &work->set);
    exfat_place_finish(&node->place);
    node->place = work->place;
    work->place.offsets = NULL;
    node->set = work->set;
    nodes_move(&volume->nodes, &node->node, node->place.offsets[0]);
    if (work->from != work->to) {
        nodes_hold(&volume->nodes, &work->to->node);
        node->parent = work->to;
        exfat_node_drop(volume, work->from, 1);
    }
}

static int rename_found(struct exfat_volume *volume, struct renaming *work, const uint16_t *units,
                        int length, bool replace, struct error *err)
{
    int r = check_ancestry(work, err);
    if (r == 0)
        r = find_doomed(volume, work, units, length, replace, err);
    if (r == 0)
        r = make_set(volume, work, units, length, err);
    if (r == 0 && work->doomed)
        r = find_parking(volume, work->doomed, work->to, &work->place, err);
    if (r == 0)
        r = write_renamed(volume, work, err);
    if (r == 0)
        is_renamed(volume, work);
    if (r == 0 && work->doomed)
        free_the_rest(volume, work->doomed);
    bool parked = r == 0 && work->doomed && work->doomed->parks;
    if (work->doomed)
        doomed_finish(volume, work->doomed);
    if (parked)
        remove_parked(volume);
    exfat_place_finish(&work->place);
    return r;
}

int exfat_rename(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                 struct exfat_node *new_folder, const char *new_name, bool replace,
                 struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = name_of(volume, folder, name, units, err);
    if (length < 0)
        return length == -EINVAL ? -ENOENT : length;
    struct exfat_entries *entries = xnew(struct exfat_entries);
    int r = exfat_folder_find(volume, folder, units, (unsigned)length, entries, err);
    if (r == 0) {
        struct renaming *work = xnew(struct renaming);
        work->node = exfat_node_of(volume, folder, entries);
        work->from = folder;
        work->to = new_folder;
        length = name_of(volume, new_folder, new_name, units, err);
        r = length < 0 ? length : rename_found(volume, work, units, length, replace, err);
        exfat_node_drop(volume, work->node, 1);
        free(work);
    }
    free(entries);
    return r;
}
