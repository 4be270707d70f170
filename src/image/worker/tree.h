/*
 * The files of a container as the root of the jailed process: nothing else is there for a link or
 * ".." to lead to, whatever the container makes of its own paths in the meantime (CVE-2018-15664,
 * CVE-2019-14271).
 *
 * A running container's files are a copy of its mounts, taken in its mount namespace: with its
 * volumes, binds and tmpfs, without /proc, /sys and /dev. Those of one that does not run are its
 * mounted root and, mounted into it here, what it would find there when it ran.
 */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include <base/error.h>
#include <schema/image_worker.h>

struct tree_mounts {
    const struct image_worker_tree *tree;
    bool writable;
    int root_fd;    /* detached mount */
    int *mount_fds; /* of tree->mounts; -1: the source is not there */
};

/* While the machine's paths are there. mounts->tree and writable are set by the caller. */
int tree_take(struct tree_mounts *mounts, struct error *err);

/* In a mount namespace of its own: makes it the root. IMAGE_FD_TREE becomes a descriptor of it. */
int tree_enter(struct tree_mounts *mounts, struct error *err);

/* Becomes the root of the container's users, of IMAGE_FD_USERS: what the machine's root may do with
 * files that belong to others than them, it may not. */
int tree_enter_users(struct error *err);

#endif
