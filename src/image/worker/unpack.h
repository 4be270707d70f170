/*
 * One layer's entries become files under a root, in overlayfs' userxattr format: whiteouts are
 * character devices 0/0, opaque folders carry user.overlay.opaque.
 */
#ifndef IMAGE_UNPACK_H
#define IMAGE_UNPACK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include <base/error.h>

#include "table.h"
#include "tar.h"

/* How `cp` wants it, in place of what layers want: names are as they are, whiteouts are none.
 * Nothing is owned. */
struct unpack_rules {
    const char *base; /* clean path in the root, of the folder that gets it all; "" is the root */
    bool keep_kind;   /* a folder and something else do not replace each other */
    bool keep_owner;  /* files belong to whoever unpacks them */
    bool given_owner; /* they belong to uid and gid */
    uid_t uid;
    gid_t gid;
};

struct folder_time {
    char *path;
    struct timespec time;
};

struct unpack {
    int root_fd;                      /* not owned */
    const struct unpack_rules *rules; /* not owned; NULL: a layer */
    uint64_t entries;
    uint64_t bytes;    /* of regular files */
    char *parent_path; /* of the last entry, and its descriptor: most entries share it */
    int parent_fd;
    char **implicit; /* folders that had no entry when they were needed; NULL: it came later */
    size_t implicit_count;
    struct table implicit_places;
    struct folder_time *times; /* set at the end, since filling a folder changes them */
    size_t times_count;
    struct table times_places;
};

void unpack_init(struct unpack *unpack, int root_fd);
/* Takes one entry and its data. Errors name the entry. */
int unpack_entry(struct unpack *unpack, struct tar *tar, struct archive_entry *entry,
                 struct error *err);
/* After the last entry. */
int unpack_complete(struct unpack *unpack, struct error *err);
void unpack_finish(struct unpack *unpack);

#endif
