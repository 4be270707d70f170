/*
 * The volumes of a new container: those it names and those that are made for it, and what its image
 * has in their places.
 *
 *     volumes_add_image's    disk thread: VOLUMEs of the image become mounts
 *     volume_plan_make       loop: names, the table
 *     volume_plan_run        disk thread: folders and records
 *     volume_plan_fill       loop: a worker copies (docker's copy-up), beside the volumes' files
 *     volume_plan_flush      errand: what it copied is on the disk
 *     volume_plan_settle     disk thread: what it copied becomes theirs (volume_fresh.h)
 *     volume_plan_finish     loop
 */
#ifndef ENGINE_VOLUME_FILL_H
#define ENGINE_VOLUME_FILL_H

#include "internal.h"
#include "task.h"
#include "volumes.h"

struct volume_plan {
    struct volume_making *makings;
    size_t makings_count;
    char **pinned; /* names of all its volumes */
    char **added;  /* of those that are new */
    struct image_worker_populate_copy **copies;
    size_t copies_count;
    bool made; /* folders and records are there */
};

/* Those whose place nothing else takes. */
void volumes_add_images(struct api_container_spec *effective, const struct oci_image_set *volumes);

bool volumes_needed(const struct api_container_spec *effective);

/* Everything that effective->volumes_from and mounts of type volume say: afterwards each of these
 * has the name of a volume, which stays in the table until volume_plan_finish(). */
int volume_plan_make(struct container *container, struct volume_plan *plan, struct error *err);
/* Takes the copies out of the plan whose volume has something already. */
int volume_plan_run(struct volume_plan *plan, const struct engine *engine, struct error *err);
/* rootfs_fd: its mounted root, which stays the caller's. Only where copies_count is not 0. */
int volume_plan_fill(struct container *container, const struct volume_plan *plan, int rootfs_fd,
                     task_done done, void *data, struct error *err);
/* The whole file system, once for all of them: blocks for as long as its disk takes. Any thread. */
int volume_plan_flush(const struct engine *engine, struct error *err);
int volume_plan_settle(const struct volume_plan *plan, const struct engine *engine,
                       struct error *err);
/* In its place when something failed. Blocks, too. */
void volume_plan_discard(const struct volume_plan *plan, const struct engine *engine);
/* failed: what was made up for the container goes again. */
void volume_plan_finish(struct engine *engine, struct volume_plan *plan, bool failed);

#endif
