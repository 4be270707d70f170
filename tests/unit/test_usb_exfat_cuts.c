/*
 * src/usb/files: exFAT when the power goes, at every write, with every kind of loss. What is there
 * then is what was there after one of the operations since the last sync; our check finds nothing,
 * and fsck.exfat neither.
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

#include "../usb/exfat_world.h"
#include "exfat.h"

enum { SIZE = 2 << 20, STATES = 64, FSCK_EACH = 37 };

/* What was there after each operation, and when. */
struct history {
    struct world *world;
    char *lists[STATES];
    size_t moments[STATES]; /* how long the log was when it ended */
    size_t synced[STATES];  /* from this moment on it is durable; SIZE_MAX: never said */
    unsigned count;
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

static void look_at_cut(const struct history *history, const uint8_t *disk, size_t moment,
                        bool fsck)
{
    struct block_device *device = recorder_device(history->world->recorder);
    struct world cut = world_of(disk, device->sector_size, device->sectors);
    world_mount(&cut);
    char *list = world_list(&cut);
    assert_true(is_a_state(history, moment, list));
    free(list);
    world_unmount(&cut);
    const char *found = world_findings(&cut);
    if (*found && ((history->journalled && !history->loses) || !strstr(found, "taken by nobody")))
        fail_msg("at %zu: %s", moment, found);
    if (fsck && !*found)
        world_fsck(&cut);
    world_finish(&cut);
}

static void cut_everywhere(struct history *history)
{
    struct recorder *recorder = history->world->recorder;
    uint8_t *disk = xmalloc(recorder_size(recorder));
    size_t moments = recorder_moments(recorder);
    for (size_t moment = 0; moment <= moments; moment++)
        for (int loss = LOSS_NONE; loss <= LOSS_ALL; loss++) {
            recorder_cut(recorder, moment, (enum recorder_loss)loss, (unsigned)moment * 7 + 1,
                         disk);
            look_at_cut(history, disk, moment, (moment * 4 + (size_t)loss) % FSCK_EACH == 0);
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

static void try_corpus(void (*corpus)(struct history *), uint32_t sector_size,
                       uint32_t cluster_size, uint32_t size, void (*prepare)(struct world *))
{
    struct world world = world_make(sector_size, size / sector_size, cluster_size);
    struct history *history = xnew(struct history);
    history->world = &world;
    if (prepare)
        prepare(&world);
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
    free(history);
    world_finish(&world);
}

static void files_and_folders_survive(void **state)
{
    try_corpus(files_and_folders, 512, 0, SIZE, furnish);
}

static void pieces_survive(void **state)
{
    try_corpus(pieces, 512, 0, SIZE, furnish);
}

static void small_clusters_survive(void **state)
{
    try_corpus(pieces, 512, 512, SIZE, furnish);
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
    try_corpus(first, 512, 0, SIZE, NULL);
    try_corpus(first, 512, 512, SIZE, NULL);
    try_corpus(first, 4096, 0, 4 << 20, NULL);
    try_corpus(first, 4096, 0, SIZE, NULL); /* no room for a journal */
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
    assert_int_equal(exfat_ops.facts(world->volume, &facts, NULL), 0);
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
    try_corpus(large_ones_go, 512, 512, SIZE, furnish_full);
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
    assert_int_equal(exfat_ops.node_facts(world->volume, node, &facts, NULL), 0);
    world_drop(world, node);
    return (int64_t)facts.size;
}

/* The old state or the new one; and when something is written, nothing is left of what went. */
static void look_at_large(const uint8_t *disk, bool replaces)
{
    struct world cut = world_of(disk, 512, SIZE / 512);
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
        struct world world = world_make(512, SIZE / 512, 512);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_write_survives),
        cmocka_unit_test(files_and_folders_survive),
        cmocka_unit_test(pieces_survive),
        cmocka_unit_test(small_clusters_survive),
        cmocka_unit_test(what_cannot_be_parked_goes_at_once),
        cmocka_unit_test(a_large_file_goes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
