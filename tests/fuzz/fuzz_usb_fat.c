/*
 * A volume of FAT12, FAT16 or FAT32 as a stick may have it: its boot sector, its tables, and
 * whatever a check meets. It is mounted, walked through and written to, and where a check found
 * nothing before, it finds nothing after, and nothing is damaged on the way. Then it is repaired,
 * and a second check finds nothing that the first one could have repaired.
 *
 * The volume has some files and folders; the input is what is different, piece by piece. The first
 * byte is the kind (0 to 4; the last two have sectors of 2048 and 4096 bytes). A piece: 0, where it
 * begins (2 bytes, in steps of 32), how long it is (2 bytes), its bytes; or 1, a cluster (2 bytes)
 * and what the tables say of it (4 bytes); or 2, the same in the second table only. A piece that
 * begins at 0xFFFF is none: it is what is done to the volume (usb_files_program.h); nor is one at
 * 0xFFFE: that says what is not read twice alike (usb_varying.h).
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <block/budget.h>
#include <block/bytes.h>
#include <files/tools.h>

#include "../usb/recorder.h"
#include "fat.h"
#include "fat_layout.h"
#include "kinds.h"
#include "usb_files_program.h"
#include "usb_varying.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    KINDS = 5,
    DEPTH_MOST = 3,
    NAMES_MOST = 24,
    EXTENTS = 16,
    BUDGET = 30 << 10, /* bytes kept of a volume: two folders are too much */
    PIECE = 5,
    WORD = 7,
    PROGRAM = 0xFFFF,
};

struct kind {
    unsigned sectors, table, root; /* sectors; root: of the fixed root folder */
    enum volume_kind kind;
    unsigned sector_size;
};
static const struct kind kinds[KINDS] = {
    {1024, 4, 4, VOLUME_FAT12, 512},  {4400, 18, 8, VOLUME_FAT16, 512},
    {1200, 10, 0, VOLUME_FAT32, 512}, {300, 1, 1, VOLUME_FAT12, 2048},
    {200, 1, 0, VOLUME_FAT32, 4096},
};

static uint8_t *made[KINDS]; /* once */
static bool damaged;         /* something was, on the way */

static struct medium *open_medium(struct recorder *recorder)
{
    struct medium_options options = {.cache_size = 1};
    struct medium *medium = NULL;
    if (medium_open(recorder_device(recorder), &options, &medium, NULL) != 0)
        abort();
    return medium;
}

/* By hand: nobody formats FAT32 that small. */
static void make_empty(uint8_t *disk, const struct kind *kind)
{
    bool wide = kind->kind == VOLUME_FAT32;
    unsigned reserved = wide ? 8 : 1;
    memcpy(disk, "\xEB\x3C\x90", 3);
    put_le16(disk + BOOT_SECTOR_SIZE, (uint16_t)kind->sector_size);
    disk[BOOT_CLUSTER_SECTORS] = 1;
    put_le16(disk + BOOT_RESERVED, (uint16_t)reserved);
    disk[BOOT_TABLES] = 2;
    put_le16(disk + BOOT_ROOT_SLOTS, (uint16_t)(kind->root * kind->sector_size / 32));
    put_le16(disk + BOOT_SECTORS_16, (uint16_t)kind->sectors);
    disk[BOOT_MEDIA] = 0xF8;
    put_le16(disk + (wide ? BOOT_TABLE_SECTORS_32 : BOOT_TABLE_SECTORS_16), (uint16_t)kind->table);
    put_le16(disk + BOOT_SIGNATURE, 0xAA55);
    if (wide) {
        put_le32(disk + BOOT_ROOT_CLUSTER, 2);
        put_le16(disk + BOOT_INFO, FAT_INFO_SECTOR);
        put_le16(disk + BOOT_BACKUP, FAT_BACKUP_SECTOR);
        fat_info_make(UINT32_MAX, UINT32_MAX, disk + kind->sector_size);
        memcpy(disk + (size_t)FAT_BACKUP_SECTOR * kind->sector_size, disk, 512);
    }
    for (unsigned table = 0; table < 2; table++) {
        uint8_t *at = disk + (size_t)(reserved + table * kind->table) * kind->sector_size;
        memset(at, 0xFF, kind->kind == VOLUME_FAT12 ? 3 : wide ? 12 : 4);
        at[0] = 0xF8;
        if (wide)
            at[3] = at[7] = at[11] = 0x0F;
    }
}

static void put(struct volume *volume, struct node *folder, const char *name, size_t size)
{
    struct node *file;
    uint8_t bytes[3000] = "content";
    if (fat_ops.create(volume, folder, name, NODE_FILE, &file, NULL) != 0 ||
        volume_write(volume, file, 0, bytes, size, NULL) != (int64_t)size)
        abort();
    fat_ops.node_drop(volume, file, 1);
}

/* Files whose clusters are in turn, long names, folders one in the other. */
static void fill(struct volume *volume)
{
    struct node *root = fat_ops.root(volume), *folder, *below, *a, *b;
    uint8_t bytes[600] = "in turn";
    put(volume, root, "PLAIN.TXT", 100);
    put(volume, root, "empty", 0);
    put(volume, root, "A name that is long enough for three of them.text", 3000);
    fat_ops.create(volume, root, "folder", NODE_FOLDER, &folder, NULL);
    fat_ops.create(volume, root, "a", NODE_FILE, &a, NULL);
    fat_ops.create(volume, root, "b", NODE_FILE, &b, NULL);
    for (uint64_t i = 0; i < 4; i++)
        if (volume_write(volume, a, i * 600, bytes, 600, NULL) != 600 ||
            volume_write(volume, b, i * 600, bytes, 600, NULL) != 600)
            abort();
    for (int i = 0; i < 3; i++) {
        put(volume, folder, "file of a folder", 700);
        if (fat_ops.create(volume, folder, "a folder below", NODE_FOLDER, &below, NULL) != 0)
            abort();
        fat_ops.node_drop(volume, folder, 1);
        folder = below;
    }
    fat_ops.node_drop(volume, folder, 1);
    fat_ops.node_drop(volume, a, 1);
    fat_ops.node_drop(volume, b, 1);
    if (fat_ops.set_label(volume, "FUZZ", NULL) != 0)
        abort();
}

static void make(unsigned which)
{
    uint32_t sector_size = kinds[which].sector_size;
    size_t size = (size_t)kinds[which].sectors * sector_size;
    struct recorder *recorder = recorder_create(sector_size, kinds[which].sectors);
    struct volume_options options = {0};
    struct volume *volume;
    make_empty(recorder_disk(recorder), &kinds[which]);
    struct medium *medium = open_medium(recorder);
    if (fat_ops.mount(medium, &options, &volume, NULL) != 0)
        abort();
    fill(volume);
    if (fat_ops.unmount(volume, NULL) != 0 || medium_close(medium, NULL) != 0)
        abort();
    made[which] = malloc(size);
    memcpy(made[which], recorder_disk(recorder), size);
    recorder_destroy(recorder);
}

/* The input. */

static struct {
    const uint8_t *data;
    size_t size;
} program;

static void put_word(uint8_t *disk, const struct kind *kind, uint32_t cluster, uint32_t value,
                     unsigned first_table)
{
    unsigned reserved = kind->kind == VOLUME_FAT32 ? 8 : 1;
    for (unsigned table = first_table; table < 2; table++) {
        uint8_t *at = disk + (size_t)(reserved + table * kind->table) * kind->sector_size;
        if (kind->kind == VOLUME_FAT32)
            put_le32(at + (size_t)(cluster % (kind->table * kind->sector_size / 4)) * 4, value);
        else if (kind->kind == VOLUME_FAT16)
            put_le16(at + (size_t)(cluster % (kind->table * kind->sector_size / 2)) * 2,
                     (uint16_t)value);
        else {
            at += (cluster % 1000) + (cluster % 1000) / 2;
            put_le16(at, (uint16_t)(cluster % 2 ? (get_le16(at) & 0xF) | value << 4
                                                : (get_le16(at) & 0xF000) | (value & 0xFFF)));
        }
    }
}

static void change_disk(uint8_t *disk, const struct kind *kind, const uint8_t *data, size_t size)
{
    size_t disk_size = (size_t)kind->sectors * kind->sector_size;
    while (size >= WORD) {
        if (data[0] % 3 > 0) {
            put_word(disk, kind, get_le16(data + 1), get_le32(data + 3), data[0] % 3 - 1);
            data += WORD;
            size -= WORD;
            continue;
        }
        size_t at = (size_t)get_le16(data + 1) * 32, length = get_le16(data + 3);
        data += PIECE;
        size -= PIECE;
        length = length < size ? length : size;
        if (at == PROGRAM * 32) {
            program.data = data;
            program.size = length;
        } else if (at == VARYING * 32)
            varying = (struct varying){data, length};
        else if (at < disk_size)
            memcpy(disk + at, data, length < disk_size - at ? length : disk_size - at);
        data += length;
        size -= length;
    }
}

/* Use. */

struct counts {
    int all, repaired;
};

static void note(const struct finding *finding, void *data)
{
    struct counts *counts = data;
    counts->all++;
    counts->repaired += finding->repaired;
    if (getenv("FUZZ_TALK"))
        fprintf(stderr, "%s: %s\n", finding->repaired ? "repaired" : "found", finding->what);
}

static int check(struct recorder *recorder, bool repair, struct counts *counts)
{
    struct check_options options = {.repair = repair};
    struct medium *medium = open_medium(recorder);
    *counts = (struct counts){0};
    int r = volume_check(medium, &options, note, counts, NULL);
    if (medium_close(medium, NULL) != 0)
        abort();
    return r;
}

/* Notes what was met on the way. */
static int64_t met(int64_t r)
{
    damaged |= r == -EUCLEAN;
    return r;
}

struct names {
    unsigned count;
    char names[NAMES_MOST][VOLUME_NAME_MAX + 1];
};

static bool take_name(const char *name, uint64_t number, enum node_type type, uint64_t cookie,
                      void *data)
{
    struct names *names = data;
    (void)number, (void)type, (void)cookie;
    if (names->count == NAMES_MOST)
        return false;
    strcpy(names->names[names->count++], name);
    return true;
}

static void read_some(struct volume *volume, struct node *file)
{
    struct extent extents[EXTENTS];
    uint8_t bytes[100];
    int count = (int)met(fat_ops.map(volume, file, 0, UINT64_MAX, extents, EXTENTS, NULL));
    for (int i = 0; i < count; i++)
        if (medium_read(volume->medium, extents[i].offset, bytes,
                        extents[i].length < sizeof(bytes) ? extents[i].length : sizeof(bytes),
                        NULL) != 0)
            abort(); /* it is beyond the medium */
}

static void walk(struct volume *volume, struct node *folder, unsigned depth)
{
    struct names *names = calloc(1, sizeof(*names));
    met(fat_ops.read_folder(volume, folder, 0, take_name, names, NULL));
    for (unsigned i = 0; i < names->count; i++) {
        struct node *node;
        struct node_facts facts;
        if (met(fat_ops.lookup(volume, folder, names->names[i], &node, NULL)) != 0)
            continue;
        if (met(fat_ops.node_facts(volume, node, &facts, NULL)) == 0 && facts.type == NODE_FILE)
            read_some(volume, node);
        else if (depth < DEPTH_MOST)
            walk(volume, node, depth + 1);
        fat_ops.node_drop(volume, node, 1);
    }
    free(names);
}

/* Whatever comes of it: what may not be is refused. */
static void change(struct volume *volume, const char *some)
{
    struct node *root = fat_ops.root(volume), *folder, *file;
    struct node_facts facts = {.size = 20000};
    uint8_t bytes[3000] = {1};
    if (met(fat_ops.create(volume, root, "made by us", NODE_FOLDER, &folder, NULL)) != 0)
        return;
    if (met(fat_ops.create(volume, folder, "file", NODE_FILE, &file, NULL)) == 0) {
        met(volume_write(volume, file, 5000, bytes, sizeof(bytes), NULL));
        met(fat_ops.node_set(volume, file, NODE_SIZE, &facts, NULL));
        facts.size = 700;
        met(fat_ops.node_set(volume, file, NODE_SIZE | NODE_ATTRIBUTES, &facts, NULL));
        fat_ops.node_drop(volume, file, 1);
    }
    met(fat_ops.rename(volume, root, some, folder, "a name that is longer than another", true,
                       NULL));
    met(fat_ops.rename(volume, folder, "file", root, some, true, NULL));
    met(fat_ops.rename(volume, root, "a", root, "b", true, NULL));
    met(fat_ops.set_label(volume, "CHANGED", NULL));
    met(fat_ops.remove(volume, root, some, NODE_FILE, NULL));
    fat_ops.node_drop(volume, folder, 1);
}

static void first_name(struct volume *volume, char *ret_name)
{
    struct names *names = calloc(1, sizeof(*names));
    fat_ops.read_folder(volume, fat_ops.root(volume), 0, take_name, names, NULL);
    strcpy(ret_name, names->count ? names->names[0] : "none");
    free(names);
}

static void use(struct recorder *recorder)
{
    struct medium *medium = open_medium(recorder);
    struct volume_options options = {0};
    struct volume_facts facts;
    struct volume *volume;
    char name[VOLUME_NAME_MAX + 1];
    budget_set(BUDGET);
    if (volume_mount(medium, &options, &volume, NULL) == 0 && volume->ops == &fat_ops) {
        met(fat_ops.facts(volume, &facts, NULL));
        walk(volume, fat_ops.root(volume), 0);
        first_name(volume, name);
        change(volume, name);
        run_program(volume, program.data, program.size, met);
        walk(volume, fat_ops.root(volume), 0);
        fat_ops.unmount(volume, NULL);
    }
    budget_set(0);
    if (medium_close(medium, NULL) != 0)
        abort();
}

/* On a copy: what was sound stays so. */
static void use_copy(const uint8_t *disk, const struct kind *kind)
{
    struct recorder *recorder = recorder_create(kind->sector_size, kind->sectors);
    struct counts before, after;
    memcpy(recorder_disk(recorder), disk, recorder_size(recorder));
    make_varying(recorder);
    bool sound = check(recorder, false, &before) == 0;
    damaged = false;
    use(recorder);
    if (sound && varying.size == 0 && (damaged || check(recorder, false, &after) != 0))
        abort();
    recorder_destroy(recorder);
}

static void repair(struct recorder *recorder, const struct kind *kind)
{
    struct counts first, second;
    make_varying(recorder);
    int r = check(recorder, true, &first);
    if (r >= 0 && check(recorder, false, &second) != second.all && varying.size == 0)
        abort();
    if (r >= 0 && varying.size == 0 && second.all > first.all - first.repaired)
        abort();
    if (r == 0)
        use_copy(recorder_disk(recorder), kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    unsigned which = data[0] % KINDS;
    const struct kind *kind = &kinds[which];
    if (!made[which])
        make(which);
    struct recorder *recorder = recorder_create(kind->sector_size, kind->sectors);
    uint8_t *disk = recorder_disk(recorder);
    memcpy(disk, made[which], recorder_size(recorder));
    program.size = varying.size = 0;
    change_disk(disk, kind, data + 1, size - 1);
    use_copy(disk, kind);
    repair(recorder, kind);
    recorder_destroy(recorder);
    return 0;
}
