#include "volume_world.h"

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

#include <block/bytes.h>

#include "fat_layout.h"

enum { PIECE = 8, EXTENTS = 4, SMALL_RESERVED = 8, SHOWN_MOST = 1000000000 };

static void open_medium(struct world *world)
{
    struct medium_options options = {0};
    assert_int_equal(medium_open(recorder_device(world->recorder), &options, &world->medium, NULL),
                     0);
}

/* FAT32 with fewer clusters than anybody formats it with, one sector each: a cut of it is quick. */
static void make_small_fat32(uint8_t *disk, uint32_t sector_size, uint64_t sectors)
{
    uint32_t table = (uint32_t)((sectors + 2) * 4 + sector_size - 1) / sector_size;
    memset(disk, 0, sectors * sector_size);
    memcpy(disk, "\xEB\x58\x90TESTTEST", 11);
    put_le16(disk + BOOT_SECTOR_SIZE, (uint16_t)sector_size);
    disk[BOOT_CLUSTER_SECTORS] = 1;
    put_le16(disk + BOOT_RESERVED, SMALL_RESERVED);
    disk[BOOT_TABLES] = 2;
    put_le16(disk + BOOT_SECTORS_16, (uint16_t)sectors);
    disk[BOOT_MEDIA] = 0xF8;
    put_le32(disk + BOOT_TABLE_SECTORS_32, table);
    put_le32(disk + BOOT_ROOT_CLUSTER, 2);
    put_le16(disk + BOOT_INFO, FAT_INFO_SECTOR);
    put_le16(disk + BOOT_BACKUP, FAT_BACKUP_SECTOR);
    put_le16(disk + BOOT_SIGNATURE, 0xAA55);
    disk[66] = 0x29; /* a serial number and a label follow */
    memcpy(disk + 71, "NO NAME    FAT32   ", 19);
    fat_info_make((uint32_t)sectors - SMALL_RESERVED - 2 * table - 1, 2,
                  disk + (size_t)FAT_INFO_SECTOR * sector_size);
    memcpy(disk + (size_t)FAT_BACKUP_SECTOR * sector_size, disk, sector_size);
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t *at = disk + (size_t)(SMALL_RESERVED + i * table) * sector_size;
        memcpy(at, "\xF8\xFF\xFF\x0F\xFF\xFF\xFF\x0F\xFF\xFF\xFF\x0F", 12);
    }
}

struct world world_make(enum volume_kind kind, uint32_t sector_size, uint64_t sectors,
                        uint32_t cluster_size)
{
    struct world world = {.kind = kind, .recorder = recorder_create(sector_size, sectors)};
    struct format_options format = {
        .kind = kind, .label = "WORLD", .id = 7, .cluster_size = cluster_size};
    if (kind == VOLUME_FAT32 && sectors < UINT16_MAX) {
        make_small_fat32(recorder_disk(world.recorder), sector_size, sectors);
        return world;
    }
    open_medium(&world);
    assert_int_equal(volume_format(world.medium, &format, NULL), 0);
    assert_int_equal(medium_close(world.medium, NULL), 0);
    return world;
}

struct world world_of(enum volume_kind kind, const uint8_t *disk, uint32_t sector_size,
                      uint64_t sectors)
{
    struct world world = {.kind = kind, .recorder = recorder_create(sector_size, sectors)};
    memcpy(recorder_disk(world.recorder), disk, sectors * sector_size);
    return world;
}

void world_mount(struct world *world)
{
    struct volume_options options = {.minutes_east = 60, .discard = world->discard};
    struct error err = ERROR_INIT;
    open_medium(world);
    int r = volume_mount(world->medium, &options, &world->volume, &err);
    if (r != 0)
        fail_msg("mount: %s", error_message(&err));
}

void world_unmount(struct world *world)
{
    struct error err = ERROR_INIT;
    if (world->volume->ops->unmount(world->volume, &err) != 0)
        fail_msg("unmount: %s", error_message(&err));
    assert_int_equal(medium_close(world->medium, NULL), 0);
    world->volume = NULL;
}

void world_finish(struct world *world)
{
    if (world->volume)
        world_unmount(world);
    recorder_destroy(world->recorder);
}

static void note(const struct finding *finding, void *data)
{
    char *text = data;
    size_t length = strlen(text);
    snprintf(text + length, 2000 - length, "%s\n", finding->what);
}

const char *world_findings(struct world *world)
{
    static char text[2000];
    struct check_options options = {0};
    struct error err = ERROR_INIT;
    text[0] = '\0';
    open_medium(world);
    if (volume_check(world->medium, &options, note, text, &err) < 0)
        snprintf(text, sizeof(text), "%s", error_message(&err));
    error_finish(&err);
    assert_int_equal(medium_close(world->medium, NULL), 0);
    return text;
}

/* fsck.fat finds nothing: it says its own name, how many clusters are in use, and of ours how few
 * they are. */
static bool says_clean(const struct world *world, int status, const char *said)
{
    if (world->kind == VOLUME_EXFAT)
        return status == 0 && strstr(said, ": clean");
    return status == 0 && !strstr(said, "irty bit") && strstr(said, " files, ");
}

void world_fsck(struct world *world)
{
    char path[] = "/dev/shm/cloche-world-XXXXXX", command[200], line[300], said[4000] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, recorder_disk(world->recorder), recorder_size(world->recorder)),
                     recorder_size(world->recorder));
    close(fd);
    snprintf(command, sizeof(command), "fsck.%s -n %s 2>&1",
             world->kind == VOLUME_EXFAT ? "exfat" : "fat", path);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    while (fgets(line, sizeof(line), output))
        if (strlen(said) + strlen(line) < sizeof(said))
            strcat(said, line);
    int status = pclose(output);
    unlink(path);
    if (!says_clean(world, status, said))
        fail_msg("%s: %d: %s", command, status, said);
}

/* Paths. */

void world_drop(struct world *world, struct node *node)
{
    if (node != world->volume->ops->root(world->volume))
        world->volume->ops->node_drop(world->volume, node, 1);
}

static int look(struct world *world, const char *path, const char *end, struct node **ret_node)
{
    struct node *node = world->volume->ops->root(world->volume);
    while (path < end && *path) {
        char name[VOLUME_NAME_MAX + 1];
        size_t length = strcspn(++path, "/");
        struct node *next;
        if (length == 0)
            break;
        memcpy(name, path, length);
        name[length] = '\0';
        int r = world->volume->ops->lookup(world->volume, node, name, &next, NULL);
        world_drop(world, node);
        if (r != 0)
            return r;
        node = next;
        path += length;
    }
    *ret_node = node;
    return 0;
}

int world_look(struct world *world, const char *path, struct node **ret_node)
{
    return look(world, path, path + strlen(path), ret_node);
}

static int parent_of(struct world *world, const char *path, struct node **ret_node,
                     const char **ret_name)
{
    *ret_name = strrchr(path, '/') + 1;
    return look(world, path, *ret_name - 1, ret_node);
}

int world_create(struct world *world, const char *path, enum node_type type)
{
    const char *name;
    struct node *folder, *node;
    int r = parent_of(world, path, &folder, &name);
    if (r != 0)
        return r;
    r = world->volume->ops->create(world->volume, folder, name, type, &node, NULL);
    if (r == 0)
        world_drop(world, node);
    world_drop(world, folder);
    return r;
}

int world_remove(struct world *world, const char *path, enum node_type type)
{
    const char *name;
    struct node *folder;
    int r = parent_of(world, path, &folder, &name);
    if (r != 0)
        return r;
    r = world->volume->ops->remove(world->volume, folder, name, type, NULL);
    world_drop(world, folder);
    return r;
}

int world_rename(struct world *world, const char *from, const char *to, bool replace)
{
    const char *name, *new_name;
    struct node *folder, *new_folder;
    int r = parent_of(world, from, &folder, &name);
    if (r != 0)
        return r;
    r = parent_of(world, to, &new_folder, &new_name);
    if (r == 0) {
        r = world->volume->ops->rename(world->volume, folder, name, new_folder, new_name, replace,
                                       NULL);
        world_drop(world, new_folder);
    }
    world_drop(world, folder);
    return r;
}

int world_truncate(struct world *world, const char *path, uint64_t size)
{
    return world_set(world, path, NODE_SIZE, &(struct node_facts){.size = size});
}

int world_set(struct world *world, const char *path, unsigned changes,
              const struct node_facts *facts)
{
    struct node *node;
    int r = world_look(world, path, &node);
    if (r != 0)
        return r;
    r = world->volume->ops->node_set(world->volume, node, changes, facts, NULL);
    world_drop(world, node);
    return r;
}

/* Content. */

int node_write(struct world *world, struct node *node, uint64_t offset, const void *data,
               size_t size)
{
    const uint8_t *from = data;
    int r = world->volume->ops->reserve(world->volume, node, offset, size, NULL);
    for (size_t done = 0; r == 0 && done < size;) {
        struct extent extents[EXTENTS];
        int count = world->volume->ops->map(world->volume, node, offset + done, size - done,
                                            extents, EXTENTS, NULL);
        assert_true(count > 0);
        for (int i = 0; r == 0 && i < count; i++) {
            assert_true(extents[i].offset != EXTENT_ZEROS);
            r = medium_write_content(world->medium, extents[i].offset, from + done,
                                     extents[i].length, NULL);
            done += extents[i].length;
        }
    }
    return r == 0 ? world->volume->ops->wrote(world->volume, node, offset, size, false, NULL) : r;
}

int64_t node_read(struct world *world, struct node *node, uint64_t offset, void *data, size_t size)
{
    size_t done = 0;
    int count;
    do {
        struct extent extents[EXTENTS];
        count = world->volume->ops->map(world->volume, node, offset + done, size - done, extents,
                                        EXTENTS, NULL);
        if (count < 0)
            return count;
        for (int i = 0; i < count; i++) {
            uint8_t *to = (uint8_t *)data + done;
            if (extents[i].offset == EXTENT_ZEROS)
                memset(to, 0, extents[i].length);
            else
                assert_int_equal(medium_read_content(world->medium, extents[i].offset, to,
                                                     extents[i].length, NULL),
                                 0);
            done += extents[i].length;
        }
    } while (count > 0 && done < size);
    return (int64_t)done;
}

int world_write(struct world *world, const char *path, uint64_t offset, const void *data,
                size_t size)
{
    struct node *node;
    int r = world_look(world, path, &node);
    if (r != 0)
        return r;
    r = node_write(world, node, offset, data, size);
    world_drop(world, node);
    return r;
}

int64_t world_read(struct world *world, const char *path, uint64_t offset, void *data, size_t size)
{
    struct node *node;
    int64_t r = world_look(world, path, &node);
    if (r != 0)
        return r;
    r = node_read(world, node, offset, data, size);
    world_drop(world, node);
    return r;
}

/* Listing. */

struct listing {
    struct world *world;
    char *text;
    char names[PIECE][VOLUME_NAME_MAX + 1];
    enum node_type types[PIECE];
    unsigned count;
    uint64_t cookie;
};

static bool take_name(const char *name, uint64_t number, enum node_type type, uint64_t cookie,
                      void *data)
{
    struct listing *listing = data;
    (void)number;
    if (listing->count == PIECE)
        return false;
    snprintf(listing->names[listing->count], VOLUME_NAME_MAX + 1, "%s", name);
    listing->types[listing->count++] = type;
    listing->cookie = cookie;
    return true;
}

static unsigned sum_of(struct world *world, const char *path, uint64_t size)
{
    uint8_t *data = xmalloc(size + 1);
    unsigned sum = 5381;
    assert_int_equal(world_read(world, path, 0, data, size), size);
    for (uint64_t i = 0; i < size; i++)
        sum = sum * 33 + data[i];
    free(data);
    return sum;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_folder(struct world *world, const char *path, char ***lines, size_t *count);

static void list_one(struct world *world, const char *path, char ***lines, size_t *count)
{
    struct node *node;
    struct node_facts facts;
    assert_int_equal(world_look(world, path, &node), 0);
    assert_int_equal(world->volume->ops->node_facts(world->volume, node, &facts, NULL), 0);
    world_drop(world, node);
    bool folder = facts.type == NODE_FOLDER;
    int64_t seconds = facts.modified / 1000000000;
    char more[40] = "";
    snprintf(more, sizeof(more), " %s%s %lld", facts.read_only ? "r" : "", facts.hidden ? "h" : "",
             seconds < SHOWN_MOST ? (long long)seconds : 0);
    *lines = xrealloc(*lines, *count + 1, sizeof(char *));
    (*lines)[(*count)++] = folder
                               ? xasprintf("%s/%s\n", path, more)
                               : xasprintf("%s %llu %u%s\n", path, (unsigned long long)facts.size,
                                           sum_of(world, path, facts.size), more);
    if (folder)
        list_folder(world, path, lines, count);
}

static void list_folder(struct world *world, const char *path, char ***lines, size_t *count)
{
    struct listing *listing = xnew(struct listing);
    struct node *node;
    do {
        listing->count = 0;
        assert_int_equal(world_look(world, *path ? path : "/", &node), 0);
        assert_int_equal(world->volume->ops->read_folder(world->volume, node, listing->cookie,
                                                         take_name, listing, NULL),
                         0);
        world_drop(world, node);
        for (unsigned i = 0; i < listing->count; i++) {
            if (strcmp(listing->names[i], "CLOCHE.DEL") == 0)
                continue;
            char *child = xasprintf("%s/%s", path, listing->names[i]);
            list_one(world, child, lines, count);
            free(child);
        }
    } while (listing->count == PIECE);
    free(listing);
}

char *world_list(struct world *world)
{
    char **lines = NULL, *text;
    size_t count = 0, length = 1;
    struct volume_facts facts;
    list_folder(world, "", &lines, &count);
    assert_int_equal(world->volume->ops->identity(world->volume, &facts, NULL), 0);
    lines = xrealloc(lines, count + 1, sizeof(char *));
    lines[count++] = xasprintf("label %s\n", facts.label);
    qsort(lines, count, sizeof(*lines), by_text);
    for (size_t i = 0; i < count; i++)
        length += strlen(lines[i]);
    text = xcalloc(length, 1);
    char *end = text;
    for (size_t i = 0; i < count; i++) {
        end = stpcpy(end, lines[i]);
        free(lines[i]);
    }
    free(lines);
    return text;
}
