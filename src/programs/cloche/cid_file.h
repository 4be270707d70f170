/*
 * --cidfile: the ID of a new container in a file, for scripts. The file is made before the
 * container, and goes again when there is none.
 */
#ifndef CLOCHE_CID_FILE_H
#define CLOCHE_CID_FILE_H

#include <base/error.h>

struct cid_file {
    const char *path; /* NULL: nothing happens */
    int fd;
};

/* -EEXIST: some container wrote it. */
int cid_file_open(struct cid_file *file, struct error *err);

/* Writes the ID, or, with NULL, removes the file. Returns result, or why nothing was written. */
int cid_file_finish(struct cid_file *file, const char *id, int result, struct error *err);

#endif
