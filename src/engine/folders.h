/*
 * Folders of the machine that a container binds: made where they are missing, as docker does for
 * -v. The paths may lead to a network or FUSE file system that never answers, so a child of ours
 * touches them, and it is killed when it takes too long.
 */
#ifndef ENGINE_FOLDERS_H
#define ENGINE_FOLDERS_H

#include "internal.h"

typedef void (*folders_done)(const struct error *err, void *data);

/* done is called once, later; err is NULL when every source of a bind is there. */
int folders_make(struct container *container, folders_done done, void *data, struct error *err);

#endif
