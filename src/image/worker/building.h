/*
 * What a build needs of the worker: the context, and COPY and ADD.
 */
#ifndef IMAGE_BUILDING_H
#define IMAGE_BUILDING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include <base/error.h>
#include <schema/build.h>

#include "table.h"

/* --- sources.c: what a COPY means ----------------------------------------------------------------
 */

struct sources {
    char **paths; /* owned; in the source folder, clean, relative; "." is the folder itself */
    size_t count;
};

/* Wildcards are expanded, sorted. -ENOENT: one of them is nothing; -EPERM: it leads out of the
 * context. in_context: the source folder is one, which is for the words of the messages. */
int sources_find(int source_fd, const struct build_copy *copy, bool in_context, struct sources *ret,
                 struct error *err);
void sources_finish(struct sources *sources);
/* Opens one, following links in the source folder: O_PATH; the caller's. */
int source_open(int source_fd, const char *path, struct stat *ret_status, struct error *err);

/* --- sum.c
 * ---------------------------------------------------------------------------------------- */

/* sha256:HEX over names, kinds, modes, contents, and owners where with_owners; never over times. */
int sources_digest(int source_fd, const struct sources *sources, const struct build_copy *copy,
                   bool with_owners, char ret[72], struct error *err);

/* --- owner.c
 * -------------------------------------------------------------------------------------- */

struct owner {
    uid_t uid;
    gid_t gid;
};

/* docker's --chown: user[:group], numbers or names of the root's own files. Without a group, the
 * group of the user's name. */
int owner_find(int root_fd, const char *text, struct owner *ret, struct error *err);

/* --- transfer.c: files from one root into another
 * ------------------------------------------------- */

struct copied_link {
    dev_t device;
    ino_t inode;
    char *path; /* in the target; owned */
    ino_t made; /* inode there: another file may take its place */
    dev_t made_device;
};

struct transfer {
    int target_fd;             /* the root that is copied into; not owned */
    const struct owner *owner; /* NULL: they keep theirs */
    const mode_t *mode;        /* NULL: they keep theirs */
    struct copied_link *links;
    size_t links_count;
    struct table links_places; /* by the source's file */
    uint64_t bytes;
};

void transfer_finish(struct transfer *transfer);

/* Makes the folder and those above it where they are missing, mode 0755. Those that are made belong
 * to owner (NULL: 0:0); ret_made: whether the last one was. Links in the path are followed inside
 * of the root. */
int transfer_make_folder(struct transfer *transfer, const char *path, const struct owner *owner,
                         bool *ret_made, struct error *err);
/* What is in the folder goes into the folder `to`, which exists. */
int transfer_folder(struct transfer *transfer, int folder_fd, const char *to, struct error *err);
/* One that is no folder, open for reading, or a text, becomes the file `to`, whose folder exists.
 */
int transfer_file(struct transfer *transfer, int from, const char *to, struct error *err);
int transfer_text(struct transfer *transfer, const char *text, const char *to, struct error *err);
/* The path with all links in it followed inside of the root, also where its end does not exist.
 * *ret is owned: absolute, without links. */
int transfer_resolve(const struct transfer *transfer, const char *path, char **ret,
                     struct error *err);

/* --- add.c
 * ---------------------------------------------------------------------------------------- */

/* Whether the file (open for reading) is a tar, also a compressed one. It stands at its start then.
 */
bool archive_is(int fd);
int archive_unpack(int fd, int folder_fd, struct error *err);

#endif
