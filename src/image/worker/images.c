/* From documents and layers to images, with every digest compared. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>

#include "limits.h"
#include "load.h"
#include "tar.h"

static int stage_document(const struct load *load, const char *digest, const char *text,
                          size_t length, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("content/%s", digest + 7);

    return file_replace_at(load->staging_fd, path, text, length, 0600, err);
}

static struct oci_image_descriptor *describe(const char *media_type, const char *digest,
                                             uint64_t size)
{
    struct oci_image_descriptor *descriptor = xnew(struct oci_image_descriptor);

    descriptor->media_type = xstrdup(media_type);
    descriptor->digest = xstrdup(digest);
    descriptor->size = size;
    return descriptor;
}

/* docker-archives have no manifest: this is the one a registry would be given. */
static int compose_manifest(const struct load *load, const struct document *config,
                            const struct staged_layer *const *layers, size_t count,
                            char ret_digest[DIGEST_TEXT_SIZE], struct error *err)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest =
        xnew(struct oci_image_manifest);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    manifest->schema_version = 2;
    manifest->media_type = xstrdup("application/vnd.oci.image.manifest.v1+json");
    manifest->config =
        describe("application/vnd.oci.image.config.v1+json", config->digest, config->length);
    manifest->layers = xnew_array(struct oci_image_descriptor *, count + 1);
    for (size_t i = 0; i < count; i++)
        manifest->layers[manifest->layers_count++] = describe(
            layer_media_type(layers[i]->compression), layers[i]->blob, layers[i]->blob_size);
    oci_image_manifest_write(manifest, &text);
    digest_of_text(text.data, text.length, ret_digest);
    return stage_document(load, ret_digest, text.data, text.length, err);
}

static int check_diff_ids(const struct document *config_document,
                          const struct oci_image_configuration *config,
                          const struct staged_layer *const *layers, size_t count, struct error *err)
{
    if (config->rootfs->diff_ids_count != count)
        return error_set(err, -EBADMSG, "%s: rootfs.diff_ids: %zu for the %zu layers of the image",
                         config_document->path, config->rootfs->diff_ids_count, count);
    for (size_t i = 0; i < count; i++)
        if (!text_equal(config->rootfs->diff_ids[i], layers[i]->diff_id))
            return error_set(err, -EBADMSG,
                             "layer %zu (%s): its content has the digest %s, %s has the diff ID %s",
                             i + 1, layers[i]->path, layers[i]->diff_id, config_document->path,
                             config->rootfs->diff_ids[i]);
    return 0;
}

struct image_worker_layer *load_report_layer(const struct staged_layer *staged)
{
    struct image_worker_layer *layer = xnew(struct image_worker_layer);

    layer->diff_id = xstrdup(staged->diff_id);
    layer->blob = xstrdup(staged->blob);
    layer->media_type =
        xstrdup(staged->media_type ? staged->media_type : layer_media_type(staged->compression));
    layer->present = layer->has_present = staged->present;
    layer->blob_size = staged->blob_size;
    layer->size = staged->size;
    layer->implicit_folders = strv_copy(staged->implicit);
    layer->implicit_folders_count = staged->implicit_count;
    return layer;
}

static struct image_worker_image *report_image(struct load *load, const char *id,
                                               const char *manifest,
                                               const struct staged_layer *const *layers,
                                               size_t count)
{
    struct image_worker_result *result = load->result;
    struct image_worker_image *image = xnew(struct image_worker_image);

    image->id = xstrdup(id);
    image->manifest = xstrdup(manifest);
    image->layers = xnew_array(struct image_worker_layer *, count + 1);
    for (size_t i = 0; i < count; i++)
        image->layers[image->layers_count++] = load_report_layer(layers[i]);
    result->images = xrealloc(result->images, result->images_count + 1, sizeof(image));
    result->images[result->images_count++] = image;
    return image;
}

int load_add_image(struct load *load, const struct document *config,
                   const struct document *manifest, const struct staged_layer *const *layers,
                   size_t layers_count, struct image_worker_image **ret_image, struct error *err)
{
    _cleanup_oci_image_configuration_ struct oci_image_configuration *parsed = NULL;
    char composed[DIGEST_TEXT_SIZE];

    if (load->result->images_count >= ARCHIVE_IMAGES_MAX)
        return error_set(err, -EFBIG, "more than %d images (ARCHIVE_IMAGES_MAX)",
                         ARCHIVE_IMAGES_MAX);
    int r = oci_image_configuration_parse(config->text, config->length, config->path, &parsed, err);
    if (r == 0)
        r = check_diff_ids(config, parsed, layers, layers_count, err);
    if (r == 0)
        r = stage_document(load, config->digest, config->text, config->length, err);
    if (r == 0 && manifest)
        r = stage_document(load, manifest->digest, manifest->text, manifest->length, err);
    else if (r == 0)
        r = compose_manifest(load, config, layers, layers_count, composed, err);
    if (r < 0)
        return r;
    *ret_image = report_image(load, config->digest, manifest ? manifest->digest : composed, layers,
                              layers_count);
    return 0;
}

static const struct staged_layer *find_docker_layer(const struct load *load, const char *path,
                                                    struct error *err)
{
    _cleanup_free_ char *clean = NULL;

    if (tar_clean_path(path, &clean, err) < 0)
        return NULL;
    const struct staged_layer *layer = load_find_layer(load, clean);
    if (!layer)
        error_set(err, -EBADMSG, "manifest.json: the archive does not have the layer %.200s", path);
    return layer;
}

static int load_docker_image(struct load *load, const struct oci_image_docker_image *entry,
                             struct error *err)
{
    _cleanup_free_ char *config_path = NULL;
    _cleanup_free_ const struct staged_layer **layers =
        xnew_array(const struct staged_layer *, entry->layers_count + 1);
    struct image_worker_image *image;
    int r = tar_clean_path(entry->config, &config_path, err);

    if (r < 0)
        return error_context(err, "manifest.json: Config"), r;
    const struct document *config = load_find_document(load, config_path);
    if (!config)
        return error_set(err, -EBADMSG,
                         "manifest.json: the archive does not have the configuration %.200s",
                         entry->config);
    for (size_t i = 0; i < entry->layers_count; i++) {
        layers[i] = find_docker_layer(load, entry->layers[i], err);
        if (!layers[i])
            return err->code;
    }
    const struct document *manifest =
        load_find_manifest(load, config->digest, layers, entry->layers_count);
    r = load_count_reading(load, config, err);
    if (r == 0)
        r = load_add_image(load, config, manifest, layers, entry->layers_count, &image, err);
    if (r < 0)
        return r;
    image->names = strv_copy(entry->repo_tags);
    image->names_count = entry->repo_tags_count;
    return 0;
}

int load_docker_images(struct load *load, const struct document *manifest, struct error *err)
{
    _cleanup_oci_image_docker_archive_ struct oci_image_docker_archive *archive = NULL;
    int r = oci_image_docker_archive_parse(manifest->text, manifest->length, manifest->path,
                                           &archive, err);

    for (size_t i = 0; r == 0 && i < archive->images_count; i++)
        r = load_docker_image(load, archive->images[i], err);
    return r;
}
