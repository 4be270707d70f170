/* The operations of FAT, each with the volume's lock. */
#include "fat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <block/budget.h>
#include <block/bytes.h>
#include <block/waiting.h>

#include "content.h"
#include "fat_names.h"
#include "folder_index.h"
#include "kinds.h"
#include "times.h"
#include "utf16.h"

#define VOLUME(base) ((struct fat_volume *)(base))
#define NODE(base) ((struct fat_node *)(base))

static void make_room(struct fat_volume *volume)
{
    if (!budget_is_tight())
        return;
    block_lock_to_write(&volume->lock);
    fat_nodes_shrink(volume, false);
    pthread_rwlock_unlock(&volume->lock);
}

static void lock_to_read(struct fat_volume *volume, struct fat_node *node)
{
    make_room(volume);
    block_lock_to_read(&volume->lock);
    pthread_mutex_lock(&node->lock);
}

static void unlock_read(struct fat_volume *volume, struct fat_node *node)
{
    pthread_mutex_unlock(&node->lock);
    pthread_rwlock_unlock(&volume->lock);
}

/* Holds the lock when it returns, whatever it returns. */
static int lock_to_write(struct fat_volume *volume, struct error *err)
{
    block_lock_to_write(&volume->lock);
    fat_nodes_shrink(volume, false);
    return fat_start_writing(volume, err);
}

static int unlock(struct fat_volume *volume, int r)
{
    pthread_rwlock_unlock(&volume->lock);
    return r;
}

static int read_label(struct fat_volume *volume, struct volume_facts *facts, struct error *err)
{
    uint8_t raw[FAT_ENTRY];
    uint64_t offset;
    uint32_t slot;
    int r = fat_find_label(volume, &slot, raw, &offset, err);
    const uint8_t *label = r == 1 ? raw : volume->layout.label;
    if (r >= 0 && memcmp(label, "NO NAME    ", 11) != 0)
        fat_label_text(volume->code_page, label, facts->label, sizeof(facts->label));
    return r < 0 ? r : 0;
}

static int read_facts(struct fat_volume *volume, bool with_free, struct volume_facts *ret_facts,
                      struct error *err)
{
    struct volume_facts facts = {0};
    block_lock_to_write(&volume->lock);
    int r = with_free ? fat_space_count(volume, err) : 0;
    if (r == 0)
        r = read_label(volume, &facts, err);
    facts.kind = volume->layout.kind;
    facts.id = volume->layout.id;
    facts.cluster_size = volume->layout.cluster_size;
    facts.clusters = volume->layout.clusters;
    facts.clusters_free = with_free ? volume->free - volume->held : 0;
    facts.dirty = volume->was_dirty && !volume->ours;
    pthread_rwlock_unlock(&volume->lock);
    if (r == 0)
        *ret_facts = facts;
    return r;
}

static int facts(struct volume *base, struct volume_facts *ret_facts, struct error *err)
{
    return read_facts(VOLUME(base), true, ret_facts, err);
}

static int identity(struct volume *base, struct volume_facts *ret_facts, struct error *err)
{
    return read_facts(VOLUME(base), false, ret_facts, err);
}

static struct node *root(struct volume *base)
{
    nodes_hold(&VOLUME(base)->nodes, &VOLUME(base)->root->node);
    return &VOLUME(base)->root->node;
}

static int lookup(struct volume *base, struct node *folder, const char *name,
                  struct node **ret_node, struct error *err)
{
    struct fat_entry entry;
    struct fat_node *node = NULL;
    lock_to_read(VOLUME(base), NODE(folder));
    int r = fat_find(VOLUME(base), NODE(folder), name, &entry, err);
    if (r == 0)
        r = fat_node_of(VOLUME(base), &entry, &node, err);
    unlock_read(VOLUME(base), NODE(folder));
    if (r == 0)
        *ret_node = &node->node;
    return r;
}

static int spelling(struct volume *base, struct node *folder, const char *name,
                    char ret_name[VOLUME_NAME_MAX + 1], struct error *err)
{
    struct fat_entry entry;
    lock_to_read(VOLUME(base), NODE(folder));
    int r = fat_find(VOLUME(base), NODE(folder), name, &entry, err);
    unlock_read(VOLUME(base), NODE(folder));
    if (r == 0)
        utf8_from_utf16(entry.name, entry.length, ret_name);
    return r;
}

static void node_hold(struct volume *base, struct node *node)
{
    nodes_hold(&VOLUME(base)->nodes, node);
}

static void node_drop(struct volume *base, struct node *node, uint64_t times)
{
    block_lock_to_write(&VOLUME(base)->lock);
    fat_node_drop(VOLUME(base), NODE(node), times);
    pthread_rwlock_unlock(&VOLUME(base)->lock);
}

static void times_of(const struct fat_volume *volume, const struct fat_node *node,
                     struct node_facts *facts)
{
    int east = volume->options.minutes_east;
    struct dos_time created = {get_le16(node->entry + ENTRY_CREATED_DATE),
                               get_le16(node->entry + ENTRY_CREATED_TIME),
                               node->entry[ENTRY_CREATED_HUNDREDTHS]};
    struct dos_time accessed = {.date = get_le16(node->entry + ENTRY_ACCESSED_DATE)};
    facts->modified = fat_entry_modified(node->entry, east);
    facts->created = created.date ? dos_time_to(created, east) : facts->modified;
    facts->accessed = accessed.date ? dos_time_to(accessed, east) : facts->modified;
}

/* Of a folder the size is that of its clusters; of a file the clusters are what its size needs. */
static int sizes_of(struct fat_volume *volume, struct fat_node *node, struct node_facts *facts,
                    struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    if (node->type == NODE_FILE) {
        facts->size = node->size;
        facts->allocated = (uint64_t)fat_clusters_of(layout, node->size) * layout->cluster_size;
        return 0;
    }
    int r = fat_runs_load(volume, node, UINT32_MAX, err);
    facts->size = node == volume->root && layout->kind != VOLUME_FAT32
                      ? (uint64_t)layout->root_slots * FAT_ENTRY
                      : (uint64_t)node->runs.clusters * layout->cluster_size;
    facts->allocated = facts->size;
    return r;
}

static int node_facts(struct volume *base, struct node *node, struct node_facts *ret_facts,
                      struct error *err)
{
    const struct fat_node *of = NODE(node);
    struct node_facts facts = {.number = node->number, .type = of->type};
    lock_to_read(VOLUME(base), NODE(node));
    int r = sizes_of(VOLUME(base), NODE(node), &facts, err);
    uint8_t attributes = of->entry[ENTRY_ATTRIBUTES];
    facts.read_only = attributes & FAT_READ_ONLY;
    facts.hidden = attributes & FAT_HIDDEN;
    facts.system = attributes & FAT_SYSTEM;
    facts.archive = attributes & FAT_ARCHIVE;
    facts.links = of->removed ? 0 : 1;
    times_of(VOLUME(base), of, &facts);
    unlock_read(VOLUME(base), NODE(node));
    if (r == 0)
        *ret_facts = facts;
    return r;
}

static void set_attributes(uint8_t *attributes, const struct node_facts *facts)
{
    *attributes = (uint8_t)((*attributes & FAT_FOLDER) | (facts->read_only ? FAT_READ_ONLY : 0) |
                            (facts->hidden ? FAT_HIDDEN : 0) | (facts->system ? FAT_SYSTEM : 0) |
                            (facts->archive ? FAT_ARCHIVE : 0));
}

static int set_entry(struct fat_volume *volume, struct fat_node *node, unsigned changes,
                     const struct node_facts *facts, struct error *err)
{
    uint8_t *raw = node->entry;
    int east = volume->options.minutes_east;
    if (changes & NODE_CREATED) {
        struct dos_time time = dos_time_from(facts->created, east);
        raw[ENTRY_CREATED_HUNDREDTHS] = time.hundredths;
        put_le16(raw + ENTRY_CREATED_TIME, time.time);
        put_le16(raw + ENTRY_CREATED_DATE, time.date);
    }
    if (changes & NODE_MODIFIED) {
        struct dos_time time = dos_time_from(facts->modified, east);
        put_le16(raw + ENTRY_TIME, time.time);
        put_le16(raw + ENTRY_DATE, time.date);
    }
    if (changes & NODE_ACCESSED)
        put_le16(raw + ENTRY_ACCESSED_DATE, dos_time_from(facts->accessed, east).date);
    if (changes & NODE_ATTRIBUTES)
        set_attributes(&raw[ENTRY_ATTRIBUTES], facts);
    if (node->removed)
        return 0;
    int r = fat_begin(volume, 2, err);
    return r == 0 ? fat_finish(volume, fat_entry_write(volume, node, err), err) : r;
}

static int check_set(const struct fat_volume *volume, const struct fat_node *node, unsigned changes,
                     struct error *err)
{
    if ((changes & NODE_SIZE) && node->type == NODE_FOLDER)
        return error_set(err, -EISDIR, "it is a folder");
    if (node == volume->root)
        return error_set(err, -EPERM, "the root folder of FAT has no times and attributes");
    return 0;
}

/* In steps, between which others get their turn. */
static int set_size(struct fat_volume *volume, struct fat_node *node, uint64_t size,
                    struct error *err)
{
    int r;
    for (bool first = true;; first = false) {
        r = lock_to_write(volume, err);
        if (r == 0)
            r = check_set(volume, node, NODE_SIZE, err);
        if (r == 0 && first)
            fat_unreserve(volume, node);
        if (r == 0)
            r = fat_truncate(volume, node, size, err);
        if (r < 0 && node->type == NODE_FILE)
            fat_unreserve(volume, node);
        unlock(volume, 0);
        if (r != 1)
            return r;
        volume_let_others();
    }
}

static int cut(struct fat_volume *volume, struct fat_node *node, uint64_t size, struct error *err)
{
    struct content_move cut;
    volume_content_begin(&volume->volume, &cut, &node->node, CONTENT_CUT, 0, 0);
    int r = set_size(volume, node, size, err);
    volume_content_end(&volume->volume, &cut);
    return r;
}

static int node_set(struct volume *base, struct node *node, unsigned changes,
                    const struct node_facts *facts, struct error *err)
{
    struct fat_volume *volume = VOLUME(base);
    int r = changes & NODE_SIZE ? cut(volume, NODE(node), facts->size, err) : 0;
    if (r != 0 || changes == NODE_SIZE)
        return r;
    r = lock_to_write(volume, err);
    if (r == 0)
        r = check_set(volume, NODE(node), changes, err);
    if (r == 0)
        r = set_entry(volume, NODE(node), changes, facts, err);
    return unlock(volume, r);
}

static int tell_entries(struct fat_volume *volume, struct fat_node *folder, uint64_t cookie,
                        volume_entry tell, void *data, struct error *err)
{
    struct fat_entry entry;
    char name[VOLUME_NAME_MAX + 1];
    uint32_t slot = cookie < FAT_SLOTS_MOST ? (uint32_t)cookie : FAT_SLOTS_MOST;
    int r = 0;
    while ((r = fat_folder_next(volume, folder, &slot, &entry, err)) == 1) {
        if (entry.offset == volume->journal_entry)
            continue;
        utf8_from_utf16(entry.name, entry.length, name);
        enum node_type type = entry.raw[ENTRY_ATTRIBUTES] & FAT_FOLDER ? NODE_FOLDER : NODE_FILE;
        uint64_t number = nodes_number(&volume->nodes, entry.offset / FAT_ENTRY + NODE_ROOT + 1);
        if (!tell(name, number, type, slot, data))
            return 0;
    }
    return r;
}

static int read_folder(struct volume *base, struct node *folder, uint64_t cookie,
                       volume_entry entry, void *data, struct error *err)
{
    if (NODE(folder)->type != NODE_FOLDER)
        return error_set(err, -ENOTDIR, "not a folder");
    lock_to_read(VOLUME(base), NODE(folder));
    int r = NODE(folder)->removed
                ? 0
                : tell_entries(VOLUME(base), NODE(folder), cookie, entry, data, err);
    unlock_read(VOLUME(base), NODE(folder));
    return r;
}

static int create(struct volume *base, struct node *folder, const char *name, enum node_type type,
                  struct node **ret_node, struct error *err)
{
    struct fat_node *node = NULL;
    int r = lock_to_write(VOLUME(base), err);
    if (r == 0)
        r = fat_create(VOLUME(base), NODE(folder), name, type, &node, err);
    if (r == 0)
        *ret_node = &node->node;
    return unlock(VOLUME(base), r);
}

static int remove_name(struct volume *base, struct node *folder, const char *name,
                       enum node_type type, struct error *err)
{
    int r = lock_to_write(VOLUME(base), err);
    if (r == 0)
        r = fat_remove(VOLUME(base), NODE(folder), name, type, err);
    return unlock(VOLUME(base), r);
}

static int rename_name(struct volume *base, struct node *folder, const char *name,
                       struct node *new_folder, const char *new_name, bool replace,
                       struct error *err)
{
    int r = lock_to_write(VOLUME(base), err);
    if (r == 0)
        r = fat_rename(VOLUME(base), NODE(folder), name, NODE(new_folder), new_name, replace, err);
    return unlock(VOLUME(base), r);
}

static int map(struct volume *base, struct node *file, uint64_t offset, uint64_t length,
               struct extent *extents, size_t room, struct error *err)
{
    if (NODE(file)->type != NODE_FILE)
        return error_set(err, -EISDIR, "it is a folder");
    lock_to_read(VOLUME(base), NODE(file));
    int r = fat_map(VOLUME(base), NODE(file), offset, length, extents, room, err);
    unlock_read(VOLUME(base), NODE(file));
    return r;
}

static int reserve(struct volume *base, struct node *file, uint64_t offset, uint64_t length,
                   struct error *err)
{
    if (NODE(file)->type != NODE_FILE)
        return error_set(err, -EISDIR, "it is a folder");
    for (;;) {
        int r = lock_to_write(VOLUME(base), err);
        if (r == 0)
            r = fat_reserve(VOLUME(base), NODE(file), offset, length, err);
        unlock(VOLUME(base), 0);
        if (r != 1)
            return r;
        volume_let_others();
    }
}

static void unreserve(struct volume *base, struct node *file)
{
    block_lock_to_write(&VOLUME(base)->lock);
    fat_unreserve(VOLUME(base), NODE(file));
    unlock(VOLUME(base), 0);
}

static int wrote(struct volume *base, struct node *file, uint64_t offset, uint64_t length,
                 bool dated, struct error *err)
{
    int r = lock_to_write(VOLUME(base), err);
    if (r == 0 && length > FAT_SIZE_MOST - offset % ((uint64_t)FAT_SIZE_MOST + 1))
        r = error_set(err, -EFBIG, "a file of FAT has at most 4 GiB");
    if (r == 0)
        r = fat_wrote(VOLUME(base), NODE(file), offset + length, dated, err);
    return unlock(VOLUME(base), r);
}

/* The label is an entry of the root folder; in the boot sector and its copy there is another one,
 * which nobody reads when there is the entry. Within an update. */
static int write_boot_label(struct fat_volume *volume, const uint8_t *label, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    struct medium *medium = fat_medium(volume);
    if (layout->label_offset == 0)
        return 0;
    int r = medium_write(medium, layout->label_offset, label, sizeof(layout->label), err);
    if (r == 0 && layout->backup_offset != 0)
        r = medium_write(medium, layout->backup_offset + layout->label_offset, label,
                         sizeof(layout->label), err);
    return r;
}

static int finish_label(struct fat_volume *volume, int r, const uint8_t *label, struct error *err)
{
    if (r == 0)
        r = write_boot_label(volume, label, err);
    r = fat_finish(volume, r, err);
    if (r == 0)
        memcpy(volume->layout.label, label, sizeof(volume->layout.label));
    folder_index_free(volume->root->index);
    volume->root->index = NULL;
    return r;
}

static int write_label(struct fat_volume *volume, const uint8_t *label, struct error *err)
{
    struct fat_new_entry entry = {.count = 1};
    uint8_t *raw = entry.raw[0];
    uint64_t offset = 0;
    int found = fat_find_label(volume, &entry.first, raw, &offset, err);
    int r = found < 0 ? found : 0;
    if (found == 0)
        r = fat_folder_room(volume, volume->root, 1, &entry.first, err);
    if (r != 0)
        return r;
    memcpy(raw, label, 11);
    raw[ENTRY_ATTRIBUTES] = FAT_LABEL;
    if (found == 0)
        memset(raw + ENTRY_CASE, 0, FAT_ENTRY - ENTRY_CASE);
    r = fat_begin(volume, 8, err);
    if (r != 0)
        return r;
    r = found == 1 ? medium_write(fat_medium(volume), offset, raw, FAT_ENTRY, err)
                   : fat_folder_write(volume, volume->root, &entry, &offset, err);
    return finish_label(volume, r, label, err);
}

static int erase_label(struct fat_volume *volume, struct error *err)
{
    struct fat_entry entry = {0};
    int r = fat_find_label(volume, &entry.slot, entry.raw, &entry.offset, err);
    if (r < 0)
        return r;
    bool found = r == 1;
    entry.first = entry.slot;
    r = fat_begin(volume, 8, err);
    if (r != 0)
        return r;
    if (found)
        r = fat_folder_erase(volume, volume->root, &entry, err);
    return finish_label(volume, r, (const uint8_t *)"NO NAME    ", err);
}

static int set_label(struct volume *base, const char *label, struct error *err)
{
    struct fat_volume *volume = VOLUME(base);
    uint8_t made[11];
    int r = lock_to_write(volume, err);
    if (r == 0)
        r = fat_label_make(volume->code_page, label, made, err);
    if (r == 0)
        r = label[0] ? write_label(volume, made, err) : erase_label(volume, err);
    return unlock(volume, r);
}

/* Others may need what nobody has used since the last time. */
static void shrink_at_rest(struct fat_volume *volume)
{
    uint64_t now = atomic_load(&volume->clock);
    fat_nodes_shrink(volume, now == volume->rested);
    volume->rested = now;
}

static int rest(struct volume *base, struct error *err)
{
    block_lock_to_write(&VOLUME(base)->lock);
    shrink_at_rest(VOLUME(base));
    return unlock(VOLUME(base), fat_rest(VOLUME(base), err));
}

static bool discard(struct volume *base)
{
    block_lock_to_write(&VOLUME(base)->lock);
    bool more = VOLUME(base)->used && fat_space_discard(VOLUME(base));
    pthread_rwlock_unlock(&VOLUME(base)->lock);
    return more;
}

const struct volume_ops fat_ops = {
    .name = "fat",
    .time_step = 1000000000, /* two seconds are no power of ten */
    .probe = fat_probe,
    .mount = fat_mount,
    .unmount = fat_unmount,
    .facts = facts,
    .identity = identity,
    .root = root,
    .lookup = lookup,
    .spelling = spelling,
    .node_hold = node_hold,
    .node_drop = node_drop,
    .node_facts = node_facts,
    .node_set = node_set,
    .read_folder = read_folder,
    .create = create,
    .remove = remove_name,
    .rename = rename_name,
    .map = map,
    .reserve = reserve,
    .wrote = wrote,
    .unreserve = unreserve,
    .set_label = set_label,
    .rest = rest,
    .discard = discard,
};
