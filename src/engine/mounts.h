/*
 * What a container has mounted in its root, for workers that look at the files of one that does not
 * run.
 */
#ifndef ENGINE_MOUNTS_H
#define ENGINE_MOUNTS_H

#include <schema/image_worker.h>

#include "internal.h"

/* Sets tree->read_only and fills tree->mounts, parents first. Volumes with options have to be
 * mounted (volume_mount.h). */
void mounts_fill_tree(const struct container *container, struct image_worker_tree *tree);
/* Releases what mounts_fill_tree() put there. */
void mounts_clear_tree(struct image_worker_tree *tree);

#endif
