/*
 * Paths of the machine that a container names: folders to bind, which are made where they are
 * missing, as docker does for -v, and devices. They may lead to a network or FUSE file system that
 * never answers, so a child of ours touches them, and it is killed when it takes too long.
 */
#ifndef ENGINE_LOOK_H
#define ENGINE_LOOK_H

#include "bundle.h"
#include "internal.h"

enum { LOOK_DEVICES_MAX = 4096 }; /* that one container can have */

/* What was found. */
struct look {
    struct bundle_device *devices; /* paths and access are owned */
    size_t devices_count;
    struct bundle_limit *limits;
    size_t limits_count;
};

void look_finish(struct look *look);

/* Whether there is something to look at at all, and something that config.json has to say. */
bool look_needed(const struct api_container_spec *effective);
bool look_finds(const struct api_container_spec *effective);

/* err is NULL when all of it is there; found may be emptied (look_finish() otherwise follows). */
typedef void (*look_done)(const struct error *err, struct look *found, void *data);

/* Whether a mount asks for a source that must be there already (--mount does, -v does not). */
bool look_wants_sources(const struct api_container_spec *spec);

/* done is called once, later; not when this fails. The specification must stay until then. */
int look_start(struct engine *engine, const struct api_container_spec *effective, look_done done,
               void *data, struct error *err);
/* Only whether such sources are there. */
int look_for_sources(struct engine *engine, const struct api_container_spec *spec, look_done done,
                     void *data, struct error *err);

/* Whether it has volumes with options, and only these, which are mounted. */
bool look_wants_volumes(const struct api_container_spec *effective);
int look_for_volumes(struct engine *engine, const struct api_container_spec *effective,
                     look_done done, void *data, struct error *err);

#endif
