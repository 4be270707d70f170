/*
 * src/usb/files: volumes when the power goes, at every write, with every kind of loss. What is
 * there then is what was there after one of the operations since the last sync; our check finds
 * nothing, and fsck.fat and fsck.exfat neither. The same is done to each kind.
 *
 * What is not flushed is lost by chance: by one throw of the dice a moment, and the others'
 * checkers look at a sample. CLOCHE_TEST_ALL=1: by eight throws, and they look at everything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <files/tools.h>

#include "../usb/volume_world.h"

enum { SIZE = 2 << 20, STATES = 96, FSCK_EACH = 61, THROWS = 8 };

static bool everything(void)
{
    return getenv("CLOCHE_TEST_ALL") != NULL;
}

struct seen {
    uint64_t hash;
    char *list;
};

/* What was there after each operation, and when. */
struct history {
    struct world *world;
    char *lists[STATES];
    size_t moments[STATES]; /* how long the log was when it ended */
    size_t synced[STATES];  /* from this moment on it is durable; SIZE_MAX: never said */
    unsigned count;
    struct seen *seen; /* disks that cuts have left: most are equal */
    size_t seen_count;
    bool journalled;
    bool loses; /* clusters, where the power goes while a large file is being freed */
};

static void note_state(struct history *history)
{
    assert_true(history->count < STATES);
    history->lists[history->count] = world_list(history->world);
    history->moments[history->count] = recorder_moments(history->world->recorder);
    history->synced[history->count++] = SIZE_MAX;
}

static void sync_state(struct history *history)
{
    assert_int_equal(medium_sync(history->world->medium, NULL), 0);
    history->synced[history->count - 1] = recorder_moments(history->world->recorder);
}

/* From the newest state that was durable to the one that was being made. */
static bool is_a_state(const struct history *history, size_t moment, const char *list)
{
    unsigned first = 0, last = 0;
    for (unsigned i = 0; i < history->count; i++) {
        if (history->synced[i] <= moment)
            first = i;
        if (history->moments[i] < moment)
            last = i + 1;
    }
    for (unsigned i = first; i < history->count && i <= last; i++)
        if (strcmp(history->lists[i], list) == 0)
            return true;
    fail_msg("at %zu neither of %u to %u:\n%s\nthe first is\n%s", moment, first, last, list,
             history->lists[first]);
    return false;
}

static uint64_t hash_of(const uint8_t *disk, uint64_t size)
{
    uint64_t hash = 0;
    for (uint64_t i = 0; i < size; i += 8) {
        uint64_t word;
        memcpy(&word, disk + i, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}

/* Without a journal the mark of being in use stays, and clusters are lost. */
static bool is_bearable(const struct history *history, const char *found)
{
    bool lost = strstr(found, "taken by nobody") || strstr(found, "lost");
    if (history->journalled)
        return history->loses && lost;
    return lost || strstr(found, "marked as in use");
}

/* A new disk: mounted, and checked. Returns what is there. */
static char *recover(const struct history *history, const uint8_t *disk, size_t moment)
{
    struct block_device *device = recorder_device(history->world->recorder);
    struct world cut = world_of(history->world->kind, disk, device->sector_size, device->sectors);
    world_mount(&cut);
    char *list = world_list(&cut);
    world_unmount(&cut);
    const char *found = world_findings(&cut);
    if (*found && !is_bearable(history, found))
        fail_msg("kind %d, sectors of %u: at %zu: %s", history->world->kind, device->sector_size,
                 moment, found);
    if (!*found && (everything() || history->seen_count % FSCK_EACH == 0))
        world_fsck(&cut);
    world_finish(&cut);
    return list;
}

static const char *list_of(struct history *history, const uint8_t *disk, size_t moment)
{
    uint64_t hash = hash_of(disk, recorder_size(history->world->recorder));
    for (size_t i = history->seen_count; i-- > 0;)
        if (history->seen[i].hash == hash)
            return history->seen[i].list;
    history->seen = xrealloc(history->seen, history->seen_count + 1, sizeof(struct seen));
    struct seen *seen = &history->seen[history->seen_count];
    *seen = (struct seen){hash, recover(history, disk, moment)};
    history->seen_count++;
    return seen->list;
}

static void cut_everywhere(struct history *history)
{
    struct recorder *recorder = history->world->recorder;
    uint8_t *disk = xmalloc(recorder_size(recorder));
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
        for (int loss = LOSS_NONE; loss <= LOSS_ALL; loss++) {
            bool by_chance = loss == LOSS_CHANCE || loss == LOSS_TORN;
            for (unsigned throw = 0; throw < (by_chance && everything() ? THROWS : 1); throw ++) {
                recorder_cut(recorder, moment, (enum recorder_loss)loss,
                             (unsigned)moment * 7 + 1 + throw *1000003, disk);
                assert_true(is_a_state(history, moment, list_of(history, disk, moment)));
            }
        }
    free(disk);
}

static void write_some(struct world *world, const char *path, uint64_t offset, size_t size)
{
    uint8_t *data = xmalloc(size);
    memset(data, path[1], size);
    assert_int_equal(world_write(world, path, offset, data, size), 0);
    free(data);
}

/* What others had there before, and what nothing may harm. */
static void furnish(struct world *world)
{
    world_mount(world);
    assert_int_equal(world_create(world, "/kept", NODE_FILE), 0);
    write_some(world, "/kept", 0, 10000);
    assert_int_equal(world_create(world, "/folder", NODE_FOLDER), 0);
    assert_int_equal(world_create(world, "/folder/old", NODE_FILE), 0);
    write_some(world, "/folder/old", 0, 5000);
    world_unmount(world);
}

#define DO(operation)                                                                              \
    do {                                                                                           \
        assert_int_equal(operation, 0);                                                            \
        note_state(history);                                                                       \
    } while (0)

static void files_and_folders(struct history *history)
{
    struct world *world = history->world;
    DO(world_create(world, "/new", NODE_FILE));
    write_some(world, "/new", 0, 20000);
    note_state(history);
    sync_state(history);
    DO(world_create(world, "/a folder with quite a long name", NODE_FOLDER));
    DO(world_create(world, "/a folder with quite a long name/x", NODE_FILE));
    DO(world_rename(world, "/folder/old", "/a folder with quite a long name/X", true));
    sync_state(history);
    DO(world_truncate(world, "/new", 100000));
    DO(world_truncate(world, "/new", 300));
    sync_state(history); /* what is written next is within a cluster that it had */
    write_some(world, "/new", 9000, 3000);
    note_state(history);
    DO(world_remove(world, "/folder", NODE_FOLDER));
    sync_state(history);
    DO(world_rename(world, "/new", "/another name", false));
    DO(world_remove(world, "/another name", NODE_FILE));
    DO(world_create(world, "/last", NODE_FILE));
    assert_int_equal(medium_settle(world->medium, NULL), 0);
    write_some(world, "/last", 0, 40000); /* where something else was */
    note_state(history);
    sync_state(history);
}

/* Chains, folders over more than a cluster, and frees that are another's room at once. */
static void pieces(struct history *history)
{
    struct world *world = history->world;
    char name[80];
    DO(world_create(world, "/a", NODE_FILE));
    DO(world_create(world, "/b", NODE_FILE));
    for (unsigned i = 0; i < 4; i++) {
        write_some(world, "/a", (uint64_t)i * 4096, 4096);
        note_state(history);
        write_some(world, "/b", (uint64_t)i * 4096, 4096);
        note_state(history);
    }
    sync_state(history);
    for (unsigned i = 0; i < 25; i++) {
        snprintf(name, sizeof(name), "/folder/%c is a name of more than one part, and of more",
                 'a' + i);
        DO(world_create(world, name, NODE_FILE));
    }
    sync_state(history);
    DO(world_truncate(world, "/a", 5000));
    write_some(world, "/b", 16384, 9000);
    note_state(history);
    DO(world_remove(world, "/b", NODE_FILE));
    write_some(world, "/a", 5000, 9000);
    note_state(history);
    DO(world_rename(world, "/a", "/kept2", false));
    sync_state(history);
}

static void moves(struct history *history)
{
    struct world *world = history->world;
    struct node_facts facts = {.read_only = true, .hidden = true};
    facts.modified = 500000000ll * 1000000000;
    DO(world_create(world, "/one", NODE_FOLDER));
    DO(world_create(world, "/two", NODE_FOLDER));
    DO(world_create(world, "/one/below", NODE_FOLDER));
    DO(world_create(world, "/one/below/file", NODE_FILE));
    sync_state(history);
    DO(world_rename(world, "/one/below", "/two/moved", false)); /* its parent changes */
    DO(world_create(world, "/one/empty", NODE_FOLDER));
    DO(world_rename(world, "/two/moved", "/one/empty", true)); /* over a folder */
    sync_state(history);
    DO(world_rename(world, "/one", "/two/in the other one", false)); /* with all that is below */
    DO(world->volume->ops->set_label(world->volume, "CHANGED", NULL));
    DO(world_set(world, "/kept", NODE_ATTRIBUTES | NODE_MODIFIED, &facts));
    sync_state(history);
    DO(world_remove(world, "/two/in the other one/empty/file", NODE_FILE));
    DO(world_remove(world, "/two/in the other one/empty", NODE_FOLDER));
    DO(world->volume->ops->set_label(world->volume, "", NULL));
    sync_state(history);
}

/* Folders that get clusters and lose them, the root folder among them. */
static void folders_grow(struct history *history)
{
    struct world *world = history->world;
    char name[80];
    DO(world_create(world, "/folder/grows", NODE_FOLDER));
    for (unsigned i = 0; i < 12; i++) {
        snprintf(name, sizeof(name), "/folder/grows/%u is a name of more than one part, of many",
                 i);
        DO(world_create(world, name, NODE_FILE));
        snprintf(name, sizeof(name), "/%u has a name of more than one part in the root folder", i);
        DO(world_create(world, name, NODE_FILE));
    }
    sync_state(history);
    for (unsigned i = 0; i < 12; i++) {
        snprintf(name, sizeof(name), "/folder/grows/%u is a name of more than one part, of many",
                 i);
        DO(world_remove(world, name, NODE_FILE));
    }
    DO(world_remove(world, "/folder/grows", NODE_FOLDER));
    sync_state(history);
}

/* Sizes: zeros where nobody wrote, two files in turn without a sync, and one that is removed while
 * it is held. */
static void sizes(struct history *history)
{
    struct world *world = history->world;
    struct node *held;
    DO(world_create(world, "/zeros", NODE_FILE));
    DO(world_truncate(world, "/zeros", 30000));
    write_some(world, "/zeros", 12000, 700);
    note_state(history);
    sync_state(history);
    DO(world_create(world, "/x", NODE_FILE));
    DO(world_create(world, "/y", NODE_FILE));
    for (unsigned i = 0; i < 3; i++) {
        write_some(world, "/x", (uint64_t)i * 5000, 5000);
        note_state(history);
        write_some(world, "/y", (uint64_t)i * 5000, 5000);
        note_state(history);
    }
    DO(world_truncate(world, "/zeros", 12100));
    sync_state(history);
    assert_int_equal(world_look(world, "/x", &held), 0);
    DO(world_remove(world, "/x", NODE_FILE));
    sync_state(history);
    assert_int_equal(node_write(world, held, 15000, "held", 4), 0);
    note_state(history);
    sync_state(history);
    world_drop(world, held);
    DO(world_create(world, "/last", NODE_FILE));
    sync_state(history);
}

static void discard_all(struct world *world)
{
    while (world->volume->ops->discard(world->volume))
        ;
}

/* What has become free is discarded whenever that may be, and is somebody's again. */
static void discards(struct history *history)
{
    struct world *world = history->world;
    for (unsigned i = 0; i < 2; i++) {
        DO(world_create(world, "/new", NODE_FOLDER));
        DO(world_create(world, "/new/x", NODE_FILE));
        write_some(world, "/new/x", 0, 20000);
        note_state(history);
        sync_state(history);
        discard_all(world);
        DO(world_truncate(world, "/new/x", 9000));
        discard_all(world);
        DO(world_remove(world, i == 0 ? "/folder/old" : "/kept", NODE_FILE));
        discard_all(world);
        sync_state(history);
        discard_all(world);
        DO(world_remove(world, "/new/x", NODE_FILE));
        DO(world_remove(world, "/new", NODE_FOLDER));
        discard_all(world);
        assert_int_equal(medium_settle(world->medium, NULL), 0);
        history->synced[history->count - 1] = recorder_moments(world->recorder);
        discard_all(world);
    }
    assert_true(recorder_counts(world->recorder).sectors_discarded > 2 * 20000 / 512);
}

enum { LEFT = 6 /* clusters */ };

static void furnish_nearly_full(struct world *world)
{
    struct volume_facts facts;
    furnish(world);
    world_mount(world);
    assert_int_equal(world_create(world, "/most", NODE_FILE), 0);
    assert_int_equal(world->volume->ops->facts(world->volume, &facts, NULL), 0);
    assert_int_equal(
        world_truncate(world, "/most", (facts.clusters_free - LEFT) * facts.cluster_size), 0);
    world_unmount(world);
}

/* There is no room for what is asked for: nothing of it is there. */
static void full(struct history *history)
{
    struct world *world = history->world;
    assert_int_equal(world_truncate(world, "/folder/old", 400000), -ENOSPC);
    note_state(history);
    int r = 0;
    for (unsigned i = 0; r == 0; i++) {
        char name[60];
        snprintf(name, sizeof(name), "/folder/one of many that want room %u", i);
        r = world_create(world, name, NODE_FOLDER);
        if (r == 0)
            note_state(history);
    }
    assert_int_equal(r, -ENOSPC);
    sync_state(history);
    DO(world_remove(world, "/most", NODE_FILE));
    sync_state(history);
}

/* A volume that is small, so that cuts are quick. */
struct shape {
    enum volume_kind kind;
    uint32_t sector_size, cluster_size;
    uint64_t sectors;
};

static void try_corpus(void (*corpus)(struct history *), struct shape shape,
                       void (*prepare)(struct world *))
{
    struct world world =
        world_make(shape.kind, shape.sector_size, shape.sectors, shape.cluster_size);
    struct history *history = xnew(struct history);
    history->world = &world;
    if (prepare)
        prepare(&world);
    world.discard = true;
    world_mount(&world);
    recorder_start(world.recorder);
    note_state(history);
    history->synced[0] = 0;
    corpus(history);
    history->journalled = medium_has_journal(world.medium);
    world_unmount(&world);
    cut_everywhere(history);
    for (unsigned i = 0; i < history->count; i++)
        free(history->lists[i]);
    for (size_t i = 0; i < history->seen_count; i++)
        free(history->seen[i].list);
    free(history->seen);
    free(history);
    world_finish(&world);
}

static const struct shape small_clusters = {VOLUME_EXFAT, 512, 512, SIZE / 512};
static const struct shape shapes[] = {
    {VOLUME_FAT12, 512, 512, 3400},       {VOLUME_FAT16, 512, 512, 4600},
    {VOLUME_FAT32, 512, 512, 3400},       {VOLUME_EXFAT, 512, 0, SIZE / 512},
    {VOLUME_EXFAT, 512, 512, SIZE / 512},
};

static void try_shapes(void (*corpus)(struct history *), void (*prepare)(struct world *))
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        try_corpus(corpus, shapes[i], prepare);
}

static void files_and_folders_survive(void **state)
{
    try_shapes(files_and_folders, furnish);
}

static void pieces_survive(void **state)
{
    try_shapes(pieces, furnish);
}

static void moves_survive(void **state)
{
    try_shapes(moves, furnish);
}

static void growing_folders_survive(void **state)
{
    try_shapes(folders_grow, furnish);
}

static void sizes_survive(void **state)
{
    try_shapes(sizes, furnish);
}

static void nothing_is_discarded_too_early(void **state)
{
    try_shapes(discards, furnish);
}

static void a_full_volume_survives(void **state)
{
    try_shapes(full, furnish_nearly_full);
}

/* The journal is made, too. */
static void first(struct history *history)
{
    DO(world_create(history->world, "/first", NODE_FILE));
    write_some(history->world, "/first", 0, 7000);
    note_state(history);
    sync_state(history);
}

static void the_first_write_survives(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        try_corpus(first, shapes[i], NULL);
    try_corpus(first, (struct shape){VOLUME_EXFAT, 4096, 0, (4 << 20) / 4096}, NULL);
    try_corpus(first, (struct shape){VOLUME_FAT12, 4096, 4096, (4 << 20) / 4096}, NULL);
    /* no room for a journal */
    try_corpus(first, (struct shape){VOLUME_EXFAT, 4096, 0, SIZE / 4096}, NULL);
}

/* A file in more pieces than one update can free, and no room in the root folder. */
static void furnish_full(struct world *world)
{
    struct volume_facts facts;
    char name[16];
    int r = 0;
    furnish(world);
    world_mount(world);
    assert_int_equal(world_create(world, "/folder/one", NODE_FILE), 0);
    assert_int_equal(world_create(world, "/two", NODE_FILE), 0);
    for (unsigned i = 0; i < 60; i++) {
        write_some(world, "/folder/one", (uint64_t)i * 512, 512);
        write_some(world, "/two", (uint64_t)i * 512, 512);
    }
    assert_int_equal(world_create(world, "/all", NODE_FILE), 0);
    assert_int_equal(world->volume->ops->facts(world->volume, &facts, NULL), 0);
    assert_int_equal(world_truncate(world, "/all", facts.clusters_free * 512), 0);
    for (unsigned i = 0; r == 0; i++) {
        snprintf(name, sizeof(name), "/%u", i);
        r = world_create(world, name, NODE_FILE);
    }
    assert_int_equal(r, -ENOSPC);
    world_unmount(world);
}

static void large_ones_go(struct history *history)
{
    history->loses = true;
    DO(world_rename(history->world, "/folder/old", "/folder/one", true));
    sync_state(history);
}

/* Whatever the moment: whole, or gone. */
static void what_cannot_be_parked_goes_at_once(void **state)
{
    try_corpus(large_ones_go, small_clusters, furnish_full);
}

/* A file in more pieces than one update can free. */
enum { LARGE_PIECES = 120 };

static void make_large(struct world *world)
{
    world_mount(world);
    assert_int_equal(world_create(world, "/large", NODE_FILE), 0);
    assert_int_equal(world_create(world, "/between", NODE_FILE), 0);
    assert_int_equal(world_create(world, "/other", NODE_FILE), 0);
    write_some(world, "/other", 0, 10);
    for (uint64_t i = 0; i < LARGE_PIECES; i++) {
        write_some(world, "/large", i * 512, 512);
        write_some(world, "/between", i * 512, 512);
    }
    assert_int_equal(medium_settle(world->medium, NULL), 0);
}

/* Negative: there is none. */
static int64_t size_of(struct world *world, const char *path)
{
    struct node *node;
    struct node_facts facts;
    int r = world_look(world, path, &node);
    if (r != 0)
        return r;
    assert_int_equal(world->volume->ops->node_facts(world->volume, node, &facts, NULL), 0);
    world_drop(world, node);
    return (int64_t)facts.size;
}

/* The old state or the new one; and when something is written, nothing is left of what went. */
static void look_at_large(const uint8_t *disk, bool replaces)
{
    struct world cut = world_of(VOLUME_EXFAT, disk, 512, SIZE / 512);
    world_mount(&cut);
    int64_t large = size_of(&cut, "/large"), other = size_of(&cut, "/other");
    if (replaces && other < 0)
        assert_int_equal(large, 10);
    else if (large >= 0 || replaces)
        assert_int_equal(large, LARGE_PIECES * 512);
    assert_int_equal(world_create(&cut, "/made afterwards", NODE_FILE), 0);
    assert_true(size_of(&cut, "/CLOCHE.DEL") < 0);
    world_unmount(&cut);
    assert_string_equal(world_findings(&cut), "");
    world_finish(&cut);
}

static void a_large_file_goes_at_once(void **state)
{
    for (int replaces = 0; replaces < 2; replaces++) {
        struct world world = world_make(VOLUME_EXFAT, 512, SIZE / 512, 512);
        uint8_t *disk = xmalloc(SIZE);
        make_large(&world);
        recorder_start(world.recorder);
        if (replaces)
            assert_int_equal(world_rename(&world, "/other", "/large", true), 0);
        else
            assert_int_equal(world_remove(&world, "/large", NODE_FILE), 0);
        assert_true(size_of(&world, "/CLOCHE.DEL") < 0);
        world_unmount(&world);
        assert_string_equal(world_findings(&world), "");
        for (size_t moment = 0; moment <= recorder_moments(world.recorder); moment++)
            for (int loss = LOSS_NONE; loss <= LOSS_ALL; loss++) {
                recorder_cut(world.recorder, moment, (enum recorder_loss)loss, (unsigned)moment,
                             disk);
                look_at_large(disk, replaces);
            }
        free(disk);
        world_finish(&world);
    }
}

/* Formatting. */

static int try_mount(struct world *world, struct medium *medium)
{
    struct volume_options options = {0};
    world->medium = medium;
    return volume_mount(medium, &options, &world->volume, NULL);
}

/* What was there, as a whole; or what is new, and nothing is to be found in it; or nothing. */
static bool is_old_or_new(const uint8_t *disk, const struct world *formatted, const char *old,
                          const char *new)
{
    struct block_device *device = recorder_device(formatted->recorder);
    struct world cut = world_of(formatted->kind, disk, device->sector_size, device->sectors);
    struct medium_options options = {0};
    struct medium *medium;
    assert_int_equal(medium_open(recorder_device(cut.recorder), &options, &medium, NULL), 0);
    bool is_new = false;
    if (try_mount(&cut, medium) == 0) {
        char *list = world_list(&cut);
        is_new = strcmp(list, new) == 0;
        if (!is_new && strcmp(list, old) != 0)
            fail_msg("kind %d: neither the old nor the new one:\n%s", formatted->kind, list);
        free(list);
        world_unmount(&cut);
        if (is_new)
            assert_string_equal(world_findings(&cut), "");
    } else {
        assert_int_equal(medium_close(medium, NULL), 0);
    }
    recorder_destroy(cut.recorder);
    return is_new;
}

static uint32_t clusters_of(enum volume_kind kind, uint64_t sectors)
{
    bool large = sectors > 60000;
    return kind == VOLUME_FAT12            ? (large ? 32768 : 1024)
           : kind == VOLUME_FAT16 && large ? 2048
                                           : 512;
}

static void format_over(enum volume_kind from, enum volume_kind to)
{
    uint64_t sectors = from == VOLUME_FAT32 || to == VOLUME_FAT32 ? 70000 : 4200;
    struct world world = world_make(from, 512, sectors, clusters_of(from, sectors));
    struct format_options options = {
        .kind = to, .label = "NEW", .id = 9, .cluster_size = clusters_of(to, sectors)};
    struct medium_options medium_options = {0};
    uint8_t *disk = xmalloc(recorder_size(world.recorder));
    bool is_new = false;
    furnish(&world);
    world_mount(&world);
    char *old = world_list(&world);
    world_unmount(&world);
    recorder_start(world.recorder);
    world.kind = to;
    assert_int_equal(
        medium_open(recorder_device(world.recorder), &medium_options, &world.medium, NULL), 0);
    assert_int_equal(volume_format(world.medium, &options, NULL), 0);
    assert_int_equal(medium_close(world.medium, NULL), 0);
    size_t moments = recorder_moments(world.recorder), last = sectors > 60000 ? 3 : 8;
    size_t step = everything() ? 1 : 1 + moments / (last * 3);
    for (size_t moment = 0; moment <= moments; moment += moments - moment < last ? 1 : step)
        for (int loss = LOSS_NONE; loss <= LOSS_ALL; loss++) {
            recorder_cut(world.recorder, moment, (enum recorder_loss)loss, (unsigned)moment, disk);
            is_new = is_old_or_new(disk, &world, old, "label NEW\n");
        }
    assert_true(is_new);
    free(disk);
    free(old);
    world_finish(&world);
}

static void a_format_may_be_cut(void **state)
{
    static const enum volume_kind kinds[] = {VOLUME_FAT12, VOLUME_FAT16, VOLUME_FAT32,
                                             VOLUME_EXFAT};
    for (size_t from = 0; from < ARRAY_SIZE(kinds); from++)
        for (size_t to = 0; to < ARRAY_SIZE(kinds); to++)
            if (everything() || from == to || kinds[to] == VOLUME_EXFAT ||
                kinds[from] == VOLUME_EXFAT)
                format_over(kinds[from], kinds[to]);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_write_survives),
        cmocka_unit_test(files_and_folders_survive),
        cmocka_unit_test(pieces_survive),
        cmocka_unit_test(moves_survive),
        cmocka_unit_test(growing_folders_survive),
        cmocka_unit_test(sizes_survive),
        cmocka_unit_test(nothing_is_discarded_too_early),
        cmocka_unit_test(a_full_volume_survives),
        cmocka_unit_test(what_cannot_be_parked_goes_at_once),
        cmocka_unit_test(a_large_file_goes_at_once),
        cmocka_unit_test(a_format_may_be_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
