/*
 * Paths that a client names in a tree: as docker reads them, and resolved inside of the tree only.
 */
#ifndef IMAGE_PATH_H
#define IMAGE_PATH_H

#include <stdbool.h>
#include <sys/stat.h>

#include <base/error.h>
#include <schema/image_worker.h>

/* Where a path leads. */
struct place {
    char *path;         /* clean, without slashes at its ends; "" is the root */
    const char *name;   /* what it is called: its last component; "." of PATH/., "/" of the root */
    int parent_fd;      /* -1: the place is the root, or its end was followed */
    int fd;             /* O_PATH; the place itself */
    struct stat status; /* of it */
};

/* Links are followed inside root_fd, but not at the end, unless the path ends in / or /. there:
 * that must be a folder. -ENOENT, -ENOTDIR. */
int place_find(int root_fd, const char *path, struct place *ret, struct error *err);
void place_finish(struct place *place);
#define _cleanup_place_ _cleanup_(place_finish)

/* Removes "//", "." and ".." (which stays in the root) by words alone. Owned. */
char *path_clean(const char *path);

/* The answer to `stat`. Owned. */
struct image_worker_path_stat *place_describe(int root_fd, const struct place *place);

#endif
