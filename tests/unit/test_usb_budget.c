/* src/usb: what is kept in memory of volumes whose files are in as many pieces as can be, and whose
 * folders are full, with little memory for that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <files/tools.h>

#include "../usb/volume_world.h"

enum {
    SECTOR = 512, /* and a cluster's size */
    SECTORS = 40000,
    FILES = 4,
    PIECES = 3000,         /* of each file */
    LIMIT = 160 << 10,     /* for two of them, and for all that is not a file's */
    TOO_LITTLE = 24 << 10, /* for one */
    FOR_NO_CHECK = 4 << 10,
};

static uint8_t data[PIECES * SECTOR], back[PIECES * SECTOR];

static void fill(unsigned seed, size_t from, size_t size)
{
    for (size_t i = from; i < from + size; i++)
        data[i] = (uint8_t)(seed + i * 7 + (i >> 9));
}

static const char *name(unsigned file)
{
    static char text[16];
    snprintf(text, sizeof(text), "/file%u", file);
    return text;
}

/* They grow in turn, each by a cluster. */
static struct world make_fragmented(enum volume_kind kind)
{
    struct world world = world_make(kind, SECTOR, SECTORS, SECTOR);
    budget_set(0);
    world_mount(&world);
    for (unsigned file = 0; file < FILES; file++)
        assert_int_equal(world_create(&world, name(file), NODE_FILE), 0);
    for (unsigned piece = 0; piece < PIECES; piece++)
        for (unsigned file = 0; file < FILES; file++) {
            size_t at = (size_t)piece * SECTOR;
            fill(file, at, SECTOR);
            assert_int_equal(world_write(&world, name(file), at, data + at, SECTOR), 0);
        }
    world_unmount(&world);
    assert_int_equal(budget_used(), 0);
    return world;
}

static void hold_all(struct world *world, struct node **nodes)
{
    for (unsigned file = 0; file < FILES; file++)
        assert_int_equal(world_look(world, name(file), &nodes[file]), 0);
}

static void drop_all(struct world *world, struct node **nodes)
{
    for (unsigned file = 0; file < FILES; file++)
        world_drop(world, nodes[file]);
}

static void read_all(struct world *world, struct node **nodes, unsigned from)
{
    for (unsigned file = from; file < FILES; file++) {
        fill(file, 0, sizeof(data));
        assert_int_equal(node_read(world, nodes[file], 0, back, sizeof(back)), sizeof(back));
        assert_memory_equal(back, data, sizeof(data));
        assert_true(budget_used() <= LIMIT);
    }
}

static void ends_clean(struct world *world)
{
    world_unmount(world);
    assert_int_equal(budget_used(), 0);
    budget_set(0);
    assert_string_equal(world_findings(world), "");
    world_fsck(world);
    world_finish(world);
}

static void of_kind(void (*look)(enum volume_kind kind))
{
    look(VOLUME_FAT32);
    look(VOLUME_EXFAT);
}

/* What was not used lately is dropped, and read again. */
static void read_in_turn(enum volume_kind kind)
{
    struct world world = make_fragmented(kind);
    struct node *nodes[FILES];
    world_mount(&world);
    hold_all(&world, nodes);
    for (unsigned file = 0; file < FILES; file++)
        assert_int_equal(node_read(&world, nodes[file], 0, back, sizeof(back)), sizeof(back));
    assert_true(budget_used() > LIMIT); /* else this shows nothing */
    budget_set(LIMIT);
    for (unsigned round = 0; round < 2; round++)
        read_all(&world, nodes, 0);
    drop_all(&world, nodes);
    ends_clean(&world);
}

static void where_files_are_is_dropped_and_read_again(void **state)
{
    of_kind(read_in_turn);
}

/* A write is announced, others are read, it is written, and the file grows. */
static void write_in_turn(enum volume_kind kind)
{
    struct world world = make_fragmented(kind);
    struct extent extent;
    struct node *nodes[FILES];
    static const uint8_t other[SECTOR] = {1, 2, 3};
    budget_set(LIMIT);
    world_mount(&world);
    const struct volume_ops *ops = world.volume->ops;
    hold_all(&world, nodes);
    assert_int_equal(ops->reserve(world.volume, nodes[0], SECTOR, SECTOR, NULL), 0);
    assert_int_equal(ops->map(world.volume, nodes[0], SECTOR, SECTOR, &extent, 1, NULL), 1);
    read_all(&world, nodes, 1);
    assert_int_equal(medium_write_content(world.medium, extent.offset, other, SECTOR, NULL), 0);
    assert_int_equal(ops->wrote(world.volume, nodes[0], SECTOR, SECTOR, false, NULL), 0);
    read_all(&world, nodes, 1);
    assert_int_equal(node_write(&world, nodes[0], PIECES * SECTOR, other, SECTOR), 0);
    assert_int_equal(ops->reserve(world.volume, nodes[0], (PIECES + 1) * SECTOR, SECTOR, NULL), 0);
    read_all(&world, nodes, 1);
    ops->unreserve(world.volume, nodes[0]);
    read_all(&world, nodes, 1);
    assert_int_equal(node_read(&world, nodes[0], SECTOR, back, SECTOR), SECTOR);
    assert_memory_equal(back, other, SECTOR);
    assert_int_equal(node_read(&world, nodes[0], PIECES * SECTOR, back, SECTOR), SECTOR);
    assert_memory_equal(back, other, SECTOR);
    drop_all(&world, nodes);
    ends_clean(&world);
}

static void a_write_goes_on_when_its_file_was_dropped(void **state)
{
    of_kind(write_in_turn);
}

static void refuse(enum volume_kind kind)
{
    struct world world = make_fragmented(kind);
    struct extent extent;
    struct error err = ERROR_INIT;
    struct node *nodes[FILES];
    budget_set(FOR_NO_CHECK);
    assert_non_null(strstr(world_findings(&world), "a check of so many clusters needs"));
    assert_int_equal(budget_used(), 0);
    budget_set(LIMIT);
    world_mount(&world);
    hold_all(&world, nodes);
    budget_set(budget_used() + TOO_LITTLE);
    assert_int_equal(world.volume->ops->map(world.volume, nodes[0], sizeof(data) - SECTOR, SECTOR,
                                            &extent, 1, &err),
                     -ENOMEM);
    assert_non_null(strstr(error_message(&err), "a file in so many pieces needs"));
    error_finish(&err);
    budget_set(LIMIT);
    read_all(&world, nodes, 0);
    drop_all(&world, nodes);
    ends_clean(&world);
}

static void what_needs_more_is_refused(void **state)
{
    of_kind(refuse);
}

enum { FOLDERS = 6, NAMES = 1200 };

static void look_at_names(struct world *world)
{
    char path[64];
    struct node *node;
    for (unsigned folder = 0; folder < FOLDERS; folder++)
        for (unsigned i = 0; i < NAMES; i += 157) {
            snprintf(path, sizeof(path), "/folder%u/a name of many %u", folder, i);
            assert_int_equal(world_look(world, path, &node), 0);
            world_drop(world, node);
        }
}

static void fill_folders(enum volume_kind kind)
{
    struct world world = world_make(kind, SECTOR, SECTORS, SECTOR);
    struct node *held[FOLDERS];
    char path[64];
    budget_set(0);
    world_mount(&world);
    for (unsigned folder = 0; folder < FOLDERS; folder++) {
        snprintf(path, sizeof(path), "/folder%u", folder);
        assert_int_equal(world_create(&world, path, NODE_FOLDER), 0);
        assert_int_equal(world_look(&world, path, &held[folder]), 0);
        for (unsigned i = 0; i < NAMES; i++) {
            snprintf(path, sizeof(path), "/folder%u/a name of many %u", folder, i);
            assert_int_equal(world_create(&world, path, NODE_FILE), 0);
        }
    }
    look_at_names(&world);
    assert_true(budget_used() > LIMIT); /* else this shows nothing */
    budget_set(LIMIT);
    for (unsigned round = 0; round < 2; round++) {
        look_at_names(&world);
        assert_true(budget_used() <= LIMIT);
    }
    assert_int_equal(world_create(&world, "/folder0/another", NODE_FILE), 0);
    assert_int_equal(world_remove(&world, "/folder1/a name of many 0", NODE_FILE), 0);
    for (unsigned folder = 0; folder < FOLDERS; folder++)
        world_drop(&world, held[folder]);
    ends_clean(&world);
}

static void names_of_folders_are_dropped_and_read_again(void **state)
{
    of_kind(fill_folders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_files_are_is_dropped_and_read_again),
        cmocka_unit_test(a_write_goes_on_when_its_file_was_dropped),
        cmocka_unit_test(what_needs_more_is_refused),
        cmocka_unit_test(names_of_folders_are_dropped_and_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
