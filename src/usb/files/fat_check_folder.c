/* Folders while a volume is checked: their entries, one after the other, and what these lead to. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

#include "fat_check_walk.h"
#include "utf16.h"

enum {
    PATH_MOST = 1024, /* bytes of a path that are told */
    DOTS = 2,         /* entries that a folder begins with */
};
#define NONE UINT32_MAX

/* Slots. */

bool fat_walk_slot(const struct fat_walk *walk, uint32_t slot, uint64_t *ret_offset)
{
    const struct fat_layout *layout = &walk->check->volume.layout;
    const struct runs *runs = &walk->at.runs;
    uint32_t of_cluster = layout->cluster_size / FAT_ENTRY, cluster = slot / of_cluster;
    if (runs->clusters == 0) {
        *ret_offset = layout->root_offset + (uint64_t)slot * FAT_ENTRY;
        return slot < layout->root_slots;
    }
    if (slot >= FAT_SLOTS_MOST || cluster >= runs->clusters)
        return false;
    const struct run *run = runs_find(runs, cluster);
    *ret_offset = fat_cluster_offset(layout, run->first + (cluster - run->at)) +
                  (uint64_t)(slot % of_cluster) * FAT_ENTRY;
    return true;
}

int fat_walk_write(struct fat_walk *walk, uint32_t first, uint32_t end, unsigned at, uint8_t byte,
                   struct error *err)
{
    int r = 0;
    for (uint32_t slot = first; r == 0 && slot < end; slot++) {
        uint64_t offset = 0;
        if (fat_walk_slot(walk, slot, &offset))
            r = medium_write(fat_medium(&walk->check->volume), offset + at, &byte, 1, err);
    }
    return r;
}

/* Slots [first, end) are free for others, in updates that are not too large. */
static int drop_slots(struct fat_walk *walk, uint32_t first, uint32_t end, struct error *err)
{
    int r = 0;
    for (uint32_t part; r == 0 && first < end; first += part) {
        part = end - first < FAT_LONG_MOST + 1 ? end - first : FAT_LONG_MOST + 1;
        r = fat_repair_begin(walk->check, FAT_LONG_MOST + 1, err);
        if (r == 0)
            r = fat_repair_end(walk->check,
                               fat_walk_write(walk, first, first + part, 0, FAT_DELETED, err));
    }
    return r;
}

static int drop_orphans(struct fat_walk *walk, uint32_t first, uint32_t end, struct error *err)
{
    if (first >= end)
        return 0;
    return fat_say(walk->check, "%s/: a long name without its short one", walk->at.name)
               ? drop_slots(walk, first, end, err)
               : 0;
}

static int drop_item(struct fat_walk *walk, const struct fat_item *item, struct error *err)
{
    return walk->check->options.repair
               ? drop_slots(walk, item->entry.first, item->entry.slot + 1, err)
               : 0;
}

/* What entries lead to. */

static uint32_t first_of(const struct fat_walk *walk, const struct fat_item *item)
{
    return fat_entry_first(&walk->check->volume.layout, item->entry.raw);
}

/* In one update: the entry, and the end of its chain. */
static int write_entry(struct fat_walk *walk, struct fat_item *item, const struct fat_chain *chain,
                       bool end_it, struct error *err)
{
    struct fat_volume *volume = &walk->check->volume;
    unsigned sectors = end_it ? fat_table_sectors(volume, chain->last, 1) : 0;
    int r = fat_repair_begin(walk->check, sectors + 2, err);
    if (r != 0)
        return r;
    r = medium_write(fat_medium(volume), item->offset, item->entry.raw, FAT_ENTRY, err);
    if (r == 0 && end_it)
        r = fat_table_link(fat_medium(volume), &volume->layout, chain->last, 1, TABLE_END, err);
    return fat_repair_end(walk->check, r);
}

static int check_file(struct fat_walk *walk, struct fat_item *item, struct error *err)
{
    struct fat_checking *check = walk->check;
    const struct fat_layout *layout = &check->volume.layout;
    uint8_t *raw = item->entry.raw;
    uint32_t size = get_le32(raw + ENTRY_SIZE), wanted = fat_clusters_of(layout, size);
    struct fat_chain chain;
    bool repair = false;
    int r = fat_mark_chain(check, first_of(walk, item), wanted, &chain, err);
    if (r != 0)
        return r;
    runs_finish(&chain.runs);
    bool end_it = chain.sound > 0 && !chain.ends;
    if (chain.sound < wanted) {
        repair = fat_say(check, "%s: its clusters end, or are another's, after %u of them",
                         item->path, chain.sound);
        put_le32(raw + ENTRY_SIZE, chain.sound * layout->cluster_size);
    } else if (end_it) {
        repair = fat_say(check, "%s: its chain does not end with it", item->path);
    } else if (wanted == 0 && first_of(walk, item) != 0) {
        repair = fat_say(check, "%s: an empty file with a cluster", item->path);
    }
    if (chain.sound == 0)
        fat_entry_set_first(layout, raw, 0);
    return repair ? write_entry(walk, item, &chain, end_it, err) : 0;
}

static bool is_dot(const uint8_t *raw, int dots)
{
    return memcmp(raw, dots == 1 ? ".          " : "..         ", 11) == 0;
}

static bool is_free(const uint8_t *raw)
{
    return raw[0] == 0 || raw[0] == FAT_DELETED;
}

static void push(struct fat_walk *walk, uint32_t first, struct fat_chain *chain, const char *path)
{
    if (walk->count == walk->room) {
        walk->room = walk->room ? walk->room * 2 : 16;
        walk->folders =
            budget_resize(BUDGET_FIXED, walk->folders, walk->room, sizeof(*walk->folders));
    }
    walk->folders[walk->count++] = (struct fat_walk_folder){
        .first = first,
        .parent = walk->at.first,
        .runs = chain->runs,
        .name = budget_count(BUDGET_FIXED, xstrdup(strlen(path) > PATH_MOST ? "..." : path)),
    };
}

/* A folder begins with itself and the one above. What has neither of them is none. */
static int read_dots(struct fat_walk *walk, uint32_t first, uint8_t *dots, bool *ret_is_folder,
                     struct error *err)
{
    int r = medium_read(fat_medium(&walk->check->volume),
                        fat_cluster_offset(&walk->check->volume.layout, first), dots,
                        DOTS * FAT_ENTRY + 1, err);
    const uint8_t *second = dots + FAT_ENTRY;
    *ret_is_folder =
        is_dot(dots, 1) || is_dot(second, 2) || (is_free(dots) && (!dots[0] || is_free(second)));
    return r;
}

static int check_dots(struct fat_walk *walk, const struct fat_item *item, uint32_t first,
                      uint8_t *dots, struct error *err)
{
    struct fat_volume *volume = &walk->check->volume;
    const struct fat_layout *layout = &volume->layout;
    bool wrong = false, ended = dots[0] == 0 || dots[FAT_ENTRY] == 0;
    for (int i = 0; i < DOTS; i++) {
        uint8_t *raw = dots + (size_t)i * FAT_ENTRY;
        uint32_t leads = i == 0 ? first : walk->at.first;
        if (is_dot(raw, i + 1) && raw[ENTRY_ATTRIBUTES] & FAT_FOLDER &&
            !(raw[ENTRY_ATTRIBUTES] & FAT_LABEL) && fat_entry_first(layout, raw) == leads)
            continue;
        wrong = true;
        memcpy(raw, item->entry.raw, FAT_ENTRY);
        memset(raw, ' ', 11);
        memset(raw, '.', (size_t)i + 1);
        raw[ENTRY_CASE] = 0;
        fat_entry_set_first(layout, raw, leads);
    }
    if (!wrong || !fat_say(walk->check, "%s: what leads to itself or to the folder above is wrong",
                           item->path))
        return 0;
    if (ended)
        dots[DOTS * FAT_ENTRY] = 0;
    int r = fat_repair_begin(walk->check, 2, err);
    if (r != 0)
        return r;
    return fat_repair_end(walk->check,
                          medium_write(fat_medium(volume), fat_cluster_offset(layout, first), dots,
                                       DOTS * FAT_ENTRY + 1, err));
}

static int check_subfolder_chain(struct fat_walk *walk, struct fat_item *item, uint32_t first,
                                 struct fat_chain *chain, struct error *err)
{
    struct fat_checking *check = walk->check;
    uint8_t *raw = item->entry.raw;
    uint32_t most = FAT_SLOTS_MOST * FAT_ENTRY / check->volume.layout.cluster_size;
    bool repair = false;
    int r = fat_mark_chain(check, first, most, chain, err);
    if (r != 0 || chain->sound == 0)
        return r;
    if (!chain->ends)
        repair = fat_say(check, "%s: its clusters do not end, or lead to another's, after %u",
                         item->path, chain->sound);
    if (get_le32(raw + ENTRY_SIZE) != 0) {
        repair = fat_say(check, "%s: a folder with the size of a file", item->path);
        put_le32(raw + ENTRY_SIZE, 0);
    }
    return repair ? write_entry(walk, item, chain, !chain->ends, err) : 0;
}

static int check_subfolder(struct fat_walk *walk, struct fat_item *item, struct error *err)
{
    struct fat_checking *check = walk->check;
    uint32_t first = first_of(walk, item);
    uint8_t dots[DOTS * FAT_ENTRY + 1]; /* and whether the folder goes on */
    struct fat_chain chain = {0};
    bool is_folder = fat_is_cluster(&check->volume.layout, first) && !fat_is_marked(check, first);
    int r = is_folder ? read_dots(walk, first, dots, &is_folder, err) : 0;
    if (r == 0 && is_folder)
        r = check_subfolder_chain(walk, item, first, &chain, err);
    if (r != 0)
        return r;
    if (chain.sound == 0) {
        fat_say(check, "%s: a folder that leads to none", item->path);
        return drop_item(walk, item, err);
    }
    r = check_dots(walk, item, first, dots, err);
    push(walk, first, &chain, item->path);
    return r;
}

/* What one more entry may need. */
static size_t walk_step(const struct fat_walk *walk)
{
    size_t folders = walk->count == walk->room ? walk->room * sizeof(*walk->folders) : 0;
    return folders + fat_check_names_step(&walk->names) + PATH_MOST;
}

static int check_item(struct fat_walk *walk, struct fat_item *item, struct error *err)
{
    char name[VOLUME_NAME_MAX + 1];
    utf8_from_utf16(item->entry.name, item->entry.length, name);
    item->path = xasprintf("%s/%s", walk->at.name, name);
    int r = budget_check(walk_step(walk), "a check of so many files", err);
    if (r == 0)
        r = fat_check_name(walk, item, err);
    if (r == 0)
        r = item->entry.raw[ENTRY_ATTRIBUTES] & FAT_FOLDER ? check_subfolder(walk, item, err)
                                                           : check_file(walk, item, err);
    free(item->path);
    return r;
}

/* A folder. */

/* Of an entry that is none of a file: "." and ".." are nowhere but at a folder's beginning. */
static int check_other(struct fat_walk *walk, uint32_t slot, const uint8_t *raw, struct error *err)
{
    bool first = walk->at.first != 0 && slot < DOTS;
    if (raw[ENTRY_ATTRIBUTES] & FAT_LABEL || first || !(is_dot(raw, 1) || is_dot(raw, 2)))
        return 0;
    return fat_say(walk->check, "%s/: an entry with the name of a folder above", walk->at.name)
               ? drop_slots(walk, slot, slot + 1, err)
               : 0;
}

static bool is_long(const uint8_t *raw)
{
    return raw[0] != FAT_DELETED && (raw[ENTRY_ATTRIBUTES] & FAT_ATTRIBUTES) == FAT_LONG;
}

static int check_slots(struct fat_walk *walk, struct fat_item *item, struct error *err)
{
    struct fat_assembly assembly = {0};
    uint32_t slot = 0, longs = NONE; /* the first of the long entries that came last */
    uint8_t raw[FAT_ENTRY];
    int r = 0;
    for (; r == 0 && fat_walk_slot(walk, slot, &item->offset); slot++) {
        r = steps_take(&walk->check->steps, 0, err);
        if (r != 0)
            break;
        r = medium_read(fat_medium(&walk->check->volume), item->offset, raw, FAT_ENTRY, err);
        if (r != 0 || raw[0] == 0)
            break;
        bool file = fat_take_slot(&walk->check->volume, &assembly, slot, raw, &item->entry);
        if (is_long(raw)) {
            longs = longs == NONE ? slot : longs;
            continue;
        }
        r = drop_orphans(walk, longs, file ? item->entry.first : slot, err);
        longs = NONE;
        if (r == 0)
            r = file ? check_item(walk, item, err) : check_other(walk, slot, raw, err);
    }
    return r == 0 ? drop_orphans(walk, longs, slot, err) : r;
}

static int check_root(struct fat_walk *walk, struct error *err)
{
    struct fat_checking *check = walk->check;
    const struct fat_layout *layout = &check->volume.layout;
    struct fat_chain chain;
    if (layout->kind != VOLUME_FAT32)
        return 0;
    uint32_t most = FAT_SLOTS_MOST * FAT_ENTRY / layout->cluster_size;
    int r = fat_mark_chain(check, layout->root_cluster, most, &chain, err);
    if (r != 0)
        return r;
    walk->at.runs = chain.runs;
    if (chain.sound == 0)
        return error_set(err, -EUCLEAN, "the root folder has no clusters");
    if (chain.ends || !fat_say(check, "/: its clusters do not end after %u", chain.sound))
        return 0;
    r = fat_repair_begin(check, fat_table_sectors(&check->volume, chain.last, 1), err);
    if (r != 0)
        return r;
    return fat_repair_end(
        check, fat_table_link(fat_medium(&check->volume), layout, chain.last, 1, TABLE_END, err));
}

int fat_check_folders(struct fat_checking *check, struct error *err)
{
    struct fat_walk walk = {.check = check,
                            .at = {.name = budget_count(BUDGET_FIXED, xstrdup(""))}};
    struct fat_item *item = xnew(struct fat_item);
    name_key_draw(&walk.key);
    int r = check_root(&walk, err);
    if (r == 0)
        r = check_slots(&walk, item, err);
    while (walk.count > 0) {
        budget_free(BUDGET_FIXED, walk.at.name);
        runs_finish(&walk.at.runs);
        fat_check_names_finish(&walk.names);
        walk.at = walk.folders[--walk.count];
        if (r == 0)
            r = check_slots(&walk, item, err);
    }
    budget_free(BUDGET_FIXED, walk.at.name);
    runs_finish(&walk.at.runs);
    fat_check_names_finish(&walk.names);
    budget_free(BUDGET_FIXED, walk.folders);
    free(item);
    return r;
}
