/* src/usb/files: a mounted exFAT volume, beside a model of it and fsck.exfat. */
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
#include <base/clock.h>
#include <block/bytes.h>
#include <files/tools.h>

#include "../usb/volume_world.h"
#include "exfat.h"

enum { SECTOR = 512, SMALL = 4096 /* sectors */ };

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

static void a_file_is_there_after_a_remount(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    uint8_t data[9000], back[9000];
    fill(data, sizeof(data), 3);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/Folder", NODE_FOLDER), 0);
    assert_int_equal(world_create(&world, "/Folder/a file", NODE_FILE), 0);
    assert_int_equal(world_create(&world, "/folder/A FILE", NODE_FILE), -EEXIST);
    assert_int_equal(world_write(&world, "/Folder/a file", 0, data, sizeof(data)), 0);
    world_unmount(&world);
    assert_string_equal(world_findings(&world), "");
    world_mount(&world);
    assert_int_equal(world_read(&world, "/FOLDER/A FILE", 0, back, sizeof(back)), sizeof(back));
    assert_memory_equal(data, back, sizeof(data));
    assert_int_equal(world_look(&world, "/CLOCHE.JNL", &(struct node *){0}), -ENOENT);
    assert_int_equal(world_create(&world, "/cloche.jnl", NODE_FILE), -EPERM);
    ends_clean(&world);
}

static void what_was_not_written_is_zeros(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    uint8_t back[20000], zeros[20000] = {0};
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    memset(back, 0xEE, sizeof(back));
    assert_int_equal(world_write(&world, "/f", 0, back, sizeof(back)), 0);
    assert_int_equal(world_truncate(&world, "/f", 100), 0);
    uint64_t writes = recorder_counts(world.recorder).sectors_written;
    assert_int_equal(world_truncate(&world, "/f", 600000), 0);
    assert_int_equal(recorder_counts(world.recorder).sectors_written, writes);
    assert_int_equal(world_read(&world, "/f", 100, back, sizeof(back)), sizeof(back));
    assert_memory_equal(back, zeros, sizeof(back));
    assert_int_equal(world_write(&world, "/f", 15000, "x", 1), 0);
    assert_int_equal(world_read(&world, "/f", 100, back, sizeof(back)), sizeof(back));
    zeros[14900] = 'x';
    assert_memory_equal(back, zeros, sizeof(back));
    ends_clean(&world);
}

/* Two files that grow in turn: their clusters do not follow one another. */
static void chains_are_made_and_cut(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    uint8_t data[4096], back[4096];
    struct node *node;
    world_mount(&world);
    assert_int_equal(world_create(&world, "/a", NODE_FILE), 0);
    assert_int_equal(world_create(&world, "/b", NODE_FILE), 0);
    for (unsigned i = 0; i < 40; i++) {
        fill(data, sizeof(data), i);
        assert_int_equal(
            world_write(&world, i % 2 ? "/a" : "/b", (uint64_t)i / 2 * 4096, data, sizeof(data)),
            0);
    }
    assert_int_equal(world_look(&world, "/a", &node), 0);
    assert_false(((struct exfat_node *)node)->set.contiguous);
    world_drop(&world, node);
    world_unmount(&world);
    world_fsck(&world);
    world_mount(&world);
    assert_int_equal(world_truncate(&world, "/a", 50000), 0);
    for (unsigned i = 0; i < 12; i++) {
        fill(data, sizeof(data), i * 2 + 1);
        assert_int_equal(world_read(&world, "/a", (uint64_t)i * 4096, back, sizeof(back)), 4096);
        assert_memory_equal(data, back, sizeof(data));
    }
    ends_clean(&world);
}

static void a_removed_file_lives_while_it_is_held(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    struct volume_facts before, after;
    struct node_facts facts;
    struct node *node;
    char back[6] = "";
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    assert_int_equal(exfat_ops.facts(world.volume, &before, NULL), 0);
    assert_int_equal(world_write(&world, "/f", 0, "hello", 5), 0);
    assert_int_equal(world_look(&world, "/f", &node), 0);
    assert_int_equal(world_remove(&world, "/f", NODE_FILE), 0);
    assert_int_equal(world_look(&world, "/f", &(struct node *){0}), -ENOENT);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    assert_int_equal(world_write(&world, "/f", 0, "other", 5), 0);
    assert_int_equal(node_write(&world, node, 5, "!", 1), 0);
    assert_int_equal(node_read(&world, node, 0, back, 6), 6);
    assert_memory_equal(back, "hello!", 6);
    assert_int_equal(exfat_ops.node_facts(world.volume, node, &facts, NULL), 0);
    assert_int_equal(facts.links, 0);
    world_drop(&world, node);
    assert_int_equal(exfat_ops.facts(world.volume, &after, NULL), 0);
    assert_int_equal(before.clusters_free, after.clusters_free + 1);
    ends_clean(&world);
}

static void names_move_and_replace(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    char back[2];
    world_mount(&world);
    assert_int_equal(world_create(&world, "/d", NODE_FOLDER), 0);
    assert_int_equal(world_create(&world, "/d/e", NODE_FOLDER), 0);
    assert_int_equal(world_create(&world, "/x", NODE_FILE), 0);
    assert_int_equal(world_create(&world, "/y", NODE_FILE), 0);
    assert_int_equal(world_write(&world, "/x", 0, "x", 1), 0);
    assert_int_equal(world_write(&world, "/y", 0, "y", 1), 0);
    assert_int_equal(world_rename(&world, "/d", "/d/e/f", false), -EINVAL);
    assert_int_equal(world_rename(&world, "/x", "/y", false), -EEXIST);
    assert_int_equal(world_rename(&world, "/x", "/d", true), -EISDIR);
    assert_int_equal(world_rename(&world, "/d", "/y", true), -ENOTDIR);
    assert_int_equal(world_rename(&world, "/x", "/d/e/y", false), 0);
    assert_int_equal(world_rename(&world, "/y", "/d/e/Y", true), 0);
    assert_int_equal(world_read(&world, "/d/e/y", 0, back, 2), 1);
    assert_int_equal(back[0], 'y');
    assert_int_equal(world_rename(&world, "/d/e/Y", "/d/e/y", false), 0);
    assert_int_equal(world_remove(&world, "/d/e", NODE_FOLDER), -ENOTEMPTY);
    assert_int_equal(world_remove(&world, "/d/e", NODE_FILE), -EISDIR);
    assert_int_equal(world_remove(&world, "/d/e/y", NODE_FOLDER), -ENOTDIR);
    assert_int_equal(world_remove(&world, "/d/e/y", NODE_FILE), 0);
    assert_int_equal(world_remove(&world, "/d/e", NODE_FOLDER), 0);
    ends_clean(&world);
}

static void a_full_disk_stays_whole(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    struct volume_facts facts;
    uint8_t data[64 << 10];
    int r = 0;
    fill(data, sizeof(data), 9);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/big", NODE_FILE), 0);
    for (uint64_t at = 0; r == 0; at += sizeof(data))
        r = world_write(&world, "/big", at, data, sizeof(data));
    assert_int_equal(r, -ENOSPC);
    assert_int_equal(exfat_ops.facts(world.volume, &facts, NULL), 0);
    for (uint64_t i = 0; i < facts.clusters_free; i++) {
        char name[32];
        snprintf(name, sizeof(name), "/%llu", (unsigned long long)i);
        assert_int_equal(world_create(&world, name, NODE_FOLDER), 0);
    }
    assert_int_equal(world_create(&world, "/more", NODE_FOLDER), -ENOSPC);
    assert_int_equal(world_truncate(&world, "/big", 1 << 20), 0);
    assert_int_equal(world_create(&world, "/more", NODE_FOLDER), 0);
    assert_int_equal(world_remove(&world, "/big", NODE_FILE), 0);
    ends_clean(&world);
}

static void a_folder_of_many(void **state)
{
    enum { MANY = 100000 };
    struct world world = world_make(VOLUME_EXFAT, SECTOR, 128 << 10, 0);
    char name[64];
    struct node *folder;
    struct node_facts before, after;
    world_mount(&world);
    assert_int_equal(world_create(&world, "/d", NODE_FOLDER), 0);
    assert_int_equal(world_look(&world, "/d", &folder), 0); /* held, with its index */
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "/d/a name of some length %u", i);
        assert_int_equal(world_create(&world, name, NODE_FILE), 0);
    }
    for (unsigned i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof(name), "/d/A NAME OF SOME LENGTH %u", i);
        assert_int_equal(world_remove(&world, name, NODE_FILE), 0);
    }
    assert_int_equal(exfat_ops.node_facts(world.volume, folder, &before, NULL), 0);
    for (unsigned i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof(name), "/d/another of length %u", i);
        assert_int_equal(world_create(&world, name, NODE_FILE), 0);
    }
    assert_int_equal(exfat_ops.node_facts(world.volume, folder, &after, NULL), 0);
    assert_int_equal(before.size, after.size); /* holes were used */
    world_drop(&world, folder);
    ends_clean(&world);
}

static void times_and_attributes_are_kept(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    struct node *node;
    struct node_facts facts =
                          {
                              .created = INT64_C(1700000001) * CLOCK_SECOND + 10000000,
                              .modified = INT64_C(1700000002) * CLOCK_SECOND,
                              .accessed = INT64_C(1700000004) * CLOCK_SECOND,
                              .hidden = true,
                              .read_only = true,
                          },
                      back;
    world_mount(&world);
    assert_int_equal(exfat_ops.set_label(world.volume, "Größe", NULL), 0);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    assert_int_equal(world_look(&world, "/f", &node), 0);
    assert_int_equal(
        exfat_ops.node_set(world.volume, node,
                           NODE_CREATED | NODE_MODIFIED | NODE_ACCESSED | NODE_ATTRIBUTES, &facts,
                           NULL),
        0);
    assert_int_equal(((struct exfat_node *)node)->set.created.offset, 0x84);
    world_drop(&world, node);
    world_unmount(&world);
    world_mount(&world);
    assert_int_equal(world_look(&world, "/f", &node), 0);
    assert_int_equal(exfat_ops.node_facts(world.volume, node, &back, NULL), 0);
    assert_true(back.created == facts.created && back.modified == facts.modified &&
                back.accessed == facts.accessed);
    assert_true(back.hidden && back.read_only && !back.system && !back.archive);
    world_drop(&world, node);
    struct volume_facts volume;
    assert_int_equal(exfat_ops.facts(world.volume, &volume, NULL), 0);
    assert_string_equal(volume.label, "Größe");
    assert_false(volume.dirty);
    ends_clean(&world);
}

/* What we do not know. */
static void foreign_things_are_respected(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    uint8_t *disk = recorder_disk(world.recorder);
    uint8_t *root =
        disk + (uint64_t)get_le32(disk + 88) * 512 + (uint64_t)(get_le32(disk + 96) - 2) * 4096;
    root[3 * 32] = 0x89; /* critical */
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), -EROFS);
    world_unmount(&world);
    root[3 * 32] = 0xA5; /* benign */
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    world_unmount(&world);
    assert_int_equal(root[3 * 32], 0xA5);
    root[2 * 32 + 4] ^= 1; /* the up-case table's sum */
    world_mount(&world);
    assert_int_equal(world_create(&world, "/g", NODE_FILE), -EROFS);
    assert_int_equal(world_look(&world, "/F", &(struct node *){0}), 0);
    world_unmount(&world);
    assert_string_equal(world_findings(&world), "");
    world_finish(&world);
}

/* An entry of a vendor that has a cluster: it stays with its file, and goes with it. */
static void a_vendors_entry_goes_with_its_file(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    uint8_t *disk = recorder_disk(world.recorder), raw[EXFAT_SET_MOST * EXFAT_ENTRY];
    uint8_t *heap = disk + (uint64_t)get_le32(disk + 88) * 512;
    uint32_t root = get_le32(disk + 96), cluster = root + 2;
    struct exfat_upcase *upcase = xnew(struct exfat_upcase);
    struct exfat_set set = {.attributes = EXFAT_ARCHIVE, .name_length = 1, .name = {'v'}};
    struct volume_facts before, after;
    exfat_upcase_recommended(upcase);
    exfat_set_make(&set, upcase, raw);
    raw[1] = 3;
    uint8_t *vendor = raw + (size_t)3 * EXFAT_ENTRY;
    vendor[0] = 0xE1;
    vendor[1] = 3;
    put_le32(vendor + 20, cluster);
    put_le64(vendor + 24, 4096);
    exfat_set_update(&set, raw, 4);
    memcpy(heap + (uint64_t)(root - 2) * 4096 + (size_t)3 * EXFAT_ENTRY, raw,
           (size_t)4 * EXFAT_ENTRY);
    heap[(cluster - 2) / 8] |= (uint8_t)(1 << (cluster - 2) % 8);
    free(upcase);
    assert_string_equal(world_findings(&world), "");
    world_mount(&world);
    assert_int_equal(world_rename(&world, "/v", "/a name of more parts than one", false), 0);
    assert_int_equal(world_write(&world, "/a name of more parts than one", 0, "x", 1), 0);
    world_unmount(&world);
    assert_string_equal(world_findings(&world), "");
    world_mount(&world);
    assert_int_equal(exfat_ops.facts(world.volume, &before, NULL), 0);
    assert_int_equal(world_remove(&world, "/a name of more parts than one", NODE_FILE), 0);
    assert_int_equal(exfat_ops.facts(world.volume, &after, NULL), 0);
    assert_int_equal(after.clusters_free, before.clusters_free + 2);
    ends_clean(&world);
}

/* A path whose folders are as many as a stick may have by its clusters. */
static void a_deep_folder_is_reached(void **state)
{
    enum { DEPTH = 300 };
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    struct node *at, *next;
    world_mount(&world);
    at = exfat_ops.root(world.volume);
    for (unsigned i = 0; i < DEPTH; i++) {
        assert_int_equal(exfat_ops.create(world.volume, at, "d", NODE_FOLDER, &next, NULL), 0);
        world_drop(&world, at);
        at = next;
    }
    assert_int_equal(exfat_ops.create(world.volume, at, "f", NODE_FILE, &next, NULL), 0);
    assert_int_equal(node_write(&world, next, 0, "deep", 4), 0);
    world_drop(&world, next);
    assert_int_equal(exfat_ops.lookup(world.volume, exfat_ops.root(world.volume), "d", &next, NULL),
                     0);
    assert_int_equal(
        exfat_ops.rename(world.volume, exfat_ops.root(world.volume), "d", at, "d", false, NULL),
        -EINVAL);
    world_drop(&world, next);
    world_drop(&world, at);
    ends_clean(&world);
}

/* More pieces than one update can free where the journal is a small one. */
static void much_is_freed_in_parts(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, 2 * SMALL, SECTOR);
    struct volume_facts before, after;
    struct node *node;
    uint8_t data[SECTOR], back[SECTOR];
    char name[16];
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    assert_int_equal(world_look(&world, "/f", &node), 0);
    assert_int_equal(exfat_ops.facts(world.volume, &before, NULL), 0);
    for (unsigned i = 0; i < 60; i++) {
        fill(data, sizeof(data), i);
        assert_int_equal(node_write(&world, node, (uint64_t)i * SECTOR, data, sizeof(data)), 0);
        snprintf(name, sizeof(name), "/%u", i);
        assert_int_equal(world_create(&world, name, NODE_FILE), 0);
        assert_int_equal(world_truncate(&world, name, 4 * SECTOR), 0);
    }
    assert_int_equal(world_remove(&world, "/f", NODE_FILE), 0);
    for (unsigned i = 0; i < 60; i++) {
        fill(data, sizeof(data), i);
        assert_int_equal(node_read(&world, node, (uint64_t)i * SECTOR, back, SECTOR), SECTOR);
        assert_memory_equal(data, back, sizeof(data));
        snprintf(name, sizeof(name), "/%u", i);
        assert_int_equal(world_remove(&world, name, NODE_FILE), 0);
    }
    world_drop(&world, node);
    assert_int_equal(exfat_ops.facts(world.volume, &after, NULL), 0);
    assert_true(after.clusters_free + 64 > before.clusters_free);
    assert_int_equal(world_create(&world, "/all", NODE_FILE), 0);
    assert_int_equal(world_truncate(&world, "/all", (after.clusters_free - 64) * SECTOR), 0);
    assert_int_equal(world_remove(&world, "/all", NODE_FILE), 0);
    ends_clean(&world);
}

/* A rename that fails has done nothing to what it would have replaced. */
static void what_cannot_be_replaced_stays_whole(void **state)
{
    enum { PIECES = 60 };
    struct world world = world_make(VOLUME_EXFAT, SECTOR, 2 * SMALL, SECTOR);
    struct volume_facts facts;
    uint8_t data[SECTOR], back[SECTOR];
    char name[16];
    world_mount(&world);
    assert_int_equal(world_create(&world, "/folder", NODE_FOLDER), 0);
    for (unsigned i = 0; i < 5; i++) { /* of the 16 entries of its cluster 15 are used */
        snprintf(name, sizeof(name), "/folder/%u", i);
        assert_int_equal(world_create(&world, name, NODE_FILE), 0);
    }
    assert_int_equal(world_create(&world, "/other", NODE_FILE), 0);
    for (unsigned i = 0; i < PIECES; i++) {
        fill(data, sizeof(data), i);
        assert_int_equal(world_write(&world, "/folder/3", i * SECTOR, data, SECTOR), 0);
        assert_int_equal(world_write(&world, "/other", i * SECTOR, data, SECTOR), 0);
    }
    assert_int_equal(world_create(&world, "/all", NODE_FILE), 0);
    assert_int_equal(exfat_ops.facts(world.volume, &facts, NULL), 0);
    assert_int_equal(world_truncate(&world, "/all", facts.clusters_free * SECTOR), 0);
    assert_int_equal(world_rename(&world, "/other", "/folder/3", true), -ENOSPC);
    for (unsigned i = 0; i < PIECES; i++) {
        fill(data, sizeof(data), i);
        assert_int_equal(world_read(&world, "/folder/3", i * SECTOR, back, SECTOR), SECTOR);
        assert_memory_equal(data, back, SECTOR);
    }
    ends_clean(&world);
}

/* The set of the journal in the root folder's first cluster; there is one at most. Its name is in
 * the third entry. */
static uint8_t *journal_set(struct world *world)
{
    static const char name[] = "C\0L\0O\0C\0H\0E\0.\0J\0N\0L";
    uint8_t *disk = recorder_disk(world->recorder), *found = NULL;
    uint64_t cluster = (uint64_t)SECTOR << disk[109];
    uint8_t *root = disk + get_le32(disk + 88) * SECTOR + (get_le32(disk + 96) - 2) * cluster;
    for (uint64_t at = 64; at < cluster; at += 32)
        if (root[at] == 0xC1 && memcmp(root + at + 2, name, sizeof(name)) == 0) {
            assert_null(found);
            found = root + at - 64;
        }
    return found;
}

static void set_attributes(uint8_t *set, uint8_t attributes)
{
    uint16_t sum = 0;
    set[4] = attributes;
    for (unsigned i = 0; i < 96; i++)
        if (i != 2 && i != 3)
            sum = (uint16_t)((uint16_t)(sum << 15 | sum >> 1) + set[i]);
    put_le16(set + 2, sum);
}

/* A file of that name which is not the journal: no two of one name. */
static void there_is_one_file_of_the_journals_name(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/a", NODE_FILE), 0);
    world_unmount(&world);
    set_attributes(journal_set(&world), 0x20);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/b", NODE_FILE), 0);
    assert_false(medium_has_journal(world.medium));
    world_unmount(&world);
    assert_non_null(journal_set(&world));
    world_fsck(&world);
    world_mount(&world);
    assert_int_equal(world_remove(&world, "/cloche.jnl", NODE_FILE), 0);
    world_unmount(&world);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/c", NODE_FILE), 0);
    assert_true(medium_has_journal(world.medium));
    ends_clean(&world);
}

static void clusters_within_a_sector_are_not_written(void **state)
{
    struct world small = world_make(VOLUME_EXFAT, SECTOR, SMALL, SECTOR);
    struct world large = world_of(VOLUME_EXFAT, recorder_disk(small.recorder), 4096, SMALL / 8);
    struct node *node;
    world_mount(&large);
    assert_int_equal(world_look(&large, "/a", &node), -ENOENT);
    assert_int_equal(world_create(&large, "/a", NODE_FILE), -EROFS);
    world_finish(&large);
    world_finish(&small);
}

/* After an error of the medium nothing is written, and nothing is lost of what was durable. */
static void an_error_of_the_medium_ends_writing(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, SECTOR, SMALL, 0);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    assert_int_equal(world_write(&world, "/f", 0, "kept", 4), 0);
    assert_int_equal(medium_sync(world.medium, NULL), 0);
    recorder_fail(world.recorder, 0, -EIO);
    assert_int_equal(world_create(&world, "/g", NODE_FILE), 0);
    assert_int_equal(medium_sync(world.medium, NULL), -EIO);
    recorder_fail(world.recorder, -1, 0);
    assert_int_equal(world_create(&world, "/h", NODE_FILE), -EIO);
    assert_int_equal(exfat_ops.unmount(world.volume, NULL), -EIO);
    medium_close(world.medium, NULL);
    world.volume = NULL;
    world_mount(&world);
    char back[4];
    assert_int_equal(world_read(&world, "/f", 0, back, 4), 4);
    assert_memory_equal(back, "kept", 4);
    assert_int_equal(world_look(&world, "/g", &(struct node *){0}), -ENOENT);
    ends_clean(&world);
}

enum { FLAGS = 106, IN_USE = 2 };

static bool is_told_dirty(struct world *world)
{
    struct volume_facts facts;
    assert_int_equal(exfat_ops.facts(world->volume, &facts, NULL), 0);
    return facts.dirty;
}

/* Mounts, writes and unmounts. Returns whether it was told as left in use by others. */
static bool write_once(struct world *world, const char *path)
{
    world_mount(world);
    bool dirty = is_told_dirty(world);
    assert_int_equal(world_create(world, path, NODE_FILE), 0);
    world_unmount(world);
    return dirty;
}

static void what_others_left_in_use_stays_so(void **state)
{
    struct world world = world_make(VOLUME_EXFAT, 512, SMALL, 0);
    uint8_t *disk = recorder_disk(world.recorder);
    assert_false(write_once(&world, "/a"));
    assert_int_equal(disk[FLAGS], 0);
    disk[FLAGS] = IN_USE;
    assert_true(write_once(&world, "/b"));
    assert_int_equal(disk[FLAGS], IN_USE);
    assert_true(write_once(&world, "/c"));
    disk[FLAGS] = 0; /* checked */
    assert_false(write_once(&world, "/d"));
    world_mount(&world);
    ends_clean(&world);
}

/* A volume as it is when the power goes, some time after it was written to. */
static struct world pulled_out(bool synced)
{
    struct world world = world_make(VOLUME_EXFAT, 512, SMALL, 0);
    world_mount(&world);
    assert_int_equal(world_create(&world, "/f", NODE_FILE), 0);
    if (synced)
        assert_int_equal(medium_sync(world.medium, NULL), 0);
    struct world after = world_of(VOLUME_EXFAT, recorder_disk(world.recorder), 512, SMALL);
    world_finish(&world);
    return after;
}

static void what_we_left_in_use_is_ours(void **state)
{
    for (int synced = 0; synced < 2; synced++) {
        struct world world = pulled_out(synced);
        assert_int_equal(recorder_disk(world.recorder)[FLAGS], IN_USE);
        assert_false(write_once(&world, "/b"));
        assert_int_equal(recorder_disk(world.recorder)[FLAGS], 0);
        world_mount(&world);
        ends_clean(&world);
    }
}

/* Others have written since: the mark is theirs, and it is so at the next mount, too. */
static void a_journal_that_is_void_says_nothing_of_the_mark(void **state)
{
    struct world world = pulled_out(true);
    world_mount(&world);
    const struct exfat_layout layout = ((struct exfat_volume *)world.volume)->layout;
    assert_int_equal(medium_recovered(world.medium), MEDIUM_REPLAYED);
    world_finish(&world);
    world = pulled_out(true);
    recorder_disk(world.recorder)[exfat_offset(&layout, layout.root) + 511] = 0x5A;
    for (int i = 0; i < 2; i++) {
        world_mount(&world);
        assert_int_equal(medium_recovered(world.medium),
                         i == 0 ? MEDIUM_DISCARDED : MEDIUM_NOTHING);
        assert_true(is_told_dirty(&world));
        world_unmount(&world);
    }
    world_finish(&world);
}

static void note(const struct finding *finding, void *data)
{
    if (strstr(finding->what, "journal"))
        ++*(unsigned *)data;
}

static int check(struct world *world, bool repair, unsigned *ret_told)
{
    struct medium_options medium = {0};
    struct check_options options = {.repair = repair};
    *ret_told = 0;
    assert_int_equal(medium_open(recorder_device(world->recorder), &medium, &world->medium, NULL),
                     0);
    int r = volume_check(world->medium, &options, note, ret_told, NULL);
    assert_int_equal(medium_close(world->medium, NULL), 0);
    return r;
}

static void a_check_recovers_the_journal_first(void **state)
{
    struct world world = pulled_out(true);
    uint8_t *before = xmemdup(recorder_disk(world.recorder), recorder_size(world.recorder));
    unsigned told;
    assert_in_range(check(&world, false, &told), 1, 10);
    assert_int_equal(told, 1);
    assert_memory_equal(before, recorder_disk(world.recorder), recorder_size(world.recorder));
    free(before);
    assert_int_equal(check(&world, true, &told), 0);
    assert_int_equal(told, 0);
    assert_int_equal(check(&world, false, &told), 0);
    assert_int_equal(recorder_disk(world.recorder)[FLAGS], 0);
    struct node *node;
    world_mount(&world);
    assert_false(is_told_dirty(&world));
    assert_int_equal(world_look(&world, "/f", &node), 0);
    world_drop(&world, node);
    ends_clean(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_there_after_a_remount),
        cmocka_unit_test(what_was_not_written_is_zeros),
        cmocka_unit_test(chains_are_made_and_cut),
        cmocka_unit_test(a_removed_file_lives_while_it_is_held),
        cmocka_unit_test(names_move_and_replace),
        cmocka_unit_test(a_full_disk_stays_whole),
        cmocka_unit_test(a_folder_of_many),
        cmocka_unit_test(times_and_attributes_are_kept),
        cmocka_unit_test(foreign_things_are_respected),
        cmocka_unit_test(a_vendors_entry_goes_with_its_file),
        cmocka_unit_test(a_deep_folder_is_reached),
        cmocka_unit_test(much_is_freed_in_parts),
        cmocka_unit_test(what_cannot_be_replaced_stays_whole),
        cmocka_unit_test(there_is_one_file_of_the_journals_name),
        cmocka_unit_test(clusters_within_a_sector_are_not_written),
        cmocka_unit_test(an_error_of_the_medium_ends_writing),
        cmocka_unit_test(what_others_left_in_use_stays_so),
        cmocka_unit_test(what_we_left_in_use_is_ours),
        cmocka_unit_test(a_journal_that_is_void_says_nothing_of_the_mark),
        cmocka_unit_test(a_check_recovers_the_journal_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
