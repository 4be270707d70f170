/* A volume on a recorder, for tests: files by their path, content by map, reserve and wrote, and
 * what fsck.fat or fsck.exfat says of it. */
#ifndef TESTS_USB_VOLUME_WORLD_H
#define TESTS_USB_VOLUME_WORLD_H

#include <files/volume.h>

#include "recorder.h"

struct world {
    enum volume_kind kind;
    struct recorder *recorder;
    struct medium *medium;
    struct volume *volume;
    bool discard; /* when it is mounted */
};

/* FAT32 of fewer than 65535 sectors: clusters of a sector. */
struct world world_make(enum volume_kind kind, uint32_t sector_size, uint64_t sectors,
                        uint32_t cluster_size);
struct world world_of(enum volume_kind kind, const uint8_t *disk, uint32_t sector_size,
                      uint64_t sectors);
void world_mount(struct world *world);   /* opens the medium, too */
void world_unmount(struct world *world); /* and closes it */
void world_finish(struct world *world);

/* Of what our check finds without repairing, as text, "" for nothing. Not mounted. */
const char *world_findings(struct world *world);
/* Asserts that the checker of others, which repairs nothing, finds nothing. */
void world_fsck(struct world *world);

/* By path: "/", "/a/b". Errors come back. */
int world_look(struct world *world, const char *path, struct node **ret_node);
int world_create(struct world *world, const char *path, enum node_type type);
int world_remove(struct world *world, const char *path, enum node_type type);
int world_rename(struct world *world, const char *from, const char *to, bool replace);
int world_truncate(struct world *world, const char *path, uint64_t size);
int world_set(struct world *world, const char *path, unsigned changes,
              const struct node_facts *facts);
int world_write(struct world *world, const char *path, uint64_t offset, const void *data,
                size_t size);
int64_t world_read(struct world *world, const char *path, uint64_t offset, void *data, size_t size);
int node_write(struct world *world, struct node *node, uint64_t offset, const void *data,
               size_t size);
int64_t node_read(struct world *world, struct node *node, uint64_t offset, void *data, size_t size);
void world_drop(struct world *world, struct node *node);

/* Everything there is, one line each: path, size, sum of the content, attributes, and the time of
 * change where that was set to one before 2001; the label. What was removed and
 * is still being freed is not there. Owned. */
char *world_list(struct world *world);

#endif
