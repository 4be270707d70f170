#include "exfat_world.h"

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

#include "exfat.h"
#include "exfat_check.h"
#include "exfat_format.h"

enum { PIECE = 8, EXTENTS = 4 };

static void open_medium(struct world *world)
{
    struct medium_options options = {0};
    assert_int_equal(medium_open(recorder_device(world->recorder), &options, &world->medium, NULL),
                     0);
}

struct world world_make(uint32_t sector_size, uint64_t sectors, uint32_t cluster_size)
{
    struct world world = {.recorder = recorder_create(sector_size, sectors)};
    struct format_options format = {
        .kind = VOLUME_EXFAT, .label = "world", .id = 7, .cluster_size = cluster_size};
    open_medium(&world);
    assert_int_equal(exfat_format(world.medium, &format, NULL), 0);
    assert_int_equal(medium_close(world.medium, NULL), 0);
    return world;
}

struct world world_of(const uint8_t *disk, uint32_t sector_size, uint64_t sectors)
{
    struct world world = {.recorder = recorder_create(sector_size, sectors)};
    memcpy(recorder_disk(world.recorder), disk, sectors * sector_size);
    return world;
}

void world_mount(struct world *world)
{
    struct volume_options options = {.minutes_east = 60};
    struct error err = ERROR_INIT;
    open_medium(world);
    int r = exfat_ops.mount(world->medium, &options, &world->volume, &err);
    if (r != 0)
        fail_msg("mount: %s", error_message(&err));
}

void world_unmount(struct world *world)
{
    struct error err = ERROR_INIT;
    if (exfat_ops.unmount(world->volume, &err) != 0)
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
    if (exfat_check(world->medium, &options, note, text, &err) < 0)
        snprintf(text, sizeof(text), "%s", error_message(&err));
    error_finish(&err);
    assert_int_equal(medium_close(world->medium, NULL), 0);
    return text;
}

void world_fsck(struct world *world)
{
    char path[] = "/tmp/cloche-exfat-XXXXXX", command[200], line[300], said[4000] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, recorder_disk(world->recorder), recorder_size(world->recorder)),
                     recorder_size(world->recorder));
    close(fd);
    snprintf(command, sizeof(command), "fsck.exfat -n %s 2>&1", path);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    while (fgets(line, sizeof(line), output))
        if (strlen(said) + strlen(line) < sizeof(said))
            strcat(said, line);
    int status = pclose(output);
    unlink(path);
    if (status != 0 || !strstr(said, ": clean"))
        fail_msg("fsck.exfat: %d: %s", status, said);
}

/* Paths. */

void world_drop(struct world *world, struct node *node)
{
    if (node != exfat_ops.root(world->volume))
        exfat_ops.node_drop(world->volume, node, 1);
}

static int look(struct world *world, const char *path, const char *end, struct node **ret_node)
{
    struct node *node = exfat_ops.root(world->volume);
    while (path < end && *path) {
        char name[VOLUME_NAME_MAX + 1];
        size_t length = strcspn(++path, "/");
        struct node *next;
        if (length == 0)
            break;
        memcpy(name, path, length);
        name[length] = '\0';
        int r = exfat_ops.lookup(world->volume, node, name, &next, NULL);
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
    r = exfat_ops.create(world->volume, folder, name, type, &node, NULL);
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
    r = exfat_ops.remove(world->volume, folder, name, type, NULL);
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
        r = exfat_ops.rename(world->volume, folder, name, new_folder, new_name, replace, NULL);
        world_drop(world, new_folder);
    }
    world_drop(world, folder);
    return r;
}

int world_truncate(struct world *world, const char *path, uint64_t size)
{
    struct node *node;
    struct node_facts facts = {.size = size};
    int r = world_look(world, path, &node);
    if (r != 0)
        return r;
    r = exfat_ops.node_set(world->volume, node, NODE_SIZE, &facts, NULL);
    world_drop(world, node);
    return r;
}

/* Content. */

int node_write(struct world *world, struct node *node, uint64_t offset, const void *data,
               size_t size)
{
    const uint8_t *from = data;
    int r = exfat_ops.reserve(world->volume, node, offset, size, NULL);
    for (size_t done = 0; r == 0 && done < size;) {
        struct extent extents[EXTENTS];
        int count =
            exfat_ops.map(world->volume, node, offset + done, size - done, extents, EXTENTS, NULL);
        assert_true(count > 0);
        for (int i = 0; r == 0 && i < count; i++) {
            assert_true(extents[i].offset != EXTENT_ZEROS);
            r = medium_write_content(world->medium, extents[i].offset, from + done,
                                     extents[i].length, NULL);
            done += extents[i].length;
        }
    }
    return r == 0 ? exfat_ops.wrote(world->volume, node, offset, size, NULL) : r;
}

int64_t node_read(struct world *world, struct node *node, uint64_t offset, void *data, size_t size)
{
    size_t done = 0;
    int count;
    do {
        struct extent extents[EXTENTS];
        count =
            exfat_ops.map(world->volume, node, offset + done, size - done, extents, EXTENTS, NULL);
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
    assert_int_equal(exfat_ops.node_facts(world->volume, node, &facts, NULL), 0);
    world_drop(world, node);
    bool folder = facts.type == NODE_FOLDER;
    *lines = xrealloc(*lines, *count + 1, sizeof(char *));
    (*lines)[(*count)++] = folder ? xasprintf("%s/\n", path)
                                  : xasprintf("%s %llu %u\n", path, (unsigned long long)facts.size,
                                              sum_of(world, path, facts.size));
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
        assert_int_equal(
            exfat_ops.read_folder(world->volume, node, listing->cookie, take_name, listing, NULL),
            0);
        world_drop(world, node);
        for (unsigned i = 0; i < listing->count; i++) {
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
    list_folder(world, "", &lines, &count);
    if (count > 0)
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
