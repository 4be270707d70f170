/*
 * Images become an archive that is a docker-archive (manifest.json) and an OCI layout (index.json,
 * oci-layout) at once: both refer to the same blobs.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>
#include <schema/oci_image.h>

#include "limits.h"
#include "load.h"
#include "worker.h"
#include "write.h"

enum { DATA_BLOCK = 1024 * 1024 };

struct save {
    struct tar_sink sink; /* first: the sink is the save */
    const struct image_worker_save *request;
    struct tar_writer writer;
    char **written; /* digests */
    char *block;
};

static int write_archive(struct tar_sink *sink, const void *data, size_t length, struct error *err)
{
    int r = file_write_all(IMAGE_FD_ARCHIVE_OUT, data, length);

    return r < 0 ? error_errno(err, -r, "write the archive") : 0;
}

static int begin_file(struct save *save, const char *path, uint64_t size, struct error *err)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_copy_pathname(entry, path);
    archive_entry_set_mode(entry, S_IFREG | 0444);
    archive_entry_set_size(entry, (la_int64_t)size);
    archive_entry_set_mtime(entry, 0, 0);
    int r = tar_writer_entry(&save->writer, entry, err);
    archive_entry_free(entry);
    return r;
}

static int write_folder(struct save *save, const char *path, struct error *err)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_copy_pathname(entry, path);
    archive_entry_set_mode(entry, S_IFDIR | 0755);
    archive_entry_set_mtime(entry, 0, 0);
    int r = tar_writer_entry(&save->writer, entry, err);
    archive_entry_free(entry);
    return r;
}

static int write_text(struct save *save, const char *path, const struct buffer *text,
                      struct error *err)
{
    int r = begin_file(save, path, text->length, err);

    return r < 0 ? r : tar_writer_data(&save->writer, text->data, text->length, err);
}

/* item NULL: not worth telling of. */
static int copy_blob(struct save *save, int fd, const char *item, uint64_t total, struct error *err)
{
    static const char step[] = "Saving layer";
    uint64_t size = total;
    int64_t last = 0;

    while (size) {
        ssize_t n = read(fd, save->block, size < DATA_BLOCK ? (size_t)size : DATA_BLOCK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read");
        if (n == 0)
            return error_set(err, -EBADMSG, "it ends in the middle");
        int r = tar_writer_data(&save->writer, save->block, (size_t)n, err);
        if (r < 0)
            return r;
        size -= (uint64_t)n;
        if (item)
            message_item_progress(&last, item, step, total - size, total);
    }
    if (item)
        message_item(item, step, total, total);
    return 0;
}

static int write_blob(struct save *save, const char *digest, bool is_layer, struct error *err)
{
    _cleanup_free_ char *path = NULL, *item = NULL;
    struct stat status;

    if (!digest_is_valid(digest))
        return error_set(err, -EINVAL, "'%s' is no digest", digest);
    if (strv_contains(save->written, digest))
        return 0;
    strv_append(&save->written, digest);
    path = xasprintf("blobs/sha256/%s", digest + 7);
    item = is_layer ? xstrndup(digest + 7, 12) : NULL;
    _cleanup_close_ int fd = openat(IMAGE_FD_SOURCE, digest + 7, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open blob %s", digest);
    int r = begin_file(save, path, (uint64_t)status.st_size, err);
    if (r == 0)
        r = copy_blob(save, fd, item, (uint64_t)status.st_size, err);
    if (r < 0)
        error_context(err, "blob %s", digest);
    return r;
}

static int write_image_blobs(struct save *save, const struct image_worker_saved_image *image,
                             struct error *err)
{
    int r = write_blob(save, image->id, false, err);

    if (r == 0)
        r = write_blob(save, image->manifest, false, err);
    for (size_t i = 0; r == 0 && i < image->layers_count; i++)
        r = write_blob(save, image->layers[i]->blob, true, err);
    return r;
}

static char *blob_path(const char *digest)
{
    return xasprintf("blobs/sha256/%s", digest + 7);
}

static struct oci_image_docker_image *docker_image(const struct image_worker_saved_image *image)
{
    struct oci_image_docker_image *entry = xnew(struct oci_image_docker_image);

    entry->config = blob_path(image->id);
    entry->repo_tags = strv_copy(image->names);
    entry->repo_tags_count = image->names_count;
    for (size_t i = 0; i < image->layers_count; i++)
        strv_take(&entry->layers, blob_path(image->layers[i]->blob));
    entry->layers_count = image->layers_count;
    return entry;
}

static int write_docker_manifest(struct save *save, struct error *err)
{
    const struct image_worker_save *request = save->request;
    _cleanup_oci_image_docker_archive_ struct oci_image_docker_archive *archive =
        xnew(struct oci_image_docker_archive);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    archive->images = xnew_array(struct oci_image_docker_image *, request->images_count + 1);
    for (size_t i = 0; i < request->images_count; i++)
        archive->images[archive->images_count++] = docker_image(request->images[i]);
    oci_image_docker_archive_write(archive, &text);
    return write_text(save, "manifest.json", &text, err);
}

/* What the manifest says of itself; its size. */
static int describe_manifest(const char *digest, struct oci_image_descriptor *descriptor,
                             struct error *err)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = file_read_at(IMAGE_FD_SOURCE, digest + 7, DOCUMENT_MAX, &text, &length, err);

    if (r == 0)
        r = oci_image_manifest_parse(text, length, digest, &manifest, err);
    if (r < 0)
        return r;
    descriptor->digest = xstrdup(digest);
    descriptor->size = length;
    descriptor->media_type = xstrdup(
        manifest->media_type ? manifest->media_type : "application/vnd.oci.image.manifest.v1+json");
    return 0;
}

/* A descriptor per name, as docker writes them: the whole name, and its tag. */
static int add_descriptor(struct oci_image_index *index,
                          const struct image_worker_saved_image *image, const char *full_name,
                          struct error *err)
{
    struct oci_image_descriptor *descriptor = xnew(struct oci_image_descriptor);
    int r = describe_manifest(image->manifest, descriptor, err);

    index->manifests = xrealloc(index->manifests, index->manifests_count + 1, sizeof(descriptor));
    index->manifests[index->manifests_count++] = descriptor;
    if (r < 0 || !full_name)
        return r;
    const char *slash = strrchr(full_name, '/');
    const char *colon = strchr(slash ? slash : full_name, ':');
    json_string_map_set(&descriptor->annotations, "io.containerd.image.name", full_name);
    json_string_map_set(&descriptor->annotations, "org.opencontainers.image.ref.name",
                        colon ? colon + 1 : full_name);
    return 0;
}

static int write_index(struct save *save, struct error *err)
{
    _cleanup_oci_image_index_ struct oci_image_index *index = xnew(struct oci_image_index);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = 0;

    index->schema_version = 2;
    index->media_type = xstrdup("application/vnd.oci.image.index.v1+json");
    for (size_t i = 0; r == 0 && i < save->request->images_count; i++) {
        const struct image_worker_saved_image *image = save->request->images[i];
        if (!image->full_names_count)
            r = add_descriptor(index, image, NULL, err);
        for (size_t n = 0; r == 0 && n < image->full_names_count; n++)
            r = add_descriptor(index, image, image->full_names[n], err);
    }
    if (r < 0)
        return r;
    oci_image_index_write(index, &text);
    return write_text(save, "index.json", &text, err);
}

static int write_layout(struct save *save, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    buffer_append_text(&text, "{\"imageLayoutVersion\":\"1.0.0\"}");
    return write_text(save, "oci-layout", &text, err);
}

static int write_all(struct save *save, struct error *err)
{
    int r = write_folder(save, "blobs/", err);

    if (r == 0)
        r = write_folder(save, "blobs/sha256/", err);
    for (size_t i = 0; r == 0 && i < save->request->images_count; i++)
        r = write_image_blobs(save, save->request->images[i], err);
    if (r == 0)
        r = write_index(save, err);
    if (r == 0)
        r = write_docker_manifest(save, err);
    if (r == 0)
        r = write_layout(save, err);
    return r;
}

int worker_save(const struct image_worker_save *request, struct error *err)
{
    struct save save = {.sink = {write_archive}, .request = request};
    int r = tar_writer_open(&save.writer, &save.sink, err);

    if (r < 0)
        return r;
    save.block = xmalloc(DATA_BLOCK);
    r = write_all(&save, err);
    if (r == 0)
        r = tar_writer_close(&save.writer, err);
    tar_writer_abort(&save.writer);
    free(save.block);
    strv_free(save.written);
    return r;
}
