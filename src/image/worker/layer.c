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
    char blob_name[32];
    int root_fd;
    int blob_fd;
};

static int open_files(const struct load *load, struct layer_files *files, bool written,
                      struct error *err)
{
    snprintf(files->root_name, sizeof(files->root_name), "layers/new-%zu", load->layers_count);
    snprintf(files->blob_name, sizeof(files->blob_name), "content/new-%zu", load->layers_count);
    if (mkdirat(load->staging_fd, files->root_name, 0755) < 0)
        return error_errno(err, errno, "create a folder in staging");
    files->root_fd = openat(load->staging_fd, files->root_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (files->root_fd < 0)
        return error_errno(err, errno, "open a folder in staging");
    if (written)
        return 0;
    files->blob_fd =
        openat(load->staging_fd, files->blob_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return files->blob_fd < 0 ? error_errno(err, errno, "create a file in staging") : 0;
}

static int unpack_tar(struct load *load, struct unpack *unpack, struct stream *stream,
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
        message_progress("unpack a layer", unpack->bytes);
    }
    tar_close(&tar);
    if (r == 0)
        r = unpack_complete(unpack, err);
    /* What stands behind the end of the tar belongs to the digests. */
    return r < 0 ? r : stream_drain(stream, err);
}

/* Plain layers have one digest for both names, so they are summed up once. */
static int pass_through(struct load *load, struct staged_layer *layer, struct unpack *unpack,
                        struct stream *stream, int blob_fd, struct error *err)
{
    const void *start;
    size_t length;
    struct stream *whole = stream_peek(stream, 4, &start, &length, err);

    if (!whole)
        return err->code;
    layer->compression = compression_detect(start, length);
    struct stream *blob = stream_checksum(whole, blob_fd);
    int r;
    if (layer->compression == COMPRESSION_NONE) {
        r = unpack_tar(load, unpack, blob, err);
        stream_checksum_digest(blob, layer->blob);
        memcpy(layer->diff_id, layer->blob, sizeof(layer->blob));
    } else {
        struct stream *plain = stream_decompress(blob, layer->compression);
        struct stream *diff = stream_checksum(plain, -1);
        r = unpack_tar(load, unpack, diff, err);
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
static int place(const struct load *load, const char *name, const char *folder, const char *digest,
                 struct error *err)
{
    _cleanup_free_ char *target = xasprintf("%s/%s", folder, digest + 7);

    int r = file_rename_free_at(load->staging_fd, name, target);
    if (r == 0)
        return 0;
    if (r != -EEXIST)
        return error_errno(err, -r, "rename in staging");
    return file_remove_tree_at(load->staging_fd, name, err);
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

static int take_layer(struct load *load, const char *path, struct stream *stream, bool written,
                      struct error *err)
{
    struct layer_files files = {.root_fd = -1, .blob_fd = -1};
    struct unpack unpack;

    if (load->layers_count >= ARCHIVE_LAYERS_MAX)
        return error_set(err, -EFBIG, "more than %d layers (ARCHIVE_LAYERS_MAX)",
                         ARCHIVE_LAYERS_MAX);
    int r = open_files(load, &files, written, err);
    struct staged_layer *layer = add_layer(load, path);
    unpack_init(&unpack, files.root_fd);
    if (r == 0)
        r = pass_through(load, layer, &unpack, stream, files.blob_fd, err);
    if (r < 0)
        error_context(err, "layer %s", path);
    if (r == 0)
        r = place(load, files.root_name, "layers", layer->diff_id, err);
    if (r == 0)
        r = place(load, files.blob_name, "content", layer->blob, err);
    layer->size = unpack.bytes;
    layer->implicit = steal_ptr(unpack.implicit);
    layer->implicit_count = unpack.implicit_count;
    unpack_finish(&unpack);
    close_fd(files.root_fd);
    close_fd(files.blob_fd);
    return r;
}

int load_layer(struct load *load, const char *path, struct stream *stream, struct error *err)
{
    return take_layer(load, path, stream, false, err);
}

int load_written_layer(struct load *load, const char *path, struct stream *stream,
                       struct error *err)
{
    return take_layer(load, path, stream, true, err);
}
