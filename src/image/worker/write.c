#include <errno.h>

#include "write.h"

enum { BLOCK_SIZE = 512 };

static la_ssize_t write_block(struct archive *archive, void *data, const void *block, size_t length)
{
    struct tar_writer *writer = data;

    if (writer->sink->write(writer->sink, block, length, &writer->failure) == 0)
        return (la_ssize_t)length;
    archive_set_error(archive, EIO, "the sink failed");
    return -1;
}

static int writer_failure(struct tar_writer *writer, struct error *err)
{
    if (writer->failure.code)
        return error_move(err, &writer->failure);
    const char *text = archive_error_string(writer->archive);
    return error_set(err, -EIO, "%s", text ? text : "write a tar archive");
}

int tar_writer_open(struct tar_writer *writer, struct tar_sink *sink, struct error *err)
{
    *writer = (struct tar_writer){.archive = archive_write_new(), .sink = sink};
    archive_write_set_format_pax_restricted(writer->archive);
    /* Attributes as Go's and GNU's tar read them; libarchive's own header would double them. */
    archive_write_set_format_option(writer->archive, NULL, "xattrheader", "SCHILY");
    /* The last block is not filled up to 10 KiB: readers of layers do not need it. */
    archive_write_set_bytes_per_block(writer->archive, 128 * BLOCK_SIZE);
    archive_write_set_bytes_in_last_block(writer->archive, 1);
    if (archive_write_open(writer->archive, writer, NULL, write_block, NULL) == ARCHIVE_OK)
        return 0;
    int r = writer_failure(writer, err);
    tar_writer_abort(writer);
    return r;
}

int tar_writer_close(struct tar_writer *writer, struct error *err)
{
    return archive_write_close(writer->archive) == ARCHIVE_OK ? 0 : writer_failure(writer, err);
}

void tar_writer_abort(struct tar_writer *writer)
{
    archive_write_free(writer->archive);
    writer->archive = NULL;
    error_finish(&writer->failure);
}

int tar_writer_entry(struct tar_writer *writer, struct archive_entry *entry, struct error *err)
{
    int r = archive_write_header(writer->archive, entry);

    return r == ARCHIVE_OK || r == ARCHIVE_WARN ? 0 : writer_failure(writer, err);
}

int tar_writer_data(struct tar_writer *writer, const void *data, size_t length, struct error *err)
{
    while (length) {
        la_ssize_t n = archive_write_data(writer->archive, data, length);
        if (n <= 0)
            return writer_failure(writer, err);
        data = (const char *)data + n;
        length -= (size_t)n;
    }
    return 0;
}
