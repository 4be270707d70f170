/* src/usb/files: what holds of every kind of volume, by its ops table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <files/tools.h>
#include <files/volume.h>

#include "../usb/recorder.h"

enum { SECTORS = 40000, TIME = 60 /* seconds; what hangs is red */ };

static const enum volume_kind kinds[] = {VOLUME_FAT16, VOLUME_EXFAT};

struct world {
    struct recorder *recorder;
    struct medium *medium;
    struct volume *volume;
    const struct volume_ops *ops;
    struct node *root;
};

static void open_medium(struct world *world)
{
    struct medium_options options = {0};
    assert_int_equal(medium_open(recorder_device(world->recorder), &options, &world->medium, NULL),
                     0);
}

static void mount_it(struct world *world)
{
    struct volume_options options = {0};
    open_medium(world);
    assert_int_equal(volume_mount(world->medium, &options, &world->volume, NULL), 0);
    world->ops = world->volume->ops;
    world->root = world->ops->root(world->volume);
}

static void unmount_it(struct world *world)
{
    assert_int_equal(world->ops->unmount(world->volume, NULL), 0);
    assert_int_equal(medium_close(world->medium, NULL), 0);
}

static struct world make(enum volume_kind kind)
{
    struct world world = {.recorder = recorder_create(512, SECTORS)};
    struct format_options format = {.kind = kind, .id = 7};
    open_medium(&world);
    assert_int_equal(volume_format(world.medium, &format, NULL), 0);
    assert_int_equal(medium_close(world.medium, NULL), 0);
    mount_it(&world);
    return world;
}

static void found(const struct finding *finding, void *data)
{
    fail_msg("%s", finding->what);
}

static void ends_clean(struct world *world)
{
    struct check_options options = {0};
    unmount_it(world);
    open_medium(world);
    assert_int_equal(volume_check(world->medium, &options, found, NULL, NULL), 0);
    assert_int_equal(medium_close(world->medium, NULL), 0);
    recorder_destroy(world->recorder);
}

static struct node *create(struct world *world, const char *name)
{
    struct node *node = NULL;
    assert_int_equal(world->ops->create(world->volume, world->root, name, NODE_FILE, &node, NULL),
                     0);
    return node;
}

static uint64_t number_of(struct world *world, struct node *node)
{
    struct node_facts facts;
    assert_int_equal(world->ops->node_facts(world->volume, node, &facts, NULL), 0);
    return facts.number;
}

/* Numbers. */

enum { SAVED = 400 };

struct numbers {
    uint64_t items[SAVED + 10];
    unsigned count;
};

static bool take_number(const char *name, uint64_t number, enum node_type type, uint64_t cookie,
                        void *data)
{
    struct numbers *numbers = data;
    assert_in_range(numbers->count, 0, ARRAY_SIZE(numbers->items) - 1);
    numbers->items[numbers->count++] = number;
    return true;
}

static int compare(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return a < b ? -1 : a > b;
}

static void all_are_different(uint64_t *items, size_t count)
{
    qsort(items, count, sizeof(*items), compare);
    for (size_t i = 1; i < count; i++)
        assert_true(items[i - 1] != items[i]);
}

/* Safe saves: all begin in the same place, and somebody holds them all. */
static void numbers_stay_different(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        struct node *nodes[SAVED];
        struct numbers held = {0}, read = {0};
        for (int i = 0; i < SAVED; i++) {
            char name[20];
            nodes[i] = create(&world, "tmp");
            snprintf(name, sizeof(name), "F%d", i);
            assert_int_equal(
                world.ops->rename(world.volume, world.root, "tmp", world.root, name, false, NULL),
                0);
            if (i % 2 == 1) { /* what is read beside has no node */
                world.ops->node_drop(world.volume, create(&world, "tmp"), 1);
                read.count = 0;
                assert_int_equal(
                    world.ops->read_folder(world.volume, world.root, 0, take_number, &read, NULL),
                    0);
                all_are_different(read.items, read.count);
                assert_int_equal(
                    world.ops->remove(world.volume, world.root, "tmp", NODE_FILE, NULL), 0);
            }
        }
        for (int i = 0; i < SAVED; i++)
            held.items[held.count++] = number_of(&world, nodes[i]);
        all_are_different(held.items, held.count);
        for (int i = 0; i < SAVED; i++)
            world.ops->node_drop(world.volume, nodes[i], 1);
        ends_clean(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_stay_different),
    };
    alarm(TIME);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
