/*
 * Writing tar through libarchive: PAX where it must be, ustar where it can be.
 */
#ifndef IMAGE_WRITE_H
#define IMAGE_WRITE_H

#include <archive.h>
#include <archive_entry.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

/* Where the bytes go. */
struct tar_sink {
    int (*write)(struct tar_sink *sink, const void *data, size_t length, struct error *err);
};

struct tar_writer {
    struct archive *archive;
    struct tar_sink *sink; /* not owned */
    struct error failure;  /* of the sink */
};

int tar_writer_open(struct tar_writer *writer, struct tar_sink *sink, struct error *err);
/* The end of the archive. */
int tar_writer_close(struct tar_writer *writer, struct error *err);
void tar_writer_abort(struct tar_writer *writer); /* also after close */

int tar_writer_entry(struct tar_writer *writer, struct archive_entry *entry, struct error *err);
int tar_writer_data(struct tar_writer *writer, const void *data, size_t length, struct error *err);

#endif
