/*
 * Reading tar through libarchive, from a stream.
 */
#ifndef IMAGE_TAR_H
#define IMAGE_TAR_H

#include <archive.h>
#include <archive_entry.h>
#include <stdbool.h>

#include <base/error.h>

#include "stream.h"

enum { TAR_MAGIC_SIZE = 6 };

struct tar {
    struct archive *archive;
    struct stream *source; /* not owned */
    struct error failure;  /* of the source, which libarchive cannot carry */
    bool require_end;
    bool in_entry; /* a header was read */
    int64_t size;  /* of the entry */
    bool whole;    /* its last byte was read */
    bool ended;    /* right behind it */
};

int tar_open(struct tar *tar, struct stream *source, struct error *err);
/* The same for one that may be compressed by bzip2, xz or another of libarchive's filters. */
int tar_open_any(struct tar *tar, struct stream *source, struct error *err);
void tar_close(struct tar *tar);

/* Makes tar_next() refuse a tar without the zeros that end it: one that was cut between entries.
 * Not for layers, of which some lack them and all have a digest. */
void tar_require_end(struct tar *tar);

/* 1: *ret_entry is the next one, valid until the next call; 0: the end. */
int tar_next(struct tar *tar, struct archive_entry **ret_entry, struct error *err);

/* The next piece of the entry's data: 1, or 0 at the end. Pieces come in order; between them and
 * after the last one, up to the entry's size, are holes. */
int tar_data(struct tar *tar, const void **ret_block, size_t *ret_length, int64_t *ret_offset,
             struct error *err);

/* The data as a stream, holes as zeros; stands on tar until the next entry. */
struct stream *tar_entry_stream(struct tar *tar);

/* What bzip2 or xz has compressed, whatever it is, as a stream of its own; NULL where the first
 * bytes (TAR_MAGIC_SIZE of them suffice) are of neither. The source is not owned. */
struct stream *tar_unfilter(struct stream *source, const void *start, size_t length);

/* Path as bytes, whatever the archive says of its character set; NULL when there is none. Borrowed
 * from the entry. */
const char *tar_path(struct archive_entry *entry);

/* Removes "//", ".", ".." and the leading "/". Owned; "" is the root. -EBADMSG when ".." leads
 * out of the root, -ENAMETOOLONG over PATH_LENGTH_MAX or PATH_DEPTH_MAX. */
int tar_clean_path(const char *path, char **ret, struct error *err);

#endif
