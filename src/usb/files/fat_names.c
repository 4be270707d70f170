/* What changes folders: create, remove, rename. */
#include "fat.h"

#include <errno.h>
#include <string.h>

#include <block/bytes.h>

#include "fat_names.h"
#include "times.h"
#include "utf16.h"

enum {
    FOLDERS_MOST = 1024
}; /* one below the other, into which one is moved; ".." may go in circles */

static bool is_journal_name(const uint16_t *units, unsigned length)
{
    uint16_t name[UNITS_MAX];
    int count = utf16_from_utf8(FAT_JOURNAL, name, UNITS_MAX);
    return units_same(units, length, name, (unsigned)count);
}

/* A name that is to be made. Length. */
static int check_new(struct fat_volume *volume, struct fat_node *folder, const char *name,
                     uint16_t *units, struct error *err)
{
    if (folder->type != NODE_FOLDER)
        return error_set(err, -ENOTDIR, "not a folder");
    if (folder->removed)
        return error_set(err, -ENOENT, "the folder was removed");
    int length = fat_name_check(name, units, err);
    if (length > 0 && folder == volume->root && is_journal_name(units, (unsigned)length))
        return error_set(err, -EPERM, "%s is the journal's name", name);
    return length;
}

int fat_find(struct fat_volume *volume, struct fat_node *folder, const char *name,
             struct fat_entry *ret_entry, struct error *err)
{
    uint16_t units[UNITS_MAX];
    if (folder->type != NODE_FOLDER)
        return error_set(err, -ENOTDIR, "not a folder");
    int length = utf16_from_utf8(name, units, UNITS_MAX);
    if (length == -ENAMETOOLONG)
        return error_set(err, length, "the name is longer than 255 characters");
    if (folder->removed || length < 0)
        return error_set(err, -ENOENT, "%s: there is none", name);
    int r = fat_folder_find(volume, folder, units, (unsigned)length, ret_entry, err);
    return r == -ENOENT ? error_set(err, r, "%s: there is none", name) : r;
}

/* A name that is not there. Length. */
static int check_absent(struct fat_volume *volume, struct fat_node *folder, const char *name,
                        uint16_t *units, struct error *err)
{
    struct fat_entry entry;
    int length = check_new(volume, folder, name, units, err);
    if (length < 0)
        return length;
    int r = fat_folder_find(volume, folder, units, (unsigned)length, &entry, err);
    if (r == 0)
        return error_set(err, -EEXIST, "%s: there is one", name);
    return r == -ENOENT ? length : r;
}

static void set_times(const struct fat_volume *volume, uint8_t *raw, int64_t now)
{
    struct dos_time time = dos_time_from(now, volume->options.minutes_east);
    raw[ENTRY_CREATED_HUNDREDTHS] = time.hundredths;
    put_le16(raw + ENTRY_CREATED_TIME, time.time);
    put_le16(raw + ENTRY_CREATED_DATE, time.date);
    fat_entry_set_modified(raw, now, volume->options.minutes_east);
}

/* What ".." says: the root is 0 there. */
static uint32_t parent_cluster(const struct fat_volume *volume, const struct fat_node *folder)
{
    return folder == volume->root ? 0 : folder->first;
}

static int write_dots(struct fat_volume *volume, const struct fat_node *folder, uint32_t cluster,
                      const uint8_t *raw, struct error *err)
{
    uint8_t dots[2 * FAT_ENTRY];
    for (int i = 0; i < 2; i++) {
        uint8_t *dot = dots + (size_t)i * FAT_ENTRY;
        memcpy(dot, raw, FAT_ENTRY);
        memset(dot, ' ', 11);
        memset(dot, '.', (size_t)i + 1);
        dot[ENTRY_CASE] = 0;
        fat_entry_set_first(&volume->layout, dot,
                            i == 0 ? cluster : parent_cluster(volume, folder));
    }
    return medium_write(fat_medium(volume), fat_cluster_offset(&volume->layout, cluster), dots,
                        sizeof(dots), err);
}

/* The entry is prepared, and so is the cluster of a folder (0: a file). */
static int write_new(struct fat_volume *volume, struct fat_node *folder,
                     const struct fat_new_entry *entry, uint32_t cluster, uint64_t *ret_offset,
                     struct error *err)
{
    struct medium *medium = fat_medium(volume);
    int r = fat_begin(volume, FAT_OTHER_SECTORS, err);
    if (r != 0)
        return r;
    if (cluster != 0) {
        r = fat_table_link(medium, &volume->layout, cluster, 1, TABLE_END, err);
        if (r == 0)
            r = write_dots(volume, folder, cluster, entry->raw[entry->count - 1], err);
        volume->free--;
        medium_barrier(medium);
    }
    if (r == 0)
        r = fat_folder_write(volume, folder, entry, ret_offset, err);
    r = fat_finish(volume, r, err);
    if (cluster != 0 && r != 0)
        volume->free++;
    else if (cluster != 0)
        volume->held--;
    if (r == 0)
        fat_folder_added(volume, folder, entry);
    return r;
}

static int take_folder_cluster(struct fat_volume *volume, struct runs *runs, struct error *err)
{
    int r = fat_space_take(volume, 1, 0, runs, err);
    if (r != 0)
        return r;
    uint64_t offset = fat_cluster_offset(&volume->layout, runs->items[0].first);
    r = medium_zero_content(fat_medium(volume), offset, volume->layout.cluster_size, err);
    if (r != 0)
        fat_space_give_back(volume, runs, 0);
    return r;
}

int fat_create(struct fat_volume *volume, struct fat_node *folder, const char *name,
               enum node_type type, struct fat_node **ret, struct error *err)
{
    struct fat_new_entry entry;
    uint16_t units[UNITS_MAX];
    struct runs runs = {0};
    struct fat_entry made = {0};
    int length = check_absent(volume, folder, name, units, err);
    if (length < 0)
        return length;
    int r = fat_folder_prepare(volume, folder, units, (unsigned)length, &entry, err);
    if (r == 0 && type == NODE_FOLDER)
        r = take_folder_cluster(volume, &runs, err);
    if (r != 0) {
        runs_finish(&runs);
        return r;
    }
    uint8_t *raw = entry.raw[entry.count - 1];
    uint32_t cluster = type == NODE_FOLDER ? runs.items[0].first : 0;
    raw[ENTRY_ATTRIBUTES] = type == NODE_FOLDER ? FAT_FOLDER : FAT_ARCHIVE;
    set_times(volume, raw, times_now());
    fat_entry_set_first(&volume->layout, raw, cluster);
    r = write_new(volume, folder, &entry, cluster, &made.offset, err);
    if (r != 0)
        fat_space_give_back(volume, &runs, 0);
    runs_finish(&runs);
    memcpy(made.raw, raw, FAT_ENTRY);
    return r == 0 ? fat_node_of(volume, &made, ret, err) : r;
}

int fat_adopt(struct fat_volume *volume, struct fat_node *folder, const char *name, uint32_t first,
              uint32_t size, struct error *err)
{
    struct fat_new_entry entry;
    uint16_t units[UNITS_MAX];
    uint64_t offset = 0;
    int length = check_absent(volume, folder, name, units, err);
    if (length < 0)
        return length;
    int r = fat_folder_prepare(volume, folder, units, (unsigned)length, &entry, err);
    if (r != 0)
        return r;
    uint8_t *raw = entry.raw[entry.count - 1];
    raw[ENTRY_ATTRIBUTES] = FAT_ARCHIVE;
    set_times(volume, raw, times_now());
    fat_entry_set_first(&volume->layout, raw, first);
    put_le32(raw + ENTRY_SIZE, size);
    return write_new(volume, folder, &entry, 0, &offset, err);
}

/* Rename. */

struct move {
    struct fat_node *from, *to; /* folders */
    struct fat_entry entry;
    struct fat_node *node; /* held */
    struct fat_new_entry made;
    bool replaces;
    struct fat_leaving leaving;
    uint64_t offset; /* of its new entry */
};

/* From the folder up by "..": bounded, for they may lead anywhere. */
static int check_not_below(struct fat_volume *volume, const struct fat_node *moved,
                           const struct fat_node *folder, struct error *err)
{
    uint32_t cluster = parent_cluster(volume, folder);
    for (uint32_t steps = 0; cluster != 0 && cluster != volume->root->first; steps++) {
        uint8_t raw[FAT_ENTRY];
        if (cluster == moved->first)
            return error_set(err, -EINVAL, "a folder does not go below itself");
        if (steps >= FOLDERS_MOST)
            return error_set(err, -ELOOP, "folders more than %d deep", FOLDERS_MOST);
        if (!fat_is_cluster(&volume->layout, cluster))
            return fat_damage(volume, err, "folders that lead up to no root");
        int r = medium_read(fat_medium(volume),
                            fat_cluster_offset(&volume->layout, cluster) + FAT_ENTRY, raw,
                            FAT_ENTRY, err);
        if (r != 0)
            return r;
        if (memcmp(raw, "..         ", 11) != 0)
            return fat_damage(volume, err, "a folder at cluster %u without \"..\"", cluster);
        cluster = fat_entry_first(&volume->layout, raw);
    }
    return 0;
}

static int check_replaced(struct fat_volume *volume, struct move *move, bool replace,
                          const uint16_t *units, unsigned length, struct error *err)
{
    struct fat_entry *other = &move->leaving.entry;
    int r = fat_folder_find(volume, move->to, units, length, other, err);
    if (r == -ENOENT || (r == 0 && other->offset == move->entry.offset))
        return 0;
    if (r != 0)
        return r;
    if (!replace)
        return error_set(err, -EEXIST, "there is one of the new name");
    if (fat_entry_type(other) != move->node->type)
        return fat_wrong_type(fat_entry_type(other), err);
    r = fat_leave_prepare(volume, &move->leaving, err);
    move->replaces = r == 0;
    return r;
}

static int write_parent(struct fat_volume *volume, const struct move *move, struct error *err)
{
    uint64_t at = fat_cluster_offset(&volume->layout, move->node->first) + FAT_ENTRY;
    uint8_t raw[FAT_ENTRY];
    if (move->node->type != NODE_FOLDER || move->from == move->to)
        return 0;
    int r = medium_read(fat_medium(volume), at, raw, FAT_ENTRY, err);
    if (r == 0 && memcmp(raw, "..         ", 11) != 0)
        r = fat_damage(volume, err, "a folder without \"..\"");
    fat_entry_set_first(&volume->layout, raw, parent_cluster(volume, move->to));
    return r == 0 ? medium_write(fat_medium(volume), at, raw, FAT_ENTRY, err) : r;
}

static int write_move(struct fat_volume *volume, struct move *move, struct error *err)
{
    uint32_t free = volume->free;
    int r = fat_begin(volume, move->leaving.sectors + FAT_OTHER_SECTORS - 1, err);
    if (r != 0)
        return r;
    r = fat_folder_write(volume, move->to, &move->made, &move->offset, err);
    medium_barrier(fat_medium(volume));
    if (r == 0)
        r = fat_folder_erase(volume, move->from, &move->entry, err);
    if (r == 0)
        r = write_parent(volume, move, err);
    if (r == 0 && move->replaces)
        r = fat_leave_write(volume, move->to, &move->leaving, err);
    r = fat_finish(volume, r, err);
    if (r != 0)
        volume->free = free;
    return r;
}

static void has_moved(struct fat_volume *volume, struct move *move)
{
    const uint8_t *raw = move->made.raw[move->made.count - 1];
    fat_folder_removed(volume, move->from, &move->entry);
    if (move->replaces)
        fat_leave_memory(volume, move->to, &move->leaving);
    fat_folder_added(volume, move->to, &move->made);
    memcpy(move->node->entry, raw, FAT_ENTRY);
    move->node->entry_offset = move->offset;
    nodes_move(&volume->nodes, &move->node->node, move->offset / FAT_ENTRY + NODE_ROOT + 1);
}

static int prepare_move(struct fat_volume *volume, struct move *move, const char *new_name,
                        bool replace, struct error *err)
{
    uint16_t units[UNITS_MAX];
    int length = check_new(volume, move->to, new_name, units, err);
    if (length < 0)
        return length;
    int r = 0;
    if (move->node->type == NODE_FOLDER)
        r = check_not_below(volume, move->node, move->to, err);
    if (r == 0)
        r = check_replaced(volume, move, replace, units, (unsigned)length, err);
    if (r == 0)
        r = fat_folder_prepare(volume, move->to, units, (unsigned)length, &move->made, err);
    if (r == 0 && move->replaces)
        r = fat_leave_room(volume, &move->leaving, move->to, &move->made, err);
    if (r != 0)
        return r;
    uint8_t *raw = move->made.raw[move->made.count - 1], flags = raw[ENTRY_CASE];
    memcpy(raw + ENTRY_ATTRIBUTES, move->node->entry + ENTRY_ATTRIBUTES,
           FAT_ENTRY - ENTRY_ATTRIBUTES);
    raw[ENTRY_CASE] = flags;
    return 0;
}

int fat_rename(struct fat_volume *volume, struct fat_node *folder, const char *name,
               struct fat_node *new_folder, const char *new_name, bool replace, struct error *err)
{
    struct move move = {.from = folder, .to = new_folder};
    int r = fat_find(volume, folder, name, &move.entry, err);
    if (r == 0)
        r = fat_node_of(volume, &move.entry, &move.node, err);
    if (r != 0)
        return r;
    r = prepare_move(volume, &move, new_name, replace, err);
    if (r == 0)
        r = write_move(volume, &move, err);
    if (r == 0)
        has_moved(volume, &move);
    if (r == 0 && move.replaces)
        fat_leave_finish(volume, &move.leaving);
    else if (move.replaces)
        fat_node_drop(volume, move.leaving.node, 1);
    fat_node_drop(volume, move.node, 1);
    return r;
}
