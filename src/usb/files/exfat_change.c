/* Create and rename: each one update. */
#include "exfat_leave.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "times.h"

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
    struct exfat_entries *entries = exfat_entries_create();
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

/* Renaming. */

struct renaming {
    struct exfat_node *node; /* held */
    struct exfat_node *from, *to;
    struct exfat_place place; /* the new one */
    struct exfat_set set;
    struct exfat_doomed *doomed;               /* NULL: nothing has the new name */
    uint8_t raw[EXFAT_SET_READ * EXFAT_ENTRY]; /* last: it does not begin as zeros */
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
    struct exfat_doomed *doomed = exfat_doomed_create();
    int r = exfat_folder_find(volume, work->to, units, (unsigned)length, doomed->entries, err);
    bool same = r == 0 && doomed->entries->place.offsets[0] == work->node->place.offsets[0];
    bool folder = r == 0 && exfat_set_is_folder(&doomed->entries->set);
    if (r != 0 || same) {
        exfat_doomed_finish(volume, doomed);
        return r == -ENOENT ? 0 : r;
    }
    work->doomed = doomed;
    bool is = work->node->type == NODE_FOLDER;
    if (!replace)
        r = error_set(err, -EEXIST, "there is one of the new name");
    else if (folder != is)
        r = folder ? error_set(err, -EISDIR, "what has the new name is a folder")
                   : error_set(err, -ENOTDIR, "what has the new name is no folder");
    return r == 0 ? exfat_doomed_prepare(volume, work->to, doomed, err) : r;
}

static int write_renamed(struct exfat_volume *volume, struct renaming *work, struct error *err)
{
    unsigned sectors = exfat_set_sectors(volume, work->place.count) +
                       exfat_set_sectors(volume, work->node->place.count) +
                       (work->doomed ? exfat_doomed_sectors(volume, work->doomed) : 0);
    int r = exfat_begin(volume, sectors, err);
    if (r != 0)
        return r;
    r = exfat_folder_write(volume, work->to, &work->place, work->raw, err);
    medium_barrier(exfat_medium(volume));
    if (r == 0)
        r = exfat_folder_erase(volume, &work->node->place, err);
    if (r == 0 && work->doomed)
        r = exfat_doomed_write(volume, work->doomed, err);
    return exfat_finish(volume, r, err);
}

static void is_renamed(struct exfat_volume *volume, struct renaming *work)
{
    struct exfat_node *node = work->node;
    if (work->doomed)
        exfat_doomed_memory(volume, work->to, work->doomed);
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
        r = exfat_doomed_park(volume, work->doomed, work->to, &work->place, err);
    if (r == 0)
        r = write_renamed(volume, work, err);
    if (r == 0)
        is_renamed(volume, work);
    if (r == 0 && work->doomed)
        exfat_doomed_free_rest(volume, work->doomed);
    bool parked = r == 0 && work->doomed && work->doomed->parks;
    if (work->doomed)
        exfat_doomed_finish(volume, work->doomed);
    if (parked)
        exfat_remove_parked(volume, NULL); /* what stays is freed when it is next written to */
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
    struct exfat_entries *entries = exfat_entries_create();
    int r = exfat_folder_find(volume, folder, units, (unsigned)length, entries, err);
    if (r == 0) {
        struct renaming *work = xmalloc(sizeof(*work));
        memset(work, 0, offsetof(struct renaming, raw));
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
