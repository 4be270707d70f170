/* src/usb/files: what has become free is discarded, not before that is in place, and not what is
 * somebody's again. What is discarded is lost (tests/usb/recorder.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <files/tools.h>

#include "../usb/volume_world.h"

enum { SIZE = 100 << 10, SECTORS = 40000, LOST = 0xD5 };

static const enum volume_kind kinds[] = {VOLUME_FAT16, VOLUME_EXFAT};

static struct recorder_counts formatted; /* what had been done by then */

static struct world start(enum volume_kind kind)
{
    struct world world = world_make(kind, 512, SECTORS, 2048);
    formatted = recorder_counts(world.recorder);
    world.discard = true;
    world_mount(&world);
    return world;
}

static void make(struct world *world, const char *path, uint8_t byte)
{
    uint8_t *data = xmalloc(SIZE);
    memset(data, byte, SIZE);
    assert_int_equal(world_create(world, path, NODE_FILE), 0);
    assert_int_equal(world_write(world, path, 0, data, SIZE), 0);
    free(data);
}

static uint64_t discarded(const struct world *world)
{
    return recorder_counts(world->recorder).sectors_discarded - formatted.sectors_discarded;
}

/* Where the first byte of a file is. */
static uint64_t place_of(struct world *world, const char *path)
{
    struct node *node;
    struct extent extent;
    assert_int_equal(world_look(world, path, &node), 0);
    assert_int_equal(world->volume->ops->map(world->volume, node, 0, 1, &extent, 1, NULL), 1);
    world_drop(world, node);
    return extent.offset;
}

static bool is_there(struct world *world, const char *path, uint8_t byte)
{
    uint8_t *data = xmalloc(SIZE);
    bool same = world_read(world, path, 0, data, SIZE) == SIZE;
    for (size_t i = 0; same && i < SIZE; i++)
        same = data[i] == byte;
    free(data);
    return same;
}

static void discard_all(struct world *world)
{
    while (world->volume->ops->discard(world->volume))
        ;
}

static void what_is_free_in_place_is_discarded_once(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct world world = start(kinds[i]);
        make(&world, "/kept", 'k');
        make(&world, "/gone", 'g');
        uint64_t at = place_of(&world, "/gone");
        assert_int_equal(medium_settle(world.medium, NULL), 0);
        assert_int_equal(world_remove(&world, "/gone", NODE_FILE), 0);
        discard_all(&world);
        assert_int_equal(discarded(&world), 0); /* it is not durable */
        assert_int_equal(medium_sync(world.medium, NULL), 0);
        discard_all(&world);
        assert_int_equal(discarded(&world), 0); /* nor in place */
        assert_int_equal(medium_settle(world.medium, NULL), 0);
        discard_all(&world);
        assert_int_equal(discarded(&world), SIZE / 512);
        assert_int_equal(recorder_counts(world.recorder).discards, formatted.discards + 1);
        assert_int_equal(recorder_disk(world.recorder)[at], LOST);
        discard_all(&world);
        assert_int_equal(recorder_counts(world.recorder).discards, formatted.discards + 1);
        assert_true(is_there(&world, "/kept", 'k'));
        world_unmount(&world);
        assert_string_equal(world_findings(&world), "");
        world_finish(&world);
    }
}

static void what_is_somebodys_again_stays(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct world world = start(kinds[i]);
        struct volume_facts facts;
        make(&world, "/gone", 'g');
        assert_int_equal(world.volume->ops->facts(world.volume, &facts, NULL), 0);
        uint64_t left =
            facts.clusters_free * facts.cluster_size; /* so that it must be used again */
        assert_int_equal(world_create(&world, "/rest", NODE_FILE), 0);
        assert_int_equal(world_truncate(&world, "/rest", left), 0);
        uint64_t at = place_of(&world, "/gone");
        assert_int_equal(world_remove(&world, "/gone", NODE_FILE), 0);
        assert_int_equal(medium_sync(world.medium, NULL), 0);
        make(&world, "/new", 'n');
        assert_int_equal(place_of(&world, "/new"), at);
        assert_int_equal(medium_settle(world.medium, NULL), 0);
        discard_all(&world);
        assert_int_equal(discarded(&world), 0);
        assert_true(is_there(&world, "/new", 'n'));
        world_finish(&world);
    }
}

static void folders_are_discarded_and_made_again(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct world world = start(kinds[i]);
        for (int round = 0; round < 3; round++) {
            assert_int_equal(world_create(&world, "/folder", NODE_FOLDER), 0);
            make(&world, "/folder/file", (uint8_t)('a' + round));
            assert_true(is_there(&world, "/folder/file", (uint8_t)('a' + round)));
            assert_int_equal(world_remove(&world, "/folder/file", NODE_FILE), 0);
            assert_int_equal(world_remove(&world, "/folder", NODE_FOLDER), 0);
            assert_int_equal(medium_settle(world.medium, NULL), 0);
            discard_all(&world);
        }
        assert_true(discarded(&world) >= 3 * (SIZE + 2048) / 512);
        world_unmount(&world);
        assert_string_equal(world_findings(&world), "");
        world_finish(&world);
    }
}

static void the_rest_is_discarded_as_it_is_unmounted(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct world world = start(kinds[i]);
        make(&world, "/gone", 'g');
        assert_int_equal(world_remove(&world, "/gone", NODE_FILE), 0);
        world_unmount(&world);
        assert_int_equal(discarded(&world), SIZE / 512);
        world.discard = false;
        world_mount(&world);
        make(&world, "/gone", 'g');
        assert_int_equal(world_remove(&world, "/gone", NODE_FILE), 0);
        world_unmount(&world);
        assert_int_equal(discarded(&world), SIZE / 512); /* nobody asked for it */
        world_finish(&world);
    }
}

static void who_refuses_is_not_asked_again(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct world world = start(kinds[i]);
        recorder_fail_discards(world.recorder, -EOPNOTSUPP);
        for (int round = 0; round < 2; round++) {
            make(&world, "/gone", 'g');
            assert_int_equal(world_remove(&world, "/gone", NODE_FILE), 0);
            assert_int_equal(medium_settle(world.medium, NULL), 0);
            assert_false(world.volume->ops->discard(world.volume));
            recorder_fail_discards(world.recorder, 0);
        }
        assert_int_equal(discarded(&world), 0);
        make(&world, "/kept", 'k');
        assert_true(is_there(&world, "/kept", 'k'));
        world_unmount(&world);
        assert_string_equal(world_findings(&world), "");
        world_finish(&world);
    }
}

static void what_is_formatted_is_discarded_where_it_can_be(void **state)
{
    static const int errors[] = {0, -EOPNOTSUPP, -EIO};
    for (size_t i = 0; i < ARRAY_SIZE(kinds) * ARRAY_SIZE(errors); i++) {
        int error = errors[i % ARRAY_SIZE(errors)];
        struct world world = {.kind = kinds[i / ARRAY_SIZE(errors)],
                              .recorder = recorder_create(512, SECTORS)};
        struct format_options format = {.kind = world.kind, .id = 7};
        struct medium_options options = {0};
        uint8_t *disk = recorder_disk(world.recorder);
        memset(disk, 0xA5, recorder_size(world.recorder));
        recorder_fail_discards(world.recorder, error);
        assert_int_equal(
            medium_open(recorder_device(world.recorder), &options, &world.medium, NULL), 0);
        assert_int_equal(volume_format(world.medium, &format, NULL), 0);
        assert_int_equal(medium_close(world.medium, NULL), 0);
        assert_int_equal(disk[recorder_size(world.recorder) - 1], error ? 0xA5 : LOST);
        assert_string_equal(world_findings(&world), "");
        world_fsck(&world);
        world_finish(&world);
    }
}

static void nothing_is_remembered_of_what_is_discarded(void **state)
{
    enum { BLOCK = 64 << 10 };
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct medium_options options = {0};
    struct medium *medium;
    uint8_t byte = 0xFF;
    assert_int_equal(medium_open(recorder_device(recorder), &options, &medium, NULL), 0);
    for (uint64_t at = 0; at < 4 * BLOCK; at += BLOCK)
        assert_int_equal(medium_read(medium, at, &byte, 1, NULL), 0);
    assert_int_equal(medium_discard(medium, BLOCK, 2 * BLOCK, NULL), 0);
    for (uint64_t at = 0; at < 4 * BLOCK; at += BLOCK) {
        assert_int_equal(medium_read(medium, at, &byte, 1, NULL), 0);
        assert_int_equal(byte, at == BLOCK || at == 2 * BLOCK ? LOST : 0);
    }
    assert_int_equal(medium_close(medium, NULL), 0);
    recorder_destroy(recorder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_free_in_place_is_discarded_once),
        cmocka_unit_test(what_is_somebodys_again_stays),
        cmocka_unit_test(folders_are_discarded_and_made_again),
        cmocka_unit_test(the_rest_is_discarded_as_it_is_unmounted),
        cmocka_unit_test(who_refuses_is_not_asked_again),
        cmocka_unit_test(what_is_formatted_is_discarded_where_it_can_be),
        cmocka_unit_test(nothing_is_remembered_of_what_is_discarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
