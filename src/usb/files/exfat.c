/* The operations of an exFAT volume: locks, and the first write before what follows it. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>
#include <block/waiting.h>

#include "content.h"
#include "folder_index.h"
#include "utf16.h"
#include "times.h"

enum { LABEL_UNITS = 11 };

static struct exfat_volume *of(struct volume *volume)
{
    return (struct exfat_volume *)volume;
}

static struct exfat_node *node_of(struct node *node)
{
    return (struct exfat_node *)node;
}

static void start_read(struct exfat_volume *volume)
{
    if (budget_is_tight()) {
        block_lock_to_write(&volume->lock);
        exfat_nodes_shrink(volume, false);
        pthread_rwlock_unlock(&volume->lock);
    }
    block_lock_to_read(&volume->lock);
}

static int start_write(struct exfat_volume *volume, struct error *err)
{
    block_lock_to_write(&volume->lock);
    exfat_nodes_shrink(volume, false);
    return exfat_start_writing(volume, err);
}

static int finish(struct exfat_volume *volume, int r)
{
    pthread_rwlock_unlock(&volume->lock);
    return r;
}

static int must_be(const struct exfat_node *node, enum node_type type, struct error *err)
{
    if (node->type != type)
        return type == NODE_FOLDER ? error_set(err, -ENOTDIR, "it is no folder")
                                   : error_set(err, -EISDIR, "it is a folder");
    if (type == NODE_FOLDER && node->removed)
        return error_set(err, -ENOENT, "the folder was removed");
    return 0;
}

static void read_label(struct exfat_volume *volume, char *ret, size_t size)
{
    uint8_t entry[EXFAT_ENTRY];
    uint16_t units[LABEL_UNITS];
    char text[LABEL_UNITS * 3 + 1];
    if (volume->label_offset == 0 ||
        medium_read(exfat_medium(volume), volume->label_offset, entry, sizeof(entry), NULL) != 0 ||
        entry[0] != EXFAT_LABEL || entry[1] > LABEL_UNITS)
        return;
    for (unsigned i = 0; i < entry[1]; i++)
        units[i] = get_le16(entry + 2 + i * 2);
    utf8_from_utf16(units, entry[1], text);
    snprintf(ret, size, "%s", text);
}

static int read_facts(struct exfat_volume *exfat, bool with_free, struct volume_facts *ret_facts,
                      struct error *err)
{
    block_lock_to_write(&exfat->lock);
    int r = with_free ? exfat_space_read(exfat, err) : 0;
    if (r == 0) {
        *ret_facts = (struct volume_facts){
            .kind = VOLUME_EXFAT,
            .id = exfat->layout.serial,
            .cluster_size = exfat->layout.cluster_size,
            .clusters = exfat->layout.clusters,
            .clusters_free = with_free ? exfat->free - exfat->held : 0,
            .dirty = exfat->dirty_before,
        };
        read_label(exfat, ret_facts->label, sizeof(ret_facts->label));
    }
    return finish(exfat, r);
}

static int op_facts(struct volume *volume, struct volume_facts *ret_facts, struct error *err)
{
    return read_facts(of(volume), true, ret_facts, err);
}

static int op_identity(struct volume *volume, struct volume_facts *ret_facts, struct error *err)
{
    return read_facts(of(volume), false, ret_facts, err);
}

static struct node *op_root(struct volume *volume)
{
    return &of(volume)->root->node;
}

static int find(struct exfat_volume *volume, struct exfat_node *folder, const char *name,
                struct node **ret_node, struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = exfat_name_from(name, units, err);
    if (length < 0)
        return length == -EINVAL ? error_set(err, -ENOENT, "no name that can be") : length;
    struct exfat_entries *entries = exfat_entries_create();
    pthread_mutex_lock(&folder->lock);
    int r = exfat_folder_find(volume, folder, units, (unsigned)length, entries, err);
    if (r == 0)
        *ret_node = &exfat_node_of(volume, folder, entries)->node;
    pthread_mutex_unlock(&folder->lock);
    free(entries);
    return r;
}

static int op_lookup(struct volume *volume, struct node *folder, const char *name,
                     struct node **ret_node, struct error *err)
{
    start_read(of(volume));
    int r = must_be(node_of(folder), NODE_FOLDER, err);
    if (r == 0)
        r = find(of(volume), node_of(folder), name, ret_node, err);
    return finish(of(volume), r);
}

static int op_spelling(struct volume *volume, struct node *folder, const char *name,
                       char ret_name[VOLUME_NAME_MAX + 1], struct error *err)
{
    uint16_t units[EXFAT_NAME_UNITS];
    int length = exfat_name_from(name, units, err);
    if (length < 0)
        return length == -EINVAL ? error_set(err, -ENOENT, "no name that can be") : length;
    struct exfat_entries *entries = exfat_entries_create();
    start_read(of(volume));
    int r = must_be(node_of(folder), NODE_FOLDER, err);
    pthread_mutex_lock(&node_of(folder)->lock);
    if (r == 0)
        r = exfat_folder_find(of(volume), node_of(folder), units, (unsigned)length, entries, err);
    pthread_mutex_unlock(&node_of(folder)->lock);
    if (r == 0) {
        utf8_from_utf16(entries->set.name, entries->set.name_length, ret_name);
        exfat_place_finish(&entries->place);
    }
    free(entries);
    return finish(of(volume), r);
}

static void op_node_hold(struct volume *volume, struct node *node)
{
    nodes_hold(&of(volume)->nodes, node);
}

static void op_node_drop(struct volume *volume, struct node *node, uint64_t times)
{
    block_lock_to_write(&of(volume)->lock);
    exfat_node_drop(of(volume), node_of(node), times);
    finish(of(volume), 0);
}

static void set_facts(struct exfat_volume *volume, const struct exfat_node *node,
                      struct node_facts *facts)
{
    const struct exfat_set *set = &node->set;
    uint16_t attributes = set->attributes;
    facts->size = set->size;
    facts->created = exfat_time_to(volume, set->created);
    facts->modified = exfat_time_to(volume, set->modified);
    facts->accessed = exfat_time_to(volume, set->accessed);
    facts->read_only = attributes & EXFAT_READ_ONLY;
    facts->hidden = attributes & EXFAT_HIDDEN;
    facts->system = attributes & EXFAT_SYSTEM;
    facts->archive = attributes & EXFAT_ARCHIVE;
}

static int op_node_facts(struct volume *volume, struct node *node, struct node_facts *ret_facts,
                         struct error *err)
{
    struct exfat_volume *exfat = of(volume);
    struct exfat_node *of_exfat = node_of(node);
    int r = 0;
    start_read(exfat);
    pthread_mutex_lock(&of_exfat->lock);
    struct node_facts facts = {.number = node->number, .type = of_exfat->type};
    facts.links = of_exfat->removed ? 0 : 1;
    set_facts(exfat, of_exfat, &facts);
    if (of_exfat == exfat->root) {
        r = exfat_runs_load(exfat, of_exfat, UINT64_MAX, err);
        facts.size = (uint64_t)of_exfat->runs.clusters << exfat->layout.cluster_shift;
    }
    facts.allocated = exfat_clusters_for(&exfat->layout, facts.size) << exfat->layout.cluster_shift;
    pthread_mutex_unlock(&of_exfat->lock);
    if (r == 0)
        *ret_facts = facts;
    return finish(exfat, r);
}

static void change_set(const struct exfat_volume *volume, struct exfat_set *set, unsigned changes,
                       const struct node_facts *facts)
{
    if (changes & NODE_CREATED)
        set->created = exfat_time_from(volume, facts->created);
    if (changes & (NODE_MODIFIED | NODE_SIZE))
        set->modified =
            exfat_time_from(volume, changes & NODE_MODIFIED ? facts->modified : times_now());
    if (changes & NODE_ACCESSED)
        set->accessed = exfat_time_from(volume, facts->accessed);
    if (changes & NODE_ATTRIBUTES)
        set->attributes =
            (uint16_t)((set->attributes & EXFAT_FOLDER) | (facts->read_only ? EXFAT_READ_ONLY : 0) |
                       (facts->hidden ? EXFAT_HIDDEN : 0) | (facts->system ? EXFAT_SYSTEM : 0) |
                       (facts->archive ? EXFAT_ARCHIVE : 0));
}

static int write_set(struct exfat_volume *volume, struct exfat_node *node,
                     const struct exfat_set *set, struct error *err)
{
    int r = exfat_begin(volume, exfat_set_sectors(volume, node->place.count), err);
    if (r == 0)
        r = exfat_finish(volume, exfat_node_write(volume, node, set, err), err);
    if (r == 0)
        node->set = *set;
    return r;
}

static int set(struct exfat_volume *exfat, struct exfat_node *changed, unsigned changes,
               const struct node_facts *facts, struct error *err)
{
    int r = start_write(exfat, err);
    if (r == 0 && changed == exfat->root)
        r = error_set(err, -EPERM, "exFAT keeps nothing of its root folder");
    if (r == 0 && changes & NODE_SIZE)
        r = must_be(changed, NODE_FILE, err);
    if (r != 0)
        return finish(exfat, r);
    struct exfat_set set = changed->set;
    change_set(exfat, &set, changes, facts);
    if (changes & NODE_SIZE && facts->size != set.size) {
        set.size = facts->size;
        r = exfat_truncate(exfat, changed, &set, err);
    } else {
        r = write_set(exfat, changed, &set, err);
    }
    return finish(exfat, r);
}

static int op_node_set(struct volume *volume, struct node *node, unsigned changes,
                       const struct node_facts *facts, struct error *err)
{
    struct content_move cut;
    if (!(changes & NODE_SIZE))
        return set(of(volume), node_of(node), changes, facts, err);
    volume_content_begin(volume, &cut, node, CONTENT_CUT, 0, 0);
    int r = set(of(volume), node_of(node), changes, facts, err);
    volume_content_end(volume, &cut);
    return r;
}

static int op_read_folder(struct volume *volume, struct node *folder, uint64_t cookie,
                          volume_entry entry, void *data, struct error *err)
{
    struct exfat_volume *exfat = of(volume);
    struct exfat_node *read = node_of(folder);
    struct exfat_entries *entries = exfat_entries_create();
    char name[VOLUME_NAME_MAX + 1];
    uint32_t position = cookie < EXFAT_ENTRIES_MOST ? (uint32_t)cookie : EXFAT_ENTRIES_MOST;
    start_read(exfat);
    pthread_mutex_lock(&read->lock);
    int r = must_be(read, NODE_FOLDER, err);
    while (r == 0 && (r = exfat_folder_next(exfat, read, &position, entries, err)) == 1) {
        uint64_t place = entries->place.offsets[0];
        bool is_folder = entries->set.attributes & EXFAT_FOLDER;
        exfat_place_finish(&entries->place);
        utf8_from_utf16(entries->set.name, entries->set.name_length, name);
        r = 0;
        if (place != exfat->journal_place &&
            !entry(name, nodes_number(&exfat->nodes, place), is_folder ? NODE_FOLDER : NODE_FILE,
                   position, data))
            break;
    }
    pthread_mutex_unlock(&read->lock);
    free(entries);
    return finish(exfat, r);
}

static int op_create(struct volume *volume, struct node *folder, const char *name,
                     enum node_type type, struct node **ret_node, struct error *err)
{
    struct exfat_node *node;
    int r = start_write(of(volume), err);
    if (r == 0)
        r = must_be(node_of(folder), NODE_FOLDER, err);
    if (r == 0)
        r = exfat_create(of(volume), node_of(folder), name, type, &node, err);
    if (r == 0)
        *ret_node = &node->node;
    return finish(of(volume), r);
}

static int op_remove(struct volume *volume, struct node *folder, const char *name,
                     enum node_type type, struct error *err)
{
    int r = start_write(of(volume), err);
    if (r == 0)
        r = must_be(node_of(folder), NODE_FOLDER, err);
    if (r == 0)
        r = exfat_remove(of(volume), node_of(folder), name, type, err);
    return finish(of(volume), r);
}

static int op_rename(struct volume *volume, struct node *folder, const char *name,
                     struct node *new_folder, const char *new_name, bool replace, struct error *err)
{
    int r = start_write(of(volume), err);
    if (r == 0)
        r = must_be(node_of(folder), NODE_FOLDER, err);
    if (r == 0)
        r = must_be(node_of(new_folder), NODE_FOLDER, err);
    if (r == 0)
        r = exfat_rename(of(volume), node_of(folder), name, node_of(new_folder), new_name, replace,
                         err);
    return finish(of(volume), r);
}

static int op_map(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                  struct extent *extents, size_t room, struct error *err)
{
    struct exfat_node *node = node_of(file);
    start_read(of(volume));
    pthread_mutex_lock(&node->lock);
    int r = must_be(node, NODE_FILE, err);
    if (r == 0)
        r = exfat_map(of(volume), node, offset, length, extents, room, err);
    pthread_mutex_unlock(&node->lock);
    return finish(of(volume), r);
}

static int op_reserve(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                      struct error *err)
{
    for (;;) {
        int r = start_write(of(volume), err);
        if (r == 0)
            r = must_be(node_of(file), NODE_FILE, err);
        if (r == 0)
            r = exfat_reserve(of(volume), node_of(file), offset, length, err);
        finish(of(volume), 0);
        if (r != 1)
            return r;
        volume_let_others();
    }
}

static int op_wrote(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                    bool dated, struct error *err)
{
    int r = start_write(of(volume), err);
    if (r == 0)
        r = must_be(node_of(file), NODE_FILE, err);
    if (r == 0 && length > 0)
        r = exfat_wrote(of(volume), node_of(file), offset + length, dated, err);
    return finish(of(volume), r);
}

static void op_unreserve(struct volume *volume, struct node *file)
{
    block_lock_to_write(&of(volume)->lock);
    exfat_unreserve(of(volume), node_of(file));
    finish(of(volume), 0);
}

static int find_label(struct exfat_volume *volume, struct error *err)
{
    struct exfat_place place;
    if (volume->label_offset)
        return 0;
    int r = exfat_folder_room(volume, volume->root, 1, &place, err);
    if (r != 0)
        return r;
    volume->label_offset = place.offsets[0];
    exfat_place_finish(&place);
    folder_index_free(volume->root->index); /* it is built again, with this entry */
    volume->root->index = NULL;
    return 0;
}

static int set_label(struct exfat_volume *volume, const char *label, struct error *err)
{
    uint8_t entry[EXFAT_ENTRY] = {EXFAT_LABEL};
    uint16_t units[LABEL_UNITS];
    int length = utf16_from_utf8(label, units, LABEL_UNITS);
    if (length < 0)
        return error_set(err, -EINVAL, "no label of an exFAT volume: at most %d letters",
                         LABEL_UNITS);
    entry[1] = (uint8_t)length;
    for (int i = 0; i < length; i++)
        put_le16(entry + 2 + i * 2, units[i]);
    if (length == 0)
        entry[0] = EXFAT_LABEL & ~EXFAT_IN_USE;
    int r = find_label(volume, err);
    if (r == 0)
        r = exfat_begin(volume, 1, err);
    if (r == 0)
        r = exfat_finish(
            volume,
            medium_write(exfat_medium(volume), volume->label_offset, entry, sizeof(entry), err),
            err);
    return r;
}

static int op_set_label(struct volume *volume, const char *label, struct error *err)
{
    int r = start_write(of(volume), err);
    if (r == 0)
        r = set_label(of(volume), label, err);
    return finish(of(volume), r);
}

/* Others may need what nobody has used since the last time. */
static void shrink_at_rest(struct exfat_volume *volume)
{
    uint64_t now = atomic_load(&volume->clock);
    exfat_nodes_shrink(volume, now == volume->rested);
    volume->rested = now;
}

static int op_rest(struct volume *volume, struct error *err)
{
    block_lock_to_write(&of(volume)->lock);
    shrink_at_rest(of(volume));
    return finish(of(volume), exfat_rest(of(volume), err));
}

static bool op_discard(struct volume *volume)
{
    block_lock_to_write(&of(volume)->lock);
    bool more = of(volume)->used && exfat_space_discard(of(volume));
    pthread_rwlock_unlock(&of(volume)->lock);
    return more;
}

const struct volume_ops exfat_ops = {
    .name = "exfat",
    .time_step = 10000000,
    .probe = exfat_probe,
    .mount = exfat_mount,
    .unmount = exfat_unmount,
    .facts = op_facts,
    .identity = op_identity,
    .root = op_root,
    .lookup = op_lookup,
    .spelling = op_spelling,
    .node_hold = op_node_hold,
    .node_drop = op_node_drop,
    .node_facts = op_node_facts,
    .node_set = op_node_set,
    .read_folder = op_read_folder,
    .create = op_create,
    .remove = op_remove,
    .rename = op_rename,
    .map = op_map,
    .reserve = op_reserve,
    .wrote = op_wrote,
    .unreserve = op_unreserve,
    .set_label = op_set_label,
    .rest = op_rest,
    .discard = op_discard,
};
