/*
 * Files become entries of a tar: what packing the changes of a container and packing what is copied
 * out of it have in common.
 */
#ifndef IMAGE_ENTRY_H
#define IMAGE_ENTRY_H

#include <stdint.h>
#include <sys/stat.h>

#include <base/error.h>

#include "table.h"
#include "write.h"

/* Owner, mode and time (in seconds) only: names of users are this machine's. The caller's
 * (archive_entry_free()). */
struct archive_entry *entry_new(const char *path, const struct stat *status);

/* user.* and the capabilities of the open file, but not overlayfs' own notes. */
int entry_add_xattrs(struct archive_entry *entry, int fd, struct error *err);

/* Files that have several names, by their first path in the tar. */
struct entry_link;
struct entry_links {
    struct entry_link *links;
    size_t count;
    struct table places;
};
/* The path that the file already has in the tar, or NULL: then this one is noted. */
const char *entry_links_find(struct entry_links *links, const struct stat *status,
                             const char *path);
void entry_links_finish(struct entry_links *links);

enum { ENTRY_DATA_BLOCK = 256 * 1024 };
struct entry_data {
    const char *step; /* for progress */
    uint64_t bytes;   /* so far */
    char block[ENTRY_DATA_BLOCK];
};
/* Exactly size bytes of fd, as the entry's header says: what is missing is zeros. */
int entry_write_data(struct entry_data *data, struct tar_writer *writer, int fd, uint64_t size,
                     struct error *err);

#endif
