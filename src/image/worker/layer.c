/* One layer: checksum, copy, decompression, checksum and unpacking in one pass. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "limits.h"
#include "load.h"
#include "tar.h"
#include "unpack.h"
#include "worker.h"

const char *layer_media_type(enum compression compression)
{
    static const char *const types[] = {
        [COMPRESSION_NONE] = "application/vnd.oci.image.layer.v1.tar",
        [COMPRESSION_GZIP] = "application/vnd.oci.image.layer.v1.tar+gzip",
        [COMPRESSION_ZSTD] = "application/vnd.oci.image.layer.v1.tar+zstd",
    };

    return types[compression];
}

/* Names in staging until the digests are known. */
struct layer_files {
    char root_name[32];
    char blob_name[128];
    int root_fd;
    int blob_fd;
};

static int open_files(const struct layer_job *job, struct layer_files *files, struct error *err)
{
    snprintf(files->root_name, sizeof(files->root_name), "layers/new-%zu", job->number);
    if (job->blob_name)
        snprintf(files->blob_name, sizeof(files->blob_name), "content/%s", job->blob_name);
    else
        snprintf(files->blob_name, sizeof(files->blob_name), "content/new-%zu", job->number);
    if (mkdirat(job->staging_fd, files->root_name, 0755) < 0)
        return error_errno(err, errno, "create a folder in staging");
    files->root_fd = openat(job->staging_fd, files->root_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (files->root_fd < 0)
        return error_errno(err, errno, "open a folder in staging");
    if (job->written == LAYER_WRITTEN)
        return 0;
    int flags = job->blob_name ? O_APPEND : O_EXCL;
    files->blob_fd = openat(job->staging_fd, files->blob_name,
                            O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
    return files->blob_fd < 0 ? error_errno(err, errno, "create a file in staging") : 0;
}

static int unpack_tar(const struct layer_job *job, struct unpack *unpack, struct stream *stream,
                      struct error *err)
{
    struct archive_entry *entry;
    struct tar tar;
    int r = tar_open(&tar, stream, err);

    if (r < 0)
        return r;
    while ((r = tar_next(&tar, &entry, err)) > 0) {
        r = unpack_entry(unpack, &tar, entry, err);
        if (r < 0)
            break;
        if (!job->quiet)
            message_progress("unpack a layer", unpack->bytes);
    }
    tar_close(&tar);
    if (r == 0)
        r = unpack_complete(unpack, err);
    /* What stands behind the end of the tar belongs to the digests. */
    return r < 0 ? r : stream_drain(stream, err);
}

/* Plain layers have one digest for both names, so they are summed up once. */
static int pass_through(const struct layer_job *job, struct staged_layer *layer,
                        struct unpack *unpack, struct stream *stream, int blob_fd,
                        struct error *err)
{
    const void *start;
    size_t length;
    struct stream *whole = stream_peek(stream, 4, &start, &length, err);

    if (!whole)
        return err->code;
    layer->compression = compression_detect(start, length);
    struct stream *blob = stream_checksum(whole, blob_fd);
    if (job->written != LAYER_WRITTEN)
        stream_checksum_skip(blob, job->written);
    int r;
    if (layer->compression == COMPRESSION_NONE) {
        r = unpack_tar(job, unpack, blob, err);
        stream_checksum_digest(blob, layer->blob);
        memcpy(layer->diff_id, layer->blob, sizeof(layer->blob));
    } else {
        struct stream *plain = stream_decompress(blob, layer->compression);
        struct stream *diff = stream_checksum(plain, -1);
        r = unpack_tar(job, unpack, diff, err);
        if (r == 0)
            r = stream_drain(blob, err);
        stream_checksum_digest(blob, layer->blob);
        stream_checksum_digest(diff, layer->diff_id);
        stream_destroy(diff);
        stream_destroy(plain);
    }
    layer->blob_size = stream_checksum_length(blob);
    stream_destroy(blob);
    stream_destroy(whole);
    return r;
}

/* A second layer with the same content is dropped: the first one stands for both. */
static int place(int staging_fd, const char *name, const char *folder, const char *digest,
                 struct error *err)
{
    _cleanup_free_ char *target = xasprintf("%s/%s", folder, digest + 7);

    int r = file_rename_free_at(staging_fd, name, target);
    if (r == 0)
        return 0;
    if (r != -EEXIST)
        return error_errno(err, -r, "rename in staging");
    return file_remove_tree_at(staging_fd, name, err);
}

static struct staged_layer *add_layer(struct load *load, const char *path)
{
    if (load->layers_count % 16 == 0)
        load->layers = xrealloc(load->layers, load->layers_count + 16, sizeof(*load->layers));
    struct staged_layer *layer = &load->layers[load->layers_count];
    *layer = (struct staged_layer){.path = xstrdup(path)};
    load->layers_count++;
    return layer;
}

/* What was promised of the layer, if anything was. */
static int check_promise(const struct layer_job *job, const struct staged_layer *layer,
                         struct error *err)
{
    if (job->blob && !text_equal(job->blob, layer->blob))
        return error_set(err, -EBADMSG, "its content has the digest %s", layer->blob);
    if (job->diff_id && !text_equal(job->diff_id, layer->diff_id))
        return error_set(err, -EBADMSG,
                         "its unpacked content has the digest %s, the configuration has the diff "
                         "ID %s",
                         layer->diff_id, job->diff_id);
    return 0;
}

int layer_take(const struct layer_job *job, struct stream *stream, struct staged_layer *layer,
               struct error *err)
{
    struct layer_files files = {.root_fd = -1, .blob_fd = -1};
    struct unpack unpack;
    int r = open_files(job, &files, err);

    unpack_init(&unpack, files.root_fd);
    if (r == 0)
        r = pass_through(job, layer, &unpack, stream, files.blob_fd, err);
    if (r == 0)
        r = check_promise(job, layer, err);
    if (r < 0)
        error_context(err, "layer %s", layer->path);
    if (r == 0)
        r = place(job->staging_fd, files.root_name, "layers", layer->diff_id, err);
    if (r == 0)
        r = place(job->staging_fd, files.blob_name, "content", layer->blob, err);
    layer->size = unpack.bytes;
    layer->implicit = steal_ptr(unpack.implicit);
    layer->implicit_count = unpack.implicit_count;
    unpack_finish(&unpack);
    close_fd(files.root_fd);
    close_fd(files.blob_fd);
    return r;
}

static int take_next(struct load *load, const char *path, struct stream *stream, uint64_t written,
                     struct error *err)
{
    const struct layer_job job = {
        .staging_fd = load->staging_fd,
        .number = load->layers_count,
        .written = written,
        .quiet = load->tells,
    };

    if (load->layers_count >= ARCHIVE_LAYERS_MAX)
        return error_set(err, -EFBIG, "more than %d layers (ARCHIVE_LAYERS_MAX)",
                         ARCHIVE_LAYERS_MAX);
    return layer_take(&job, stream, add_layer(load, path), err);
}

int load_layer(struct load *load, const char *path, struct stream *stream, struct error *err)
{
    return take_next(load, path, stream, 0, err);
}

int load_written_layer(struct load *load, const char *path, struct stream *stream,
                       struct error *err)
{
    return take_next(load, path, stream, LAYER_WRITTEN, err);
}
