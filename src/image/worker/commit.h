/*
 * A layer in the making, as a tar: what a commit of one folder (commit.c) and of several layers
 * that become one (merge.c) have in common.
 */
#ifndef IMAGE_COMMIT_H
#define IMAGE_COMMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <base/error.h>
#include <schema/image_worker.h>

#include "entry.h"
#include "write.h"

struct follow;

struct commit {
    struct tar_sink sink; /* first: the sink is the commit */
    int blob_fd;
    int source_fd;             /* the folder; with merged: that of all layers */
    uint64_t written, flushed; /* bytes of the blob */
    struct follow *follow;
    struct entries entries;
    bool own;                                 /* mount points of the runtime belong to it, too */
    const struct image_worker_merged *merged; /* NULL: it is one folder */
};

/* An empty regular file, as whiteouts are in layers. */
int commit_write_mark(struct commit *commit, const char *folder, const char *prefix,
                      const char *name, struct error *err);
/* Whatever is no folder; status is that of folder_fd/name. What has vanished is left out. */
int commit_write_file(struct commit *commit, int folder_fd, const char *name, const char *path,
                      const struct stat *status, struct error *err);
/* The entry of the folder alone, with the mark that it hides those below. path "": the root. */
int commit_write_folder(struct commit *commit, int fd, const char *path, bool opaque,
                        struct error *err);

/* merge.c: all entries of the layers merged->layers in layers_fd, as one layer. */
int merge_write(struct commit *commit, int layers_fd, const struct image_worker_merged *merged,
                struct error *err);

#endif
