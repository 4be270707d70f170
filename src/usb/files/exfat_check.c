/*
 * Every cluster that something leads to is marked once, by a walk from the root folder over all of
 * them; what leads to a cluster that is marked already, or is none, ends there. Then the allocation
 * bitmap must say the same as the marks.
 *
 * Main flow: boot region -> root folder's chain -> bitmap and up-case table -> each folder's sets:
 * name, sizes, chain -> bitmap beside the marks -> the dirty mark goes.
 */
#include "exfat_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

#include "exfat_checking.h"
#include "exfat_set.h"
#include "utf16.h"

enum {
    CLUSTERS_MOST = 1 << 30, /* that we keep marks of: 128 MiB */
    FOLDER_MOST = 256 << 20, /* bytes: 3.1.11 of the specification, 7.4 */
    DEPTH_MOST = 1024,
    PATH_MOST = 1024, /* bytes of a path that are told */
};

struct exfat_check_folder {
    struct exfat_check_chain chain;
    unsigned depth;
    char *name; /* owned: its path */
};

void exfat_check_say(struct exfat_checking *check, bool repaired, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    _cleanup_free_ char *what = xvasprintf(format, args);
    va_end(args);
    struct finding finding = {.what = what, .repaired = repaired};
    check->left += !repaired;
    check->found(&finding, check->data);
}

/* Marks. */

static bool is_marked(const struct exfat_checking *check, uint32_t cluster)
{
    uint32_t bit = cluster - EXFAT_FIRST_CLUSTER;
    return check->marks[bit / 8] & 1 << bit % 8;
}

static void mark(struct exfat_checking *check, uint32_t cluster)
{
    uint32_t bit = cluster - EXFAT_FIRST_CLUSTER;
    check->marks[bit / 8] |= (uint8_t)(1 << bit % 8);
    check->marked++;
}

int exfat_check_follow(struct exfat_checking *check, bool contiguous, uint32_t cluster,
                       uint32_t *ret_next, struct error *err)
{
    uint32_t next = cluster + 1;
    int r = contiguous ? 0 : exfat_next(check->medium, &check->layout, cluster, &next, err);
    *ret_next = r == 0 && exfat_is_cluster(&check->layout, next) ? next : 0;
    return r;
}

/* Marks up to `wanted` clusters from first on. Returns how many are sound: fewer when the chain
 * ends, or leads to a cluster that is another one's. */
static int mark_chain(struct exfat_checking *check, uint32_t first, bool contiguous,
                      uint64_t wanted, uint64_t *ret_sound, struct error *err)
{
    uint32_t cluster = exfat_is_cluster(&check->layout, first) ? first : 0;
    uint64_t sound = 0;
    int r = 0;
    while (r == 0 && sound < wanted && cluster && !is_marked(check, cluster)) {
        mark(check, cluster);
        r = steps_take(&check->steps, 1, err);
        if (++sound < wanted && r == 0)
            r = exfat_check_follow(check, contiguous, cluster, &cluster, err);
    }
    *ret_sound = sound;
    return r;
}

/* Entries of a folder: where each one is. */
struct walk {
    struct exfat_checking *check;
    const struct exfat_check_chain *chain;
    uint64_t index; /* clusters before this one */
    uint32_t cluster;
    uint32_t at; /* bytes within it */
};

static struct walk walk_of(struct exfat_checking *check, const struct exfat_check_chain *chain)
{
    return (struct walk){.check = check, .chain = chain, .cluster = chain->first};
}

/* 1: *ret_offset is where the next entry is on the medium; 0: there are no more. */
static int next_entry(struct walk *walk, uint64_t *ret_offset, struct error *err)
{
    const struct exfat_layout *layout = &walk->check->layout;
    if (walk->at == layout->cluster_size) {
        walk->index++;
        walk->at = 0;
        if (walk->index < walk->chain->clusters) {
            int r = exfat_check_follow(walk->check, walk->chain->contiguous, walk->cluster,
                                       &walk->cluster, err);
            if (r != 0)
                return r;
        }
    }
    if (walk->index >= walk->chain->clusters || !walk->cluster)
        return 0;
    *ret_offset = exfat_offset(layout, walk->cluster) + walk->at;
    walk->at += EXFAT_ENTRY;
    return 1;
}

/* A set while it is looked at. */
struct entries {
    unsigned count;
    uint64_t offsets[EXFAT_SET_READ];
    uint8_t data[EXFAT_SET_READ * EXFAT_ENTRY];
};

/* Writes all entries of a set back, in one update. */
static int write_set(struct exfat_checking *check, const struct entries *set, struct error *err)
{
    int r = medium_begin(check->medium, set->count, err);
    if (r != 0)
        return r;
    for (unsigned i = 0; r == 0 && i < set->count; i++)
        r = medium_write(check->medium, set->offsets[i], set->data + (size_t)i * EXFAT_ENTRY,
                         EXFAT_ENTRY, err);
    if (r == 0)
        medium_end(check->medium);
    else
        medium_abort(check->medium);
    return r;
}

/* A set that cannot be kept: its entries are free for others. */
static int drop_set(struct exfat_checking *check, struct entries *set, struct error *err)
{
    for (unsigned i = 0; i < set->count; i++)
        set->data[(size_t)i * EXFAT_ENTRY] &= (uint8_t)~EXFAT_IN_USE;
    return check->options.repair ? write_set(check, set, err) : 0;
}

/* Reads the rest of a set whose first entry is there. False: it ends before it should. */
static int read_rest(struct walk *walk, struct entries *set, unsigned count, bool *ret_whole,
                     struct error *err)
{
    *ret_whole = true;
    for (set->count = 1; set->count < count; set->count++) {
        struct walk before = *walk;
        uint8_t *entry = set->data + (size_t)set->count * EXFAT_ENTRY;
        int r = next_entry(walk, &set->offsets[set->count], err);
        if (r == 1)
            r = medium_read(walk->check->medium, set->offsets[set->count], entry, EXFAT_ENTRY, err);
        else if (r == 0)
            *ret_whole = false;
        if (r < 0 || !*ret_whole)
            return r;
        if ((entry[0] & (EXFAT_IN_USE | EXFAT_SECONDARY)) != (EXFAT_IN_USE | EXFAT_SECONDARY)) {
            *walk = before; /* what comes is another one's */
            *ret_whole = false;
            return 0;
        }
    }
    return 0;
}

static uint64_t clusters_for(const struct exfat_checking *check, uint64_t bytes)
{
    uint64_t size = check->layout.cluster_size;
    return bytes / size + (bytes % size != 0);
}

/* What one more may need. */
static size_t folders_step(const struct exfat_checking *check)
{
    bool full = check->folders_count == check->folders_room;
    return (full ? check->folders_room * sizeof(*check->folders) : 0) + PATH_MOST;
}

static void push_folder(struct exfat_checking *check, const struct exfat_check_folder *parent,
                        const struct exfat_set *set, uint64_t clusters, const char *name)
{
    if (check->folders_count == check->folders_room) {
        check->folders_room = check->folders_room ? check->folders_room * 2 : 16;
        check->folders = budget_resize(BUDGET_FIXED, check->folders, check->folders_room,
                                       sizeof(*check->folders));
    }
    check->folders[check->folders_count++] = (struct exfat_check_folder){
        .chain = {.first = set->first, .clusters = clusters, .contiguous = set->contiguous},
        .depth = parent->depth + 1,
        .name = budget_count(
            BUDGET_FIXED,
            xasprintf("%s/%s", strlen(parent->name) > PATH_MOST ? "..." : parent->name, name)),
    };
}

/* Its clusters end before its size does: what is there is kept. */
static int shorten(struct exfat_checking *check, struct entries *entries, struct exfat_set *set,
                   uint64_t sound, const char *path, struct error *err)
{
    set->size = sound * check->layout.cluster_size;
    set->valid = set->attributes & EXFAT_FOLDER || set->valid > set->size ? set->size : set->valid;
    if (sound == 0)
        set->first = 0;
    exfat_set_update(set, entries->data, entries->count);
    exfat_check_say(check, check->options.repair,
                    "%s: its clusters end, or are another's, after %llu of them", path,
                    (unsigned long long)sound);
    return check->options.repair ? write_set(check, entries, err) : 0;
}

/* A chain goes on behind the size: whatever is there is not the file's. */
static int end_chain(struct exfat_checking *check, const struct exfat_set *set, uint64_t clusters,
                     const char *path, struct error *err)
{
    uint32_t cluster = set->first, next = 0;
    int r = 0;
    for (uint64_t i = 1; r == 0 && i < clusters; i++)
        r = exfat_check_follow(check, false, cluster, &cluster, err);
    if (r == 0)
        r = exfat_next(check->medium, &check->layout, cluster, &next, err);
    if (r != 0 || next == EXFAT_END)
        return r;
    exfat_check_say(check, check->options.repair, "%s: its chain does not end with it", path);
    if (!check->options.repair)
        return 0;
    r = medium_begin(check->medium, 1, err);
    if (r != 0)
        return r;
    r = exfat_set_next(check->medium, &check->layout, cluster, EXFAT_END, err);
    medium_end(check->medium);
    return r;
}

/* 7.9: entries of others may have clusters, too. */
static int mark_extra(struct exfat_checking *check, const struct entries *entries,
                      struct error *err)
{
    enum { POSSIBLE = 1, CONTIGUOUS = 2 };
    int r = 0;
    for (unsigned i = 2; r == 0 && i < entries->count; i++) {
        const uint8_t *entry = entries->data + (size_t)i * EXFAT_ENTRY;
        uint64_t sound = 0;
        if (entry[0] != EXFAT_NAME && entry[0] & EXFAT_BENIGN && entry[1] & POSSIBLE)
            r = mark_chain(check, get_le32(entry + 20), entry[1] & CONTIGUOUS,
                           clusters_for(check, get_le64(entry + 24)), &sound, err);
    }
    return r;
}

static int check_set(struct exfat_checking *check, const struct exfat_check_folder *folder,
                     struct entries *entries, struct exfat_set *set, struct error *err)
{
    char name[EXFAT_NAME_UNITS * 3 + 1];
    uint64_t sound = 0, wanted = clusters_for(check, set->size);
    bool is_folder = set->attributes & EXFAT_FOLDER;
    utf8_from_utf16(set->name, set->name_length, name);
    _cleanup_free_ char *path = xasprintf("%s/%s", folder->name, name);
    if (is_folder && (set->size > FOLDER_MOST || set->size % check->layout.cluster_size ||
                      folder->depth >= DEPTH_MOST)) {
        exfat_check_say(check, check->options.repair, "%s: a folder that cannot be", path);
        return drop_set(check, entries, err);
    }
    int r = mark_chain(check, set->first, set->contiguous, wanted, &sound, err);
    if (r == 0 && sound < wanted)
        r = shorten(check, entries, set, sound, path, err);
    if (r == 0 && !set->contiguous && sound > 0)
        r = end_chain(check, set, sound, path, err);
    if (r == 0)
        r = mark_extra(check, entries, err);
    if (r == 0 && is_folder && sound > 0)
        push_folder(check, folder, set, sound, name);
    return r;
}

/* An entry that is no file's: those of the root folder, and ones that we do not know. */
static int check_other(struct exfat_checking *check, const struct exfat_check_folder *folder,
                       const uint8_t *entry, struct error *err)
{
    uint32_t first = get_le32(entry + 20);
    uint64_t size = get_le64(entry + 24), sound = 0;
    bool root = folder->depth == 0;
    int r = 0;
    if (entry[0] == EXFAT_BITMAP && root && !check->bitmap.first) {
        uint64_t wanted = clusters_for(check, size);
        r = mark_chain(check, first, false, wanted, &sound, err);
        if (r == 0 && (sound < wanted || size < (check->layout.clusters + UINT64_C(7)) / 8))
            return error_set(err, -EUCLEAN, "the allocation bitmap has no place");
        check->bitmap = (struct exfat_check_chain){.first = first, .clusters = sound};
        check->bitmap_size = size;
    } else if (entry[0] == EXFAT_UPCASE && root && !check->has_upcase) {
        r = mark_chain(check, first, false, clusters_for(check, size), &sound, err);
        check->has_upcase = true;
    } else if (entry[0] != EXFAT_LABEL && !(entry[0] & EXFAT_BENIGN)) {
        exfat_check_say(check, false, "%s: an entry of a kind that is not known: 0x%02X",
                        *folder->name ? folder->name : "/", entry[0]);
    }
    return r;
}

static int check_entry(struct walk *walk, const struct exfat_check_folder *folder,
                       struct entries *entries, struct error *err)
{
    struct exfat_checking *check = walk->check;
    bool whole = false;
    unsigned count = exfat_set_count(entries->data);
    struct exfat_set set;
    if (entries->data[0] != EXFAT_FILE && !(entries->data[0] & EXFAT_SECONDARY))
        return check_other(check, folder, entries->data, err);
    entries->count = 1;
    int r = count ? read_rest(walk, entries, count, &whole, err) : 0;
    if (r != 0)
        return r;
    _cleanup_error_ struct error why = ERROR_INIT;
    if (whole && exfat_set_parse(entries->data, count, &set, &why) == 0)
        return check_set(check, folder, entries, &set, err);
    exfat_check_say(check, check->options.repair, "%s: %s", *folder->name ? folder->name : "/",
                    whole ? error_message(&why) : "an entry of no file");
    return drop_set(check, entries, err);
}

static int check_folder(struct exfat_checking *check, const struct exfat_check_folder *folder,
                        struct error *err)
{
    struct entries *entries = xnew(struct entries);
    struct walk walk = walk_of(check, &folder->chain);
    int r;
    while ((r = next_entry(&walk, &entries->offsets[0], err)) == 1) {
        r = steps_take(&check->steps, 0, err);
        if (r == 0)
            r = budget_check(folders_step(check), "a check of so many folders", err);
        if (r < 0)
            break;
        r = medium_read(check->medium, entries->offsets[0], entries->data, EXFAT_ENTRY, err);
        if (r < 0 || entries->data[0] == EXFAT_END_OF_FOLDER)
            break;
        if (entries->data[0] & EXFAT_IN_USE)
            r = check_entry(&walk, folder, entries, err);
        if (r < 0)
            break;
    }
    free(entries);
    return r < 0 ? r : 0;
}

static int check_folders(struct exfat_checking *check, struct error *err)
{
    uint64_t sound = 0;
    int r = mark_chain(check, check->layout.root, false, FOLDER_MOST / check->layout.cluster_size,
                       &sound, err);
    struct exfat_check_folder root = {.chain = {.first = check->layout.root, .clusters = sound},
                                      .name = ""};
    if (r == 0)
        r = check_folder(check, &root, err);
    if (r == 0 && !check->bitmap.first)
        r = error_set(err, -EUCLEAN, "there is no allocation bitmap");
    if (r == 0 && !check->has_upcase)
        exfat_check_say(check, false, "there is no up-case table");
    while (check->folders_count > 0) {
        struct exfat_check_folder folder = check->folders[--check->folders_count];
        if (r == 0)
            r = check_folder(check, &folder, err);
        budget_free(BUDGET_FIXED, folder.name);
    }
    return r;
}

/* As its backup is, which stays untouched: whatever the power leaves of this, that one is whole. */
static int write_main_region(struct exfat_checking *check, struct error *err)
{
    size_t size = (size_t)check->layout.sector_size * EXFAT_BOOT_SECTORS;
    uint8_t *region = xmalloc(size);
    int r = medium_read(check->medium, size, region, size, err);
    if (r == 0)
        r = medium_begin(check->medium, (unsigned)(size / medium_sector_size(check->medium)) + 1,
                         err);
    if (r == 0) {
        r = medium_write(check->medium, 0, region, size, err);
        if (r == 0)
            medium_end(check->medium);
        else
            medium_abort(check->medium);
    }
    free(region);
    return r;
}

static int check_boot(struct exfat_checking *check, struct error *err)
{
    if (!check->layout.of_backup)
        return 0;
    exfat_check_say(check, check->options.repair, "the main boot region is broken");
    return check->options.repair ? write_main_region(check, err) : 0;
}

/* What was found is mended now. */
static int mark_clean(struct exfat_checking *check, struct error *err)
{
    uint16_t flags = (uint16_t)(check->layout.flags & ~EXFAT_DIRTY);
    uint64_t percent = check->marked * 100 / check->layout.clusters;
    if (!check->options.repair || check->left > 0)
        return 0;
    int r = medium_begin(check->medium, 1, err);
    if (r != 0)
        return r;
    r = exfat_write_flags(check->medium, &check->layout, flags, (uint8_t)percent, err);
    medium_end(check->medium);
    return r == 0 ? medium_settle(check->medium, err) : r;
}

int exfat_check(struct medium *medium, const struct check_options *options, volume_finding found,
                void *data, struct error *err)
{
    struct exfat_checking check = {
        .medium = medium,
        .options = *options,
        .found = found,
        .data = data,
    };
    int r = exfat_layout_read(medium, &check.layout, err);
    if (r != 0)
        return r;
    if (check.layout.clusters > CLUSTERS_MOST)
        return error_set(err, -EFBIG, "more clusters than are looked at: %u",
                         check.layout.clusters);
    r = budget_check(check.layout.clusters / 8, "a check of so many clusters", err);
    if (r != 0)
        return r;
    check.marks = budget_new(BUDGET_FIXED, (size_t)check.layout.clusters / 8 + 1, 1);
    check.steps = (struct steps){
        .progress = options->progress,
        .data = options->data,
        .total = (uint64_t)check.layout.clusters * 2,
    };
    r = check_boot(&check, err);
    if (r == 0)
        r = check_folders(&check, err);
    if (r == 0)
        r = steps_reach(&check.steps, check.layout.clusters, err);
    if (r == 0)
        r = exfat_check_bitmap(&check, err);
    if (r == 0)
        r = mark_clean(&check, err);
    budget_free(BUDGET_FIXED, check.folders);
    budget_free(BUDGET_FIXED, check.marks);
    return r < 0 ? r : check.left;
}
