/*
 * Volumes: folders of ours that outlive containers.
 *
 *     ROOT/volumes/NAME/_data    the files
 *     state.db                   a record each
 *
 * A folder without a record becomes a volume again when the daemon starts (the record is committed
 * without a flush; what is in a volume is not ours to delete). One that is being removed is renamed
 * to .gone-RANDOM-NAME first; a daemon that finds that folder finishes what the name says. A record
 * without a folder gets an empty one.
 *
 * The table is the loop's; a struct volume is valid until control returns to the loop.
 */
#ifndef ENGINE_VOLUMES_H
#define ENGINE_VOLUMES_H

#include "internal.h"

enum { VOLUMES_MAX = 10000, VOLUME_NAME_MAX = 255, VOLUME_NAME_DIGITS = 64 };

struct volume {
    struct engine *engine;
    char *name;
    struct record_volume *record;
    unsigned pins; /* creations under way that will use it */
    bool removing;
    bool unreadable;        /* its record, which stays as it is */
    struct volume_use *use; /* of one with options: who has it mounted (volume_mount.h) */
};

/* Owned; not longer than a file name may be, at the cost of NAME's end. */
char *volume_gone_name(const char *name);

int volumes_migrate(struct store_db *db, struct error *err);
/* Fills the table. Blocks; before the loop runs. */
int volumes_load(struct engine *engine, struct error *err);
void volumes_free(struct engine *engine);

struct volume *volume_find(struct engine *engine, const char *name); /* NULL: none */
/* Finds it or adds it to the table; its folder and record are volume_make()'s. name NULL or "": one
 * is made up. Labels and options are copied, and count only for a new one. */
int volume_add(struct engine *engine, const char *name, const char *driver,
               const struct json_string_map *options, const struct json_string_map *labels,
               struct volume **ret, bool *ret_new, struct error *err);
/* Out of the table again. */
void volume_drop(struct volume *volume);

/* What the disk thread needs to make it: owned copies. */
struct volume_making {
    const struct store *store;
    struct store_db *db;
    char *folder, *name, *record;
};
void volume_making_init(struct volume_making *making, const struct volume *volume);
int volume_make(const struct volume_making *making, struct error *err);
void volume_making_finish(struct volume_making *making);

/* Containers that have it. */
size_t volume_references(const struct volume *volume);
bool container_has_volume(const struct container *container, const char *name);

/* ROOT/volumes, ROOT/volumes/NAME/_data; owned. */
char *volumes_folder(const struct engine *engine);
char *volume_path(const struct engine *engine, const char *name);

/* The anonymous ones of this list that no container has, some time soon. */
void volumes_remove_unused(struct engine *engine, char *const *names);
/* Names of the anonymous volumes of a container; owned. */
char **volumes_anonymous(const struct container *container);

/* Bytes of the files below fd, which is taken over; what has several names counts once. Blocks. */
uint64_t folder_usage(int fd);

struct api_volume *volume_describe(const struct volume *volume);

#endif
