/*
 * An exFAT volume of a megabyte as a stick may have it: its boot region, and whatever a check
 * meets. It is mounted, walked through and written to, and where a check found nothing before, it
 * finds nothing after. Then it is repaired, and a second check finds nothing that the first one
 * could have repaired.
 *
 * The input is the volume, piece by piece: where a piece begins (2 bytes, in steps of 32), how long
 * it is (2 bytes), its bytes, over a volume that was formatted. The first byte: 1 keeps the sums of
 * the boot region as they come, else they are made right; 2 likewise for those of entry sets in the
 * root folder's first cluster; 4 for that of the up-case table. 8: sectors of 4096 bytes. A piece
 * at 0xFFFF is none: it is what is done to the volume (usb_files_program.h); nor is one at 0xFFFE:
 * that says what is not read twice alike (usb_varying.h).
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <block/budget.h>
#include <block/bytes.h>

#include "../usb/recorder.h"
#include "exfat.h"
#include "exfat_check.h"
#include "exfat_format.h"
#include "exfat_layout.h"
#include "exfat_set.h"
#include "exfat_upcase.h"
#include "usb_files_program.h"
#include "usb_varying.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    SIZE = 1 << 20,
    BUDGET = 4 << 10, /* bytes kept of a volume: a few folders are too much */
    BOOT_SUMS = 1,
    SET_SUMS = 2,
    UPCASE_SUM = 4,
    LARGE_SECTORS = 8,
    CLUSTER = 4096,
    PROGRAM = 0xFFFF,
    DEPTH_MOST = 3,
    NAMES_MOST = 24,
    EXTENTS = 16,
};

static uint8_t *formatted[2]; /* once each: small sectors, large ones */

static struct medium *open_medium(struct recorder *recorder)
{
    struct medium_options options = {.cache_size = 1};
    struct medium *medium = NULL;
    if (medium_open(recorder_device(recorder), &options, &medium, NULL) != 0)
        abort();
    return medium;
}

static const uint8_t *formatted_once(uint32_t sector_size)
{
    uint8_t **made = &formatted[sector_size == 4096];
    struct format_options options = {.kind = VOLUME_EXFAT, .label = "fuzz", .id = 1};
    if (*made)
        return *made;
    struct recorder *recorder = recorder_create(sector_size, SIZE / sector_size);
    struct medium *medium = open_medium(recorder);
    if (exfat_format(medium, &options, NULL) != 0 || medium_close(medium, NULL) != 0)
        abort();
    *made = malloc(SIZE);
    memcpy(*made, recorder_disk(recorder), SIZE);
    recorder_destroy(recorder);
    return *made;
}

static struct {
    const uint8_t *data;
    size_t size;
} program;

static void fill(uint8_t *disk, const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t at = (size_t)get_le16(data) * 32, length = get_le16(data + 2);
        data += 4;
        size -= 4;
        length = length < size ? length : size;
        if (at == PROGRAM * 32) {
            program.data = data;
            program.size = length;
        } else if (at == VARYING * 32)
            varying = (struct varying){data, length};
        else if (at < SIZE)
            memcpy(disk + at, data, length < SIZE - at ? length : SIZE - at);
        data += length;
        size -= length;
    }
}

static void make_boot_right(uint8_t *disk, uint32_t sector_size)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 11 * sector_size; i++)
        if (i != 106 && i != 107 && i != 112)
            sum = (sum << 31 | sum >> 1) + disk[i];
    for (uint32_t i = 0; i < sector_size; i += 4)
        put_le32(disk + 11 * sector_size + i, sum);
}

/* Where a cluster begins as the boot sector says; SIZE: not on the volume. */
static uint64_t cluster_at(const uint8_t *disk, uint32_t sector_size, uint32_t cluster)
{
    uint64_t at = (uint64_t)get_le32(disk + 88) * sector_size + ((uint64_t)cluster - 2) * CLUSTER;
    return cluster >= 2 && at <= SIZE - CLUSTER ? at : SIZE;
}

/* The table is where its entry says, without regard to a chain. */
static void make_upcase_right(uint8_t *disk, uint32_t sector_size, uint8_t *root)
{
    for (uint8_t *entry = root; entry < root + CLUSTER; entry += EXFAT_ENTRY) {
        uint64_t at = cluster_at(disk, sector_size, get_le32(entry + 20));
        uint64_t size = get_le64(entry + 24);
        if (entry[0] == EXFAT_UPCASE && at < SIZE && size <= SIZE - at)
            put_le32(entry + 4, exfat_upcase_sum(disk + at, size));
    }
}

static void make_sets_right(uint8_t *root, size_t entries)
{
    for (size_t i = 0; i < entries; i++) {
        uint8_t *entry = root + i * EXFAT_ENTRY;
        unsigned count = exfat_set_count(entry);
        if (count && count <= entries - i)
            put_le16(entry + 2, exfat_set_sum(entry, count));
    }
}

struct counts {
    int all, repaired;
};

static void note(const struct finding *finding, void *data)
{
    struct counts *counts = data;
    counts->all++;
    counts->repaired += finding->repaired;
}

static int check(struct recorder *recorder, bool repair, struct counts *counts)
{
    struct check_options options = {.repair = repair};
    struct medium *medium = open_medium(recorder);
    *counts = (struct counts){0};
    int r = exfat_check(medium, &options, note, counts, NULL);
    if (medium_close(medium, NULL) != 0)
        abort();
    return r;
}

/* A walk from a folder down, over a few names of each. */

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
    int count = exfat_ops.map(volume, file, 0, UINT64_MAX, extents, EXTENTS, NULL);
    for (int i = 0; i < count; i++)
        if (extents[i].offset != EXTENT_ZEROS &&
            medium_read(volume->medium, extents[i].offset, bytes,
                        extents[i].length < sizeof(bytes) ? extents[i].length : sizeof(bytes),
                        NULL) != 0)
            abort(); /* it is beyond the medium */
}

static void walk(struct volume *volume, struct node *folder, unsigned depth)
{
    struct names *names = calloc(1, sizeof(*names));
    exfat_ops.read_folder(volume, folder, 0, take_name, names, NULL);
    for (unsigned i = 0; i < names->count; i++) {
        struct node *node;
        struct node_facts facts;
        if (exfat_ops.lookup(volume, folder, names->names[i], &node, NULL) != 0)
            continue;
        int r = exfat_ops.node_facts(volume, node, &facts, NULL);
        if (r == 0 && facts.type == NODE_FILE)
            read_some(volume, node);
        else if (depth < DEPTH_MOST)
            walk(volume, node, depth + 1);
        exfat_ops.node_drop(volume, node, 1);
    }
    free(names);
}

/* Whatever comes of it: what may not be is refused. */
static void change(struct volume *volume, const char *some)
{
    struct node *root = exfat_ops.root(volume), *folder, *file;
    struct node_facts facts = {.size = 20000};
    if (exfat_ops.create(volume, root, "made", NODE_FOLDER, &folder, NULL) != 0)
        return;
    if (exfat_ops.create(volume, folder, "file", NODE_FILE, &file, NULL) == 0) {
        if (exfat_ops.reserve(volume, file, 5000, 3000, NULL) == 0)
            exfat_ops.wrote(volume, file, 5000, 3000, false, NULL);
        exfat_ops.node_set(volume, file, NODE_SIZE, &facts, NULL);
        exfat_ops.node_drop(volume, file, 1);
    }
    exfat_ops.rename(volume, root, some, folder, "a name that is longer than another", true, NULL);
    exfat_ops.rename(volume, folder, "file", root, some, true, NULL);
    exfat_ops.set_label(volume, "changed", NULL);
    exfat_ops.remove(volume, root, some, NODE_FILE, NULL);
    exfat_ops.node_drop(volume, folder, 1);
}

static int64_t met(int64_t r)
{
    return r;
}

static void first_name(struct volume *volume, char *ret_name)
{
    struct names *names = calloc(1, sizeof(*names));
    exfat_ops.read_folder(volume, exfat_ops.root(volume), 0, take_name, names, NULL);
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
    if (exfat_ops.mount(medium, &options, &volume, NULL) == 0) {
        exfat_ops.facts(volume, &facts, NULL);
        walk(volume, exfat_ops.root(volume), 0);
        first_name(volume, name);
        change(volume, name);
        run_program(volume, program.data, program.size, met);
        walk(volume, exfat_ops.root(volume), 0);
        exfat_ops.unmount(volume, NULL);
    }
    budget_set(0);
    if (medium_close(medium, NULL) != 0)
        abort();
}

/* On a copy. */
static void use_copy(const uint8_t *disk, uint32_t sector_size)
{
    struct recorder *recorder = recorder_create(sector_size, SIZE / sector_size);
    struct counts before, after;
    memcpy(recorder_disk(recorder), disk, SIZE);
    make_varying(recorder);
    bool sound = check(recorder, false, &before) == 0;
    use(recorder);
    if (sound && varying.size == 0 && check(recorder, false, &after) != 0)
        abort();
    recorder_destroy(recorder);
}

static void make_sums_right(uint8_t *disk, uint32_t sector_size, uint8_t kept)
{
    uint64_t root = cluster_at(disk, sector_size, get_le32(disk + 96));
    if (!(kept & BOOT_SUMS))
        make_boot_right(disk, sector_size);
    if (!(kept & SET_SUMS) && root < SIZE)
        make_sets_right(disk + root, CLUSTER / EXFAT_ENTRY);
    if (!(kept & UPCASE_SUM) && root < SIZE)
        make_upcase_right(disk, sector_size, disk + root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct counts first, second;
    if (size == 0)
        return 0;
    uint32_t sector_size = data[0] & LARGE_SECTORS ? 4096 : 512;
    struct recorder *recorder = recorder_create(sector_size, SIZE / sector_size);
    uint8_t *disk = recorder_disk(recorder);
    memcpy(disk, formatted_once(sector_size), SIZE);
    program.size = varying.size = 0;
    fill(disk, data + 1, size - 1);
    make_sums_right(disk, sector_size, data[0]);
    use_copy(disk, sector_size);
    make_varying(recorder);
    int r = check(recorder, true, &first);
    if (r >= 0 && check(recorder, false, &second) != second.all && varying.size == 0)
        abort();
    if (r >= 0 && varying.size == 0 && second.all > first.all - first.repaired)
        abort();
    recorder_destroy(recorder);
    return 0;
}
