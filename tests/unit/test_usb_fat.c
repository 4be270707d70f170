/* src/usb/files: FAT. Volumes are made by hand here, and looked at by walking their tables. */
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
#include <block/bytes.h>
#include <block/medium.h>
#include <files/tools.h>
#include <files/volume.h>

#include "../usb/recorder.h"

enum { SECTORS = 20000, RESERVED = 4, ROOT_SLOTS = 128, CONTENT = 5000 };

/* sectors of a cluster and of a table decide the kind. */
struct kind {
    unsigned cluster, table, bits;
};
static const struct kind kinds[] = {{8, 8, 12}, {2, 40, 16}, {1, 160, 32}};

static void make_volume(struct recorder *recorder, const struct kind *kind)
{
    uint8_t *boot = recorder_disk(recorder);
    memset(boot, 0, recorder_size(recorder));
    memcpy(boot,
           "\xEB\x3C\x90"
           "TESTTEST",
           11);
    put_le16(boot + 11, 512);
    boot[13] = (uint8_t)kind->cluster;
    put_le16(boot + 14, RESERVED);
    boot[16] = 2;
    put_le16(boot + 17, kind->bits == 32 ? 0 : ROOT_SLOTS);
    put_le16(boot + 19, SECTORS);
    boot[21] = 0xF8;
    if (kind->bits == 32) {
        put_le32(boot + 36, kind->table);
        put_le32(boot + 44, 2);
        put_le16(boot + 48, 1);
        put_le32(boot + 512, 0x41615252);
        put_le32(boot + 512 + 484, 0x61417272);
        put_le32(boot + 512 + 488, UINT32_MAX);
    } else {
        put_le16(boot + 22, (uint16_t)kind->table);
    }
    put_le16(boot + 510, 0xAA55);
    for (unsigned table = 0; table < 2; table++) {
        uint8_t *at = boot + (RESERVED + table * kind->table) * 512;
        memset(at, 0xFF, kind->bits == 12 ? 3 : kind->bits == 16 ? 4 : 12);
        at[0] = 0xF8;
        if (kind->bits == 32)
            at[3] = at[7] = at[11] = 0x0F;
    }
}

static uint32_t entry_of(const uint8_t *table, unsigned bits, uint32_t cluster)
{
    if (bits == 12)
        return get_le16(table + cluster + cluster / 2) >> (cluster % 2 ? 4 : 0) & 0xFFF;
    return bits == 16 ? get_le16(table + cluster * 2) : get_le32(table + cluster * 4) & 0x0FFFFFFF;
}

struct walk {
    const uint8_t *disk, *table;
    const struct kind *kind;
    uint8_t *seen;
    uint64_t data;
};

/* Every cluster of a chain is in it once, and in no other. Returns how many. */
static unsigned walk_chain(struct walk *walk, uint32_t cluster)
{
    uint32_t end = walk->kind->bits == 12 ? 0xFF8 : walk->kind->bits == 16 ? 0xFFF8 : 0x0FFFFFF8;
    unsigned count = 0;
    for (; cluster < end; count++) {
        assert_in_range(cluster, 2, (SECTORS - walk->data) / walk->kind->cluster + 1);
        assert_int_equal(walk->seen[cluster], 0);
        walk->seen[cluster] = 1;
        cluster = entry_of(walk->table, walk->kind->bits, cluster);
    }
    return count;
}

static void walk_folder(struct walk *walk, uint64_t sector, uint32_t cluster, unsigned slots);

static void walk_entry(struct walk *walk, const uint8_t *raw)
{
    uint32_t first = get_le16(raw + 26) | (uint32_t)get_le16(raw + 20) << 16;
    uint32_t size = get_le32(raw + 28), of_cluster = walk->kind->cluster * 512;
    if (raw[0] == 0xE5 || raw[0] == '.' || (raw[11] & 8))
        return;
    if (raw[11] & 0x10) {
        walk_folder(walk, 0, first, 0);
        return;
    }
    unsigned count = first ? walk_chain(walk, first) : 0;
    assert_int_equal(count, (size + of_cluster - 1) / of_cluster);
}

static void walk_folder(struct walk *walk, uint64_t sector, uint32_t cluster, unsigned slots)
{
    uint32_t end = walk->kind->bits == 12 ? 0xFF8 : walk->kind->bits == 16 ? 0xFFF8 : 0x0FFFFFF8;
    if (cluster)
        walk_chain(walk, cluster);
    for (;;) {
        if (cluster) {
            sector = walk->data + (uint64_t)(cluster - 2) * walk->kind->cluster;
            slots = walk->kind->cluster * 16;
        }
        const uint8_t *raw = walk->disk + sector * 512;
        for (unsigned i = 0; i < slots; i++, raw += 32) {
            if (raw[0] == 0)
                return;
            walk_entry(walk, raw);
        }
        if (!cluster || (cluster = entry_of(walk->table, walk->kind->bits, cluster)) >= end)
            return;
    }
}

/* The tables are the same, and every used cluster is of one file or folder. */
static void check_volume(struct recorder *recorder, const struct kind *kind)
{
    const uint8_t *disk = recorder_disk(recorder);
    unsigned root = kind->bits == 32 ? 0 : ROOT_SLOTS * 32 / 512;
    struct walk walk = {
        .disk = disk,
        .table = disk + RESERVED * 512,
        .kind = kind,
        .seen = xcalloc(SECTORS + 2, 1),
        .data = RESERVED + 2 * kind->table + root,
    };
    assert_memory_equal(walk.table, walk.table + kind->table * 512, kind->table * 512);
    walk_folder(&walk, RESERVED + 2 * kind->table, kind->bits == 32 ? 2 : 0, ROOT_SLOTS);
    uint32_t clusters = (uint32_t)((SECTORS - walk.data) / kind->cluster);
    for (uint32_t i = 2; i < clusters + 2; i++)
        assert_int_equal(walk.seen[i], entry_of(walk.table, kind->bits, i) != 0);
    free(walk.seen);
}

struct mounted {
    struct medium *medium;
    struct volume *volume;
    const struct volume_ops *ops;
    struct node *root;
};

static struct mounted mount_it(struct recorder *recorder)
{
    struct mounted mounted;
    struct medium_options medium = {0};
    struct volume_options options = {0};
    assert_int_equal(medium_open(recorder_device(recorder), &medium, &mounted.medium, NULL), 0);
    assert_int_equal(volume_mount(mounted.medium, &options, &mounted.volume, NULL), 0);
    mounted.ops = mounted.volume->ops;
    mounted.root = mounted.ops->root(mounted.volume);
    return mounted;
}

static void unmount_it(struct mounted *mounted)
{
    mounted->ops->node_drop(mounted->volume, mounted->root, 1);
    assert_int_equal(mounted->ops->unmount(mounted->volume, NULL), 0);
    assert_int_equal(medium_close(mounted->medium, NULL), 0);
}

static void put(struct mounted *mounted, struct node *folder, const char *name, size_t size)
{
    struct node *file = NULL;
    char *content = xmalloc(size + 1);
    memset(content, name[0], size);
    assert_int_equal(mounted->ops->create(mounted->volume, folder, name, NODE_FILE, &file, NULL),
                     0);
    assert_int_equal(volume_write(mounted->volume, file, 0, content, size, NULL), size);
    mounted->ops->node_drop(mounted->volume, file, 1);
    free(content);
}

/* The size of a file whose content is of one letter; negative errno. */
static int64_t size_of(struct mounted *mounted, struct node *folder, const char *name, char letter)
{
    struct node *file = NULL;
    struct node_facts facts = {0};
    int r = mounted->ops->lookup(mounted->volume, folder, name, &file, NULL);
    if (r != 0)
        return r;
    assert_int_equal(mounted->ops->node_facts(mounted->volume, file, &facts, NULL), 0);
    char *content = xmalloc(facts.size + 1);
    assert_int_equal(volume_read(mounted->volume, file, 0, content, facts.size + 1, NULL),
                     facts.size);
    for (uint64_t i = 0; i < facts.size; i++)
        assert_int_equal(content[i], letter);
    free(content);
    mounted->ops->node_drop(mounted->volume, file, 1);
    return (int64_t)facts.size;
}

static void files_are_kept(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct recorder *recorder = recorder_create(512, SECTORS);
        struct node *folder = NULL;
        make_volume(recorder, &kinds[i]);
        struct mounted m = mount_it(recorder);
        put(&m, m.root, "Plain.txt", 0);
        put(&m, m.root, "a name that is long \u00e4\u20ac\U0001F600.text", CONTENT);
        assert_int_equal(m.ops->create(m.volume, m.root, "Folder", NODE_FOLDER, &folder, NULL), 0);
        for (int n = 0; n < 200; n++) {
            char name[64];
            snprintf(name, sizeof(name), "file of many, number %d", n);
            put(&m, folder, name, (size_t)n * 7);
        }
        assert_int_equal(m.ops->remove(m.volume, m.root, "Folder", NODE_FOLDER, NULL), -ENOTEMPTY);
        assert_int_equal(m.ops->rename(m.volume, m.root, "folder", folder, "x", true, NULL),
                         -EINVAL);
        m.ops->node_drop(m.volume, folder, 1);
        unmount_it(&m);
        check_volume(recorder, &kinds[i]);
        m = mount_it(recorder);
        assert_int_equal(size_of(&m, m.root, "PLAIN.TXT", 'P'), 0);
        assert_int_equal(
            size_of(&m, m.root, "A NAME THAT IS LONG \u00c4\u20ac\U0001F600.TEXT", 'a'), CONTENT);
        assert_int_equal(size_of(&m, m.root, "cloche.jnl", 'x'), -ENOENT);
        assert_int_equal(m.ops->lookup(m.volume, m.root, "FOLDER", &folder, NULL), 0);
        assert_int_equal(size_of(&m, folder, "FILE OF MANY, number 199", 'f'), 199 * 7);
        m.ops->node_drop(m.volume, folder, 1);
        unmount_it(&m);
        recorder_destroy(recorder);
    }
}

static void what_was_removed_stays_while_it_is_held(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct node *file = NULL;
    struct volume_facts before, after;
    char back[4];
    make_volume(recorder, &kinds[1]);
    struct mounted m = mount_it(recorder);
    put(&m, m.root, "other", 10);
    assert_int_equal(m.ops->facts(m.volume, &before, NULL), 0);
    assert_int_equal(m.ops->create(m.volume, m.root, "held", NODE_FILE, &file, NULL), 0);
    assert_int_equal(volume_write(m.volume, file, 100000, "abc", 3, NULL), 3);
    assert_int_equal(m.ops->remove(m.volume, m.root, "held", NODE_FILE, NULL), 0);
    assert_int_equal(medium_sync(m.medium, NULL), 0);
    put(&m, m.root, "third", 200000);
    assert_int_equal(volume_write(m.volume, file, 200000, "def", 3, NULL), 3);
    assert_int_equal(volume_read(m.volume, file, 100000, back, 4, NULL), 4);
    assert_memory_equal(back, "abc\0", 4);
    m.ops->node_drop(m.volume, file, 1);
    assert_int_equal(m.ops->remove(m.volume, m.root, "third", NODE_FILE, NULL), 0);
    assert_int_equal(m.ops->facts(m.volume, &after, NULL), 0);
    assert_int_equal(before.clusters_free, after.clusters_free);
    unmount_it(&m);
    check_volume(recorder, &kinds[1]);
    recorder_destroy(recorder);
}

/* What is synced at which moment of the log. */
static void change_volume(struct recorder *recorder, size_t *ret_synced)
{
    struct mounted m = mount_it(recorder);
    struct node *a = NULL, *file = NULL;
    struct node_facts facts = {.size = 1000};
    assert_int_equal(m.ops->create(m.volume, m.root, "a folder", NODE_FOLDER, &a, NULL), 0);
    put(&m, a, "new content", 30000);
    put(&m, m.root, "kept", 3000);
    assert_int_equal(medium_sync(m.medium, NULL), 0);
    *ret_synced = recorder_moments(recorder);
    put(&m, m.root, "old", 2000);
    assert_int_equal(m.ops->rename(m.volume, a, "new content", m.root, "old", true, NULL), 0);
    assert_int_equal(m.ops->rename(m.volume, m.root, "a folder", m.root, "b", false, NULL), 0);
    assert_int_equal(medium_sync(m.medium, NULL), 0);
    assert_int_equal(m.ops->lookup(m.volume, m.root, "old", &file, NULL), 0);
    assert_int_equal(m.ops->node_set(m.volume, file, NODE_SIZE, &facts, NULL), 0);
    m.ops->node_drop(m.volume, file, 1);
    for (int i = 0; i < 12; i++) {
        char name[40];
        snprintf(name, sizeof(name), "one of several files %d", i);
        put(&m, a, name, 700);
    }
    assert_int_equal(m.ops->remove(m.volume, m.root, "old", NODE_FILE, NULL), 0);
    m.ops->node_drop(m.volume, a, 1);
    unmount_it(&m);
}

static void the_power_may_go_at_any_write(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct recorder *recorder = recorder_create(512, SECTORS);
        struct recorder *after = recorder_create(512, SECTORS);
        size_t synced;
        make_volume(recorder, &kinds[i]);
        recorder_start(recorder);
        change_volume(recorder, &synced);
        check_volume(recorder, &kinds[i]);
        for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
            for (unsigned loss = 0; loss < 4; loss++) {
                recorder_cut(recorder, moment, loss, (unsigned)moment, recorder_disk(after));
                struct mounted m = mount_it(after);
                if (moment >= synced)
                    assert_int_equal(size_of(&m, m.root, "kept", 'k'), 3000);
                unmount_it(&m);
                check_volume(after, &kinds[i]);
            }
        recorder_destroy(after);
        recorder_destroy(recorder);
    }
}

/* Of a file's entry only; negative errno. */
static int64_t told_size(struct mounted *mounted, const char *name)
{
    struct node *file = NULL;
    struct node_facts facts = {0};
    int r = mounted->ops->lookup(mounted->volume, mounted->root, name, &file, NULL);
    if (r != 0)
        return r;
    assert_int_equal(mounted->ops->node_facts(mounted->volume, file, &facts, NULL), 0);
    mounted->ops->node_drop(mounted->volume, file, 1);
    return (int64_t)facts.size;
}

enum { LARGE = 4 << 20 /* bytes: more clusters than one update frees */ };

/* Whatever the moment: the old state or the new one, and nothing is lost. */
static void check_cut(struct recorder *after, const struct kind *kind, bool replaces)
{
    struct mounted m = mount_it(after);
    int64_t large = told_size(&m, "large"), other = told_size(&m, "other");
    if (replaces && other == -ENOENT)
        assert_int_equal(large, 10);
    else if (large != -ENOENT || replaces)
        assert_int_equal(large, LARGE);
    assert_true(other == 10 || large != LARGE);
    put(&m, m.root, "made afterwards", 1);
    assert_int_equal(told_size(&m, "cloche.del"), -ENOENT);
    unmount_it(&m);
    check_volume(after, kind);
}

/* "other" replaces it, or goes after it. */
static void a_large_file_goes_at_once(void **state)
{
    const struct kind *kind = &kinds[2];
    for (int replaces = 0; replaces < 2; replaces++) {
        struct recorder *recorder = recorder_create(512, SECTORS);
        struct recorder *after = recorder_create(512, SECTORS);
        make_volume(recorder, kind);
        struct mounted m = mount_it(recorder);
        put(&m, m.root, "large", LARGE);
        put(&m, m.root, "other", 10);
        assert_int_equal(medium_settle(m.medium, NULL), 0);
        recorder_start(recorder);
        if (replaces) {
            assert_int_equal(m.ops->rename(m.volume, m.root, "other", m.root, "large", true, NULL),
                             0);
        } else {
            assert_int_equal(m.ops->remove(m.volume, m.root, "large", NODE_FILE, NULL), 0);
            assert_int_equal(m.ops->remove(m.volume, m.root, "other", NODE_FILE, NULL), 0);
        }
        assert_int_equal(told_size(&m, "cloche.del"), -ENOENT);
        unmount_it(&m);
        check_volume(recorder, kind);
        assert_true(recorder_moments(recorder) > 10);
        for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
            for (unsigned loss = 0; loss < 4; loss++) {
                recorder_cut(recorder, moment, loss, (unsigned)moment, recorder_disk(after));
                check_cut(after, kind, replaces);
            }
        recorder_destroy(after);
        recorder_destroy(recorder);
    }
}

/* Check and repair. */

static void count_finding(const struct finding *finding, void *data)
{
    (void)finding;
    ++*(int *)data;
}

/* Findings that are left. */
static int check_it(struct recorder *recorder, bool repair, int *ret_found)
{
    struct medium_options options = {0};
    struct check_options check = {.repair = repair};
    struct medium *medium = NULL;
    *ret_found = 0;
    assert_int_equal(medium_open(recorder_device(recorder), &options, &medium, NULL), 0);
    int r = volume_check(medium, &check, count_finding, ret_found, NULL);
    assert_int_equal(medium_close(medium, NULL), 0);
    return r;
}

/* A lost chain, a file that leads nowhere, tables that differ, a wrong "..". */
static void damage(struct recorder *recorder, const struct kind *kind)
{
    uint8_t *disk = recorder_disk(recorder);
    unsigned root = kind->bits == 32 ? 0 : ROOT_SLOTS * 32 / 512;
    uint8_t *at = disk + (RESERVED + 2 * (size_t)kind->table) * 512;
    uint8_t *data = disk + (RESERVED + 2 * (size_t)kind->table + root) * 512;
    for (unsigned i = 0; i < 16; i++, at += 32) {
        if (memcmp(at, "LOST       ", 11) == 0)
            at[0] = 0xE5;
        if (memcmp(at, "NOWHERE    ", 11) == 0)
            put_le16(at + 26, 0);
        if (memcmp(at, "FOLDER     ", 11) == 0)
            put_le16(data + ((size_t)get_le16(at + 26) - 2) * kind->cluster * 512 + 32 + 26, 77);
    }
    memset(disk + (RESERVED + kind->table) * 512 + 20, 0, 40);
}

/* Each repair is one update: after a power cut another one goes on. */
static void a_repair_may_be_cut(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct recorder *recorder = recorder_create(512, SECTORS);
        struct recorder *after = recorder_create(512, SECTORS);
        struct node *folder = NULL;
        int found;
        make_volume(recorder, &kinds[i]);
        struct mounted m = mount_it(recorder);
        put(&m, m.root, "kept", 3000);
        put(&m, m.root, "lost", 20000);
        put(&m, m.root, "nowhere", 9000);
        assert_int_equal(m.ops->create(m.volume, m.root, "folder", NODE_FOLDER, &folder, NULL), 0);
        m.ops->node_drop(m.volume, folder, 1);
        unmount_it(&m);
        assert_int_equal(check_it(recorder, false, &found), 0);
        assert_int_equal(found, 0);
        damage(recorder, &kinds[i]);
        recorder_start(recorder);
        assert_int_equal(check_it(recorder, true, &found), 0);
        assert_int_equal(found, 4);
        for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
            for (unsigned loss = 0; loss < 4; loss++) {
                recorder_cut(recorder, moment, loss, (unsigned)moment, recorder_disk(after));
                assert_int_equal(check_it(after, true, &found), 0);
                assert_int_equal(check_it(after, false, &found), 0);
                check_volume(after, &kinds[i]);
                m = mount_it(after);
                assert_int_equal(size_of(&m, m.root, "kept", 'k'), 3000);
                assert_int_equal(size_of(&m, m.root, "nowhere", 'n'), 0);
                assert_int_equal(m.ops->lookup(m.volume, m.root, "LOST.DIR", &folder, NULL), 0);
                m.ops->node_drop(m.volume, folder, 1);
                unmount_it(&m);
            }
        recorder_destroy(after);
        recorder_destroy(recorder);
    }
}

/* Reading ahead. */

enum { STEP = 4096, STEPS = 256 };

static void read_step(struct mounted *m, struct node *file, unsigned step, uint8_t letter)
{
    uint8_t data[STEP];
    assert_int_equal(volume_read(m->volume, file, (uint64_t)step * STEP, data, STEP, NULL), STEP);
    assert_int_equal(data[0], letter);
    assert_int_equal(data[STEP - 1], letter);
}

static void what_is_read_in_order_is_read_ahead(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct node *file = NULL;
    uint8_t other[STEP];
    make_volume(recorder, &kinds[1]);
    struct mounted m = mount_it(recorder);
    put(&m, m.root, "read", STEP * STEPS);
    assert_int_equal(m.ops->lookup(m.volume, m.root, "read", &file, NULL), 0);
    uint64_t before = recorder_counts(recorder).reads;
    for (unsigned i = 0; i < STEPS; i++)
        read_step(&m, file, i, 'r');
    assert_in_range(recorder_counts(recorder).reads - before, 1, 20);
    before = recorder_counts(recorder).sectors_read;
    for (unsigned i = 0; i < 20; i++)
        read_step(&m, file, i * 77 % STEPS, 'r');
    assert_int_equal(recorder_counts(recorder).sectors_read - before, 20 * STEP / 512);
    memset(other, 'o', STEP);
    for (unsigned i = 0; i < STEPS; i++) { /* what was read ahead is written to */
        if (i % 8 == 0)
            assert_int_equal(
                volume_write(m.volume, file, (uint64_t)(i + 4) * STEP, other, STEP, NULL), STEP);
        read_step(&m, file, i, i % 8 == 4 ? 'o' : 'r');
    }
    m.ops->node_drop(m.volume, file, 1);
    unmount_it(&m);
    recorder_destroy(recorder);
}

enum { FLAGS_16 = 37, IN_USE = 1 };

static bool is_told_dirty(struct mounted *mounted)
{
    struct volume_facts facts;
    assert_int_equal(mounted->ops->facts(mounted->volume, &facts, NULL), 0);
    return facts.dirty;
}

static bool write_once(struct recorder *recorder, const char *name)
{
    struct mounted m = mount_it(recorder);
    bool dirty = is_told_dirty(&m);
    put(&m, m.root, name, 10);
    unmount_it(&m);
    return dirty;
}

static void the_mark_of_being_in_use_is_its_owners(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    uint8_t *disk = recorder_disk(recorder), *cut = recorder_disk(after);
    make_volume(recorder, &kinds[1]);
    assert_false(write_once(recorder, "a"));
    assert_int_equal(disk[FLAGS_16], 0);
    struct mounted m = mount_it(recorder);
    put(&m, m.root, "b", 10);
    assert_int_equal(medium_sync(m.medium, NULL), 0);
    memcpy(cut, disk, recorder_size(recorder)); /* the power goes */
    unmount_it(&m);
    assert_int_equal(cut[FLAGS_16], IN_USE);
    m = mount_it(after);
    assert_false(is_told_dirty(&m));
    unmount_it(&m); /* nothing was written, but it was ours */
    assert_int_equal(cut[FLAGS_16], 0);
    cut[FLAGS_16] = IN_USE; /* another system's */
    assert_true(write_once(after, "c"));
    assert_true(write_once(after, "d"));
    assert_int_equal(cut[FLAGS_16], IN_USE);
    check_volume(after, &kinds[1]);
    recorder_destroy(after);
    recorder_destroy(recorder);
}

/* Of what other systems find: what is lost is found, and nothing else. */
static void find_lost(const struct finding *finding, void *data)
{
    if (!strstr(finding->what, "lost"))
        fail_msg("%s", finding->what);
}

static void check_full_cut(struct recorder *after)
{
    struct check_options options = {0};
    struct medium_options medium_options = {0};
    struct medium *medium;
    struct node *folder = NULL;
    struct mounted m = mount_it(after);
    struct node *root = m.root;
    assert_int_equal(m.ops->lookup(m.volume, m.root, "sub", &folder, NULL), 0);
    m.root = folder;
    int64_t large = told_size(&m, "large"), other = told_size(&m, "other");
    assert_int_equal(large, other == -ENOENT ? 10 : LARGE);
    assert_int_equal(size_of(&m, folder, "large", other == -ENOENT ? 'o' : 'l'), large);
    m.root = root;
    m.ops->node_drop(m.volume, folder, 1);
    unmount_it(&m);
    assert_int_equal(medium_open(recorder_device(after), &medium_options, &medium, NULL), 0);
    assert_true(volume_check(medium, &options, find_lost, NULL, NULL) >= 0);
    assert_int_equal(medium_close(medium, NULL), 0);
}

/* No room in the root folder to park it: it is there as a whole, or not. */
static void a_large_file_goes_at_once_where_the_root_is_full(void **state)
{
    const struct kind *kind = &kinds[1];
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    struct node *folder = NULL, *file = NULL;
    char name[16];
    make_volume(recorder, kind);
    struct mounted m = mount_it(recorder);
    assert_int_equal(m.ops->create(m.volume, m.root, "sub", NODE_FOLDER, &folder, NULL), 0);
    put(&m, folder, "large", LARGE);
    put(&m, folder, "other", 10);
    for (int i = 0; i < ROOT_SLOTS - 2; i++) {
        snprintf(name, sizeof(name), "F%d", i);
        put(&m, m.root, name, 0);
    }
    assert_int_equal(m.ops->create(m.volume, m.root, "MORE", NODE_FILE, &file, NULL), -ENOSPC);
    assert_int_equal(medium_settle(m.medium, NULL), 0);
    recorder_start(recorder);
    assert_int_equal(m.ops->rename(m.volume, folder, "other", folder, "large", true, NULL), 0);
    m.ops->node_drop(m.volume, folder, 1);
    unmount_it(&m);
    check_volume(recorder, kind);
    assert_true(recorder_moments(recorder) > 10);
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++) {
        recorder_cut(recorder, moment, (enum recorder_loss)(moment % 4), (unsigned)moment,
                     recorder_disk(after));
        check_full_cut(after);
    }
    recorder_destroy(after);
    recorder_destroy(recorder);
}

/* The entry of the journal in the root folder's first sector; there is one at most. */
static uint8_t *journal_entry(struct recorder *recorder, const struct kind *kind)
{
    uint8_t *root = recorder_disk(recorder) + (RESERVED + 2 * kind->table) * 512, *found = NULL;
    for (unsigned at = 0; at < 512; at += 32)
        if (memcmp(root + at, "CLOCHE  JNL", 11) == 0) {
            assert_null(found);
            found = root + at;
        }
    return found;
}

/* One of ours that others have made empty makes way; one that is theirs means that there is none.
 */
static void there_is_one_file_of_the_journals_name(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        for (int theirs = 0; theirs < 2; theirs++) {
            struct recorder *recorder = recorder_create(512, SECTORS);
            make_volume(recorder, &kinds[i]);
            struct mounted m = mount_it(recorder);
            put(&m, m.root, "a", 10);
            unmount_it(&m);
            uint8_t *entry = journal_entry(recorder, &kinds[i]);
            put_le16(entry + 20, 0);
            put_le16(entry + 26, 0);
            put_le32(entry + 28, 0);
            if (theirs)
                entry[11] = 0x20;
            m = mount_it(recorder);
            put(&m, m.root, "b", 10);
            assert_int_equal(medium_has_journal(m.medium), !theirs);
            unmount_it(&m);
            assert_non_null(journal_entry(recorder, &kinds[i]));
            m = mount_it(recorder);
            put(&m, m.root, "c", 10);
            assert_int_equal(medium_has_journal(m.medium), !theirs);
            unmount_it(&m);
            assert_non_null(journal_entry(recorder, &kinds[i]));
            recorder_destroy(recorder);
        }
}

/* Its entry is in a cluster that the root folder gets for it. */
static void the_journal_is_found_where_the_root_has_grown_for_it(void **state)
{
    const struct kind *kind = &kinds[2];
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    make_volume(recorder, kind);
    uint8_t *root = recorder_disk(recorder) + (RESERVED + 2 * kind->table) * 512;
    for (unsigned i = 0; i < 512 / 32; i++) {
        memset(root + i * 32, ' ', 11);
        root[i * 32] = (uint8_t)('A' + i);
        root[i * 32 + 11] = 0x20;
    }
    recorder_start(recorder);
    struct mounted m = mount_it(recorder);
    put(&m, m.root, "kept", 3000);
    assert_int_equal(medium_sync(m.medium, NULL), 0);
    assert_true(medium_has_journal(m.medium));
    size_t synced = recorder_moments(recorder);
    unmount_it(&m);
    recorder_cut(recorder, synced, LOSS_ALL, 1, recorder_disk(after));
    m = mount_it(after);
    assert_int_equal(size_of(&m, m.root, "kept", 'k'), 3000);
    unmount_it(&m);
    check_volume(after, kind);
    recorder_destroy(after);
    recorder_destroy(recorder);
}

/* By the second word of the table alone: it is not forgotten. */
static void the_tables_marks_are_believed(void **state)
{
    for (size_t i = 1; i < ARRAY_SIZE(kinds); i++)
        for (unsigned bit = 2; bit < 4; bit++) {
            struct recorder *recorder = recorder_create(512, SECTORS);
            struct volume_facts facts;
            make_volume(recorder, &kinds[i]);
            uint8_t *word = recorder_disk(recorder) + RESERVED * 512 + kinds[i].bits / 8;
            uint8_t *high = word + kinds[i].bits / 8 - 1;
            uint8_t mask = (uint8_t)(kinds[i].bits == 16 ? 0x10 << bit : 1 << bit);
            *high &= (uint8_t)~mask;
            struct mounted m = mount_it(recorder);
            assert_int_equal(m.ops->identity(m.volume, &facts, NULL), 0);
            assert_true(facts.dirty);
            put(&m, m.root, "a", 10);
            unmount_it(&m);
            assert_int_equal(*high & mask, 0);
            assert_int_equal(recorder_disk(recorder)[kinds[i].bits == 32 ? 65 : 37] & 1, 1);
            recorder_destroy(recorder);
        }
}

/* Bytes of a new folder when its first cluster is full. */
static uint64_t grown_size(struct mounted *m, const char *name, unsigned cluster_size)
{
    struct node *folder = NULL;
    struct node_facts facts = {0};
    assert_int_equal(m->ops->create(m->volume, m->root, name, NODE_FOLDER, &folder, NULL), 0);
    for (unsigned slot = 2; slot <= cluster_size / 32; slot++) {
        char file[16];
        snprintf(file, sizeof(file), "%u", slot);
        put(m, folder, file, 0);
    }
    assert_int_equal(m->ops->node_facts(m->volume, folder, &facts, NULL), 0);
    m->ops->node_drop(m->volume, folder, 1);
    return facts.size;
}

static void a_folder_grows_by_more_than_a_small_cluster(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct recorder *recorder = recorder_create(512, SECTORS);
        unsigned size = kinds[i].cluster * 512;
        struct volume_facts facts;
        make_volume(recorder, &kinds[i]);
        struct mounted m = mount_it(recorder);
        assert_int_equal(grown_size(&m, "a", size), size + 4096);
        /* Where there is little room, by what it needs. */
        assert_int_equal(m.ops->facts(m.volume, &facts, NULL), 0);
        put(&m, m.root, "b", (facts.clusters_free - 63 * 4096 / size) * size);
        assert_int_equal(grown_size(&m, "c", size), 2 * size);
        unmount_it(&m);
        check_volume(recorder, &kinds[i]);
        recorder_destroy(recorder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_kept),
        cmocka_unit_test(what_was_removed_stays_while_it_is_held),
        cmocka_unit_test(the_power_may_go_at_any_write),
        cmocka_unit_test(a_large_file_goes_at_once),
        cmocka_unit_test(a_large_file_goes_at_once_where_the_root_is_full),
        cmocka_unit_test(there_is_one_file_of_the_journals_name),
        cmocka_unit_test(the_journal_is_found_where_the_root_has_grown_for_it),
        cmocka_unit_test(the_tables_marks_are_believed),
        cmocka_unit_test(a_folder_grows_by_more_than_a_small_cluster),
        cmocka_unit_test(a_repair_may_be_cut),
        cmocka_unit_test(what_is_read_in_order_is_read_ahead),
        cmocka_unit_test(the_mark_of_being_in_use_is_its_owners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
