#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "limits.h"
#include "tar.h"

static la_ssize_t read_block(struct archive *archive, void *data, const void **block)
{
    struct tar *tar = data;
    ssize_t n = stream_read(tar->source, block, &tar->failure);

    if (n >= 0)
        return n;
    archive_set_error(archive, EIO, "the source failed");
    return ARCHIVE_FATAL;
}

/* The source's own failure says more than libarchive's that follows from it. */
static int tar_failure(struct tar *tar, struct error *err)
{
    if (tar->failure.code)
        return error_move(err, &tar->failure);
    int code = archive_errno(tar->archive);
    const char *text = archive_error_string(tar->archive);
    return error_set(err, code == ENOMEM ? -ENOMEM : -EBADMSG, "%s, at byte %lld of the tar",
                     text ? text : "damaged tar archive",
                     (long long)archive_filter_bytes(tar->archive, 0));
}

static void support_filters(struct tar *tar)
{
    archive_read_support_filter_bzip2(tar->archive);
    archive_read_support_filter_xz(tar->archive);
    archive_read_support_filter_lzma(tar->archive);
}

static int start_reading(struct tar *tar, struct error *err)
{
    if (archive_read_open(tar->archive, tar, NULL, read_block, NULL) == ARCHIVE_OK)
        return 0;
    int r = tar_failure(tar, err);
    tar_close(tar);
    return r;
}

int tar_open(struct tar *tar, struct stream *source, struct error *err)
{
    *tar = (struct tar){.archive = archive_read_new(), .source = source};
    archive_read_support_format_tar(tar->archive);
    return start_reading(tar, err);
}

int tar_open_any(struct tar *tar, struct stream *source, struct error *err)
{
    *tar = (struct tar){.archive = archive_read_new(), .source = source};
    archive_read_support_format_tar(tar->archive);
    support_filters(tar);
    return start_reading(tar, err);
}

void tar_close(struct tar *tar)
{
    archive_read_free(tar->archive);
    tar->archive = NULL;
    error_finish(&tar->failure);
}

void tar_require_end(struct tar *tar)
{
    tar->require_end = true;
}

/* What libarchive unpacks itself is limited as what we do (decompress.c). */
static int check_expansion(const struct tar *tar, struct error *err)
{
    la_int64_t taken = archive_filter_bytes(tar->archive, -1);
    la_int64_t given = archive_filter_bytes(tar->archive, 0);

    if (given > (la_int64_t)EXPANSION_FREE && given / EXPANSION_MAX > taken)
        return error_set(err, -EFBIG,
                         "unpacks to more than %d times its size (EXPANSION_MAX): a decompression "
                         "bomb",
                         EXPANSION_MAX);
    return 0;
}

int tar_next(struct tar *tar, struct archive_entry **ret_entry, struct error *err)
{
    la_int64_t before = 0;

    if (tar->ended)
        return 0;
    if (tar->require_end) {
        /* libarchive takes the end of the source for the end of the tar. It consumes the zeros
         * where there are some. */
        if (tar->in_entry && archive_read_data_skip(tar->archive) < ARCHIVE_WARN)
            return tar_failure(tar, err);
        before = archive_filter_bytes(tar->archive, 0);
    }
    int r = archive_read_next_header(tar->archive, ret_entry);
    if (r == ARCHIVE_EOF && tar->require_end && archive_filter_bytes(tar->archive, 0) == before)
        return error_set(err, -EBADMSG, "it ends in the middle, after a whole entry");
    if (r == ARCHIVE_EOF)
        return 0;
    /* A warning is about a character set or a header that we do not need. */
    tar->in_entry = r == ARCHIVE_OK || r == ARCHIVE_WARN;
    if (!tar->in_entry)
        return tar_failure(tar, err);
    tar->size = archive_entry_size(*ret_entry);
    tar->whole = tar->size == 0;
    r = check_expansion(tar, err);
    return r < 0 ? r : 1;
}

int tar_data(struct tar *tar, const void **ret_block, size_t *ret_length, int64_t *ret_offset,
             struct error *err)
{
    la_int64_t offset = 0;
    int r = archive_read_data_block(tar->archive, ret_block, ret_length, &offset);

    *ret_offset = offset;
    if (r == ARCHIVE_EOF)
        return 0;
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN) {
        /* `docker build -f -` sends nothing behind the last byte of its last file, not even what
         * fills the block. */
        tar->ended = !tar->require_end && tar->whole && !tar->failure.code;
        return tar->ended ? 0 : tar_failure(tar, err);
    }
    tar->whole = offset + (int64_t)*ret_length == tar->size;
    r = check_expansion(tar, err);
    return r < 0 ? r : 1;
}

struct entry_stream {
    struct stream stream;
    struct tar *tar;
    int64_t position;
};

static ssize_t entry_read(struct stream *stream, const void **block, struct error *err)
{
    struct entry_stream *self = (struct entry_stream *)stream;
    size_t length = 0;

    while (length == 0) {
        int64_t offset;
        int r = tar_data(self->tar, block, &length, &offset, err);
        if (r <= 0)
            return r;
        if (length && offset != self->position)
            return error_set(err, -EBADMSG, "a sparse file inside an image archive");
    }
    self->position += (int64_t)length;
    return (ssize_t)length;
}

static void entry_destroy(struct stream *stream)
{
    free(stream);
}

struct stream *tar_entry_stream(struct tar *tar)
{
    static const struct stream_ops ops = {entry_read, entry_destroy};
    struct entry_stream *self = xnew(struct entry_stream);

    self->stream.ops = &ops;
    self->tar = tar;
    return &self->stream;
}

/* The one entry of libarchive's format that is none is all that its filters give. */
struct filter_stream {
    struct stream stream;
    struct tar tar;
    struct stream *entry; /* NULL before the first read and when there is nothing */
    bool begun;
};

static int filter_begin(struct filter_stream *self, struct error *err)
{
    struct archive_entry *entry;

    self->begun = true;
    archive_read_support_format_raw(self->tar.archive);
    support_filters(&self->tar);
    int r = start_reading(&self->tar, err);
    if (r < 0)
        return r;
    tar_require_end(&self->tar);
    r = tar_next(&self->tar, &entry, err);
    if (r > 0)
        self->entry = tar_entry_stream(&self->tar);
    return r;
}

static ssize_t filter_read(struct stream *stream, const void **block, struct error *err)
{
    struct filter_stream *self = (struct filter_stream *)stream;
    int r = self->begun ? 0 : filter_begin(self, err);

    if (r < 0)
        return r;
    return self->entry ? stream_read(self->entry, block, err) : 0;
}

static void filter_destroy(struct stream *stream)
{
    struct filter_stream *self = (struct filter_stream *)stream;

    stream_destroy(self->entry);
    tar_close(&self->tar);
    free(self);
}

struct stream *tar_unfilter(struct stream *source, const void *start, size_t length)
{
    static const struct stream_ops ops = {filter_read, filter_destroy};

    if (!(length >= 3 && !memcmp(start, "BZh", 3)) &&
        !(length >= TAR_MAGIC_SIZE && !memcmp(start,
                                              "\xfd"
                                              "7zXZ",
                                              TAR_MAGIC_SIZE)))
        return NULL;
    struct filter_stream *self = xnew(struct filter_stream);

    self->stream.ops = &ops;
    self->tar = (struct tar){.archive = archive_read_new(), .source = source};
    return &self->stream;
}

const char *tar_path(struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry);

    return path ? path : archive_entry_pathname_utf8(entry);
}

int tar_clean_path(const char *path, char **ret, struct error *err)
{
    _cleanup_buffer_ struct buffer clean = BUFFER_INIT;
    size_t depth = 0;

    if (strlen(path) > PATH_LENGTH_MAX)
        return error_set(err, -ENAMETOOLONG, "its path is longer than %d bytes", PATH_LENGTH_MAX);
    for (const char *at = path; *at;) {
        size_t length = strcspn(at, "/");
        if (length == 2 && at[0] == '.' && at[1] == '.') {
            if (depth == 0)
                return error_set(err, -EBADMSG, "its path leads out of the root by '..'");
            const char *slash = memrchr(clean.data, '/', clean.length);
            clean.length = slash ? (size_t)(slash - clean.data) : 0;
            clean.data[clean.length] = '\0';
            depth--;
        } else if (length && !(length == 1 && at[0] == '.')) {
            if (depth++)
                buffer_append_char(&clean, '/');
            buffer_append(&clean, at, length);
        }
        at += length + (at[length] == '/');
    }
    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "its path has more than %d folders", PATH_DEPTH_MAX);
    *ret = buffer_steal(&clean);
    return 0;
}
