/* src/usb/files: a mounted exFAT volume beside a model of it, by chance. */
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

#include "../usb/volume_world.h"

enum { SMALL = 4096 /* sectors */ };

static void ends_clean(struct world *world)
{
    world_unmount(world);
    assert_string_equal(world_findings(world), "");
    world_fsck(world);
    world_finish(world);
}

static void fill(uint8_t *data, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* A model: what should be there, by path. */

struct item {
    char path[80];
    bool folder;
    uint8_t *data;
    size_t size;
};

struct model {
    struct item items[64];
    unsigned count, seed;
};

static unsigned chance(struct model *model, unsigned below)
{
    model->seed = model->seed * 1103515245 + 12345;
    return (model->seed >> 16) % below;
}

static struct item *any(struct model *model, bool folder)
{
    for (unsigned tries = 0; model->count > 0 && tries < 20; tries++) {
        struct item *item = &model->items[chance(model, model->count)];
        if (item->folder == folder)
            return item;
    }
    return NULL;
}

static struct item *at_path(struct model *model, const char *path)
{
    for (unsigned i = 0; i < model->count; i++)
        if (strcasecmp(model->items[i].path, path) == 0)
            return &model->items[i];
    return NULL;
}

static void new_path(struct model *model, char *path, size_t size)
{
    static const char *const tails[] = {"", " with a name that has more parts", "é"};
    struct item *folder = chance(model, 3) ? any(model, true) : NULL;
    snprintf(path, size, "%s/%c%.*s", folder && strlen(folder->path) < 4 ? folder->path : "",
             'a' + (int)chance(model, 12), 30, tails[chance(model, 3)]);
}

static bool has_children(const struct model *model, const struct item *folder)
{
    size_t length = strlen(folder->path);
    for (unsigned i = 0; i < model->count; i++)
        if (strncmp(model->items[i].path, folder->path, length) == 0 &&
            model->items[i].path[length] == '/')
            return true;
    return false;
}

static void forget(struct model *model, struct item *item)
{
    free(item->data);
    *item = model->items[--model->count];
}

static void model_create(struct model *model, struct world *world)
{
    char path[80];
    bool folder = chance(model, 4) == 0;
    new_path(model, path, 40);
    int r = world_create(world, path, folder ? NODE_FOLDER : NODE_FILE);
    if (at_path(model, path)) {
        assert_int_equal(r, -EEXIST);
    } else if (r == 0 && model->count < ARRAY_SIZE(model->items)) {
        struct item *item = &model->items[model->count++];
        *item = (struct item){.folder = folder};
        snprintf(item->path, sizeof(item->path), "%s", path);
    } else if (r == 0) {
        assert_int_equal(world_remove(world, path, folder ? NODE_FOLDER : NODE_FILE), 0);
    } else {
        assert_int_equal(r, -ENOSPC);
    }
}

static void resize(struct item *item, size_t size)
{
    item->data = xrealloc(item->data, size + 1, 1);
    if (size > item->size)
        memset(item->data + item->size, 0, size - item->size);
    item->size = size;
}

static void model_write(struct model *model, struct world *world)
{
    uint8_t data[30000];
    struct item *item = any(model, false);
    size_t size = 1 + chance(model, chance(model, 2) ? 300 : sizeof(data));
    if (!item)
        return;
    size_t offset = chance(model, (unsigned)item->size + 9000);
    fill(data, size, model->seed);
    int r = world_write(world, item->path, offset, data, size);
    if (r == -ENOSPC)
        return;
    assert_int_equal(r, 0);
    if (offset + size > item->size)
        resize(item, offset + size);
    memcpy(item->data + offset, data, size);
}

static void model_truncate(struct model *model, struct world *world)
{
    struct item *item = any(model, false);
    if (!item)
        return;
    size_t size = chance(model, 3) ? chance(model, (unsigned)item->size + 1) : chance(model, 90000);
    int r = world_truncate(world, item->path, size);
    if (r == 0)
        resize(item, size);
    else
        assert_int_equal(r, -ENOSPC);
}

static void model_remove(struct model *model, struct world *world)
{
    struct item *item = any(model, chance(model, 3) == 0);
    if (!item)
        return;
    int r = world_remove(world, item->path, item->folder ? NODE_FOLDER : NODE_FILE);
    assert_int_equal(r, item->folder && has_children(model, item) ? -ENOTEMPTY : 0);
    if (r == 0)
        forget(model, item);
}

static void model_rename(struct model *model, struct world *world)
{
    char path[80], old[80];
    struct item *item = any(model, chance(model, 3) == 0);
    new_path(model, path, 40);
    if (!item || (item->folder && has_children(model, item)))
        return;
    snprintf(old, sizeof(old), "%s", item->path);
    struct item *target = at_path(model, path);
    int r = world_rename(world, old, path, true);
    if (r == -EINVAL || r == -ENOSPC)
        return; /* below itself, or no room */
    if (target && target != item && (target->folder != item->folder || has_children(model, target)))
        assert_true(r == -EISDIR || r == -ENOTDIR || r == -ENOTEMPTY);
    else
        assert_int_equal(r, 0);
    if (r != 0)
        return;
    if (target && target != item)
        forget(model, target);
    item = at_path(model, old);
    snprintf(item->path, sizeof(item->path), "%s", path);
}

static void compare(struct model *model, struct world *world)
{
    uint8_t *back = xmalloc(1 << 20);
    for (unsigned i = 0; i < model->count; i++) {
        const struct item *item = &model->items[i];
        struct node *node;
        struct node_facts facts;
        assert_int_equal(world_look(world, item->path, &node), 0);
        assert_int_equal(world->volume->ops->node_facts(world->volume, node, &facts, NULL), 0);
        assert_int_equal(facts.type, item->folder ? NODE_FOLDER : NODE_FILE);
        if (!item->folder) {
            assert_int_equal(facts.size, item->size);
            assert_int_equal(node_read(world, node, 0, back, 1 << 20), item->size);
            if (item->size > 0)
                assert_memory_equal(back, item->data, item->size);
        }
        world_drop(world, node);
    }
    free(back);
    char *list = world_list(world);
    unsigned lines = 0;
    for (const char *at = list; *at; at++)
        lines += *at == '\n';
    assert_int_equal(lines, model->count + 1); /* and the label */
    free(list);
}

static void step(struct model *model, struct world *world)
{
    static void (*const steps[])(struct model *, struct world *) = {
        model_create, model_create, model_write,  model_write,
        model_write,  model_remove, model_rename, model_truncate,
    };
    steps[chance(model, ARRAY_SIZE(steps))](model, world);
}

static void random_steps(uint32_t sector, uint64_t sectors, uint32_t cluster, unsigned seed)
{
    struct model *model = xnew(struct model);
    struct world world = world_make(VOLUME_EXFAT, sector, sectors, cluster);
    model->seed = seed;
    world_mount(&world);
    for (unsigned i = 0; i < 1200; i++) {
        step(model, &world);
        if (i % 100 == 99)
            compare(model, &world);
        if (i % 300 == 299) {
            world_unmount(&world);
            assert_string_equal(world_findings(&world), "");
            world_fsck(&world);
            world_mount(&world);
        }
    }
    compare(model, &world);
    ends_clean(&world);
    while (model->count > 0)
        forget(model, model->items);
    free(model);
}

static void steps_by_chance_agree_with_the_model(void **state)
{
    random_steps(512, SMALL, 0, 1);
    random_steps(512, 2048, 512, 2); /* often full; sets over cluster borders */
    random_steps(4096, 2048, 0, 3);
    random_steps(512, 8192, 1024, 4);
}

/* The power goes at any write of such steps: the volume is whole. */
static void cuts_within_steps(uint32_t sector, uint64_t sectors, uint32_t cluster, unsigned seed)
{
    struct model *model = xnew(struct model);
    struct world world = world_make(VOLUME_EXFAT, sector, sectors, cluster);
    uint8_t *disk = xmalloc(sectors * sector);
    model->seed = seed;
    world_mount(&world);
    assert_int_equal(world_create(&world, "/first", NODE_FILE), 0);
    assert_true(medium_has_journal(world.medium));
    recorder_start(world.recorder);
    for (unsigned i = 0; i < 300; i++) {
        step(model, &world);
        if (chance(model, 6) == 0)
            assert_int_equal(medium_sync(world.medium, NULL), 0);
    }
    world_unmount(&world);
    for (size_t moment = 0; moment <= recorder_moments(world.recorder); moment++) {
        enum recorder_loss loss = (enum recorder_loss)chance(model, 4);
        recorder_cut(world.recorder, moment, loss, model->seed, disk);
        struct world cut = world_of(VOLUME_EXFAT, disk, sector, sectors);
        world_mount(&cut);
        free(world_list(&cut));
        world_unmount(&cut);
        assert_string_equal(world_findings(&cut), "");
        if (moment % 41 == 0)
            world_fsck(&cut);
        world_finish(&cut);
    }
    world_finish(&world);
    free(disk);
    while (model->count > 0)
        forget(model, model->items);
    free(model);
}

static void the_power_goes_within_steps_by_chance(void **state)
{
    cuts_within_steps(512, SMALL, 0, 5);
    cuts_within_steps(512, SMALL, 512, 6);
    cuts_within_steps(4096, 1024, 0, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_by_chance_agree_with_the_model),
        cmocka_unit_test(the_power_goes_within_steps_by_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
