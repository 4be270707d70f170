/*
 * Files become entries of a tar: what packing the changes of a container and packing what is copied
 * out of it have in common.
 */
#ifndef IMAGE_ENTRY_H
#define IMAGE_ENTRY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <base/error.h>

#include "table.h"
#include "write.h"

/* Files that have several names, by their first path in the tar. */
struct entry_link;
struct entry_links {
    struct entry_link *links;
    size_t count;
    struct table places;
};

enum { ENTRY_DATA_BLOCK = 256 * 1024 };
struct entry_data {
    const char *step; /* for progress */
    uint64_t bytes;   /* so far */
    char block[ENTRY_DATA_BLOCK];
};

/* A tar under way. */
struct entries {
    struct tar_writer writer;
    struct entry_links links;
    struct entry_data data;
    size_t count;    /* of entries */
    bool owner_root; /* whoever owns the files */
};
void entries_finish(
    struct entries *entries); /* what is known of links; the writer is the caller's */

/* An empty regular file of this name that only root may read. */
int entries_write_empty(struct entries *entries, const char *path, struct error *err);
/* Whatever is no folder; status is that of folder_fd/name. What has vanished is left out, and so
 * are sockets, which are of no use without their servers. Content is as long as the header says:
 * cut, or filled up with zeros. */
int entries_write_file(struct entries *entries, int folder_fd, const char *name, const char *path,
                       const struct stat *status, struct error *err);
/* The entry of the folder alone. path "": the root. */
int entries_write_folder(struct entries *entries, int fd, const char *path, struct error *err);

/* -ENOENT: it has vanished, or is a folder no more. */
int entries_open_folder(int folder_fd, const char *name, struct error *err);
/* Each name in the folder, sorted, so that the same files give the same tar. Ends at the first
 * error. path, depth: of the folder, for the message that it is too deep. */
typedef int (*entries_visit)(void *data, const char *name, struct error *err);
int entries_list(int fd, const char *path, int depth, entries_visit visit, void *data,
                 struct error *err);

#endif
