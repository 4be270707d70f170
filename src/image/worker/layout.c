/* OCI layouts: index.json, indexes below it, manifests. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "limits.h"
#include "load.h"
#include "platform.h"

static int find_described(const struct load *load, const struct oci_image_descriptor *descriptor,
                          const char *source, const struct document **ret, struct error *err)
{
    if (!digest_is_valid(descriptor->digest))
        return error_set(err, -EBADMSG, "%s: the digest '%.100s' is not of the form sha256:HEX",
                         source, descriptor->digest);
    const struct document *document = load_find_blob_document(load, descriptor->digest);
    if (!document)
        return error_set(err, -EBADMSG, "%s: the archive does not have %s", source,
                         descriptor->digest);
    if (document->length != descriptor->size)
        return error_set(err, -EBADMSG, "%s: %s has %zu bytes, not %llu", source,
                         descriptor->digest, document->length,
                         (unsigned long long)descriptor->size);
    *ret = document;
    return 0;
}

static int find_layers(const struct load *load, const struct document *document,
                       const struct oci_image_manifest *manifest,
                       const struct staged_layer **layers, struct error *err)
{
    for (size_t i = 0; i < manifest->layers_count; i++) {
        const struct oci_image_descriptor *descriptor = manifest->layers[i];
        if (!digest_is_valid(descriptor->digest))
            return error_set(err, -EBADMSG,
                             "%s: layer %zu: the digest '%.100s' is not of the form "
                             "sha256:HEX",
                             document->path, i + 1, descriptor->digest);
        _cleanup_free_ char *path = xasprintf("blobs/sha256/%s", descriptor->digest + 7);
        layers[i] = load_find_layer(load, path);
        if (!layers[i])
            return error_set(err, -EBADMSG,
                             "%s: the archive does not have layer %zu, %s, or it is "
                             "no tar",
                             document->path, i + 1, descriptor->digest);
        if (layers[i]->blob_size != descriptor->size)
            return error_set(err, -EBADMSG, "%s: layer %zu, %s, has %llu bytes, not %llu",
                             document->path, i + 1, descriptor->digest,
                             (unsigned long long)layers[i]->blob_size,
                             (unsigned long long)descriptor->size);
    }
    return 0;
}

static int load_manifest(struct load *load, const struct document *document,
                         struct image_worker_image **ret, struct error *err)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;
    const struct document *config;
    int r =
        oci_image_manifest_parse(document->text, document->length, document->path, &manifest, err);

    if (r < 0)
        return r;
    _cleanup_free_ const struct staged_layer **layers =
        xnew_array(const struct staged_layer *, manifest->layers_count + 1);
    r = find_described(load, manifest->config, document->path, &config, err);
    if (r == 0)
        r = find_layers(load, document, manifest, layers, err);
    if (r == 0)
        r = load_add_image(load, config, document, layers, manifest->layers_count, ret, err);
    return r;
}

static int no_platform(const struct load *load, const char *source, struct error *err)
{
    return error_set(err, -ENOENT, "%s: there is no image for %s/%s", source, load->platform->os,
                     load->platform->architecture);
}

int load_count_reading(struct load *load, const struct document *document, struct error *err)
{
    load->read_bytes += document->length + DOCUMENT_COST;
    if (load->read_bytes > READ_BYTES_MAX)
        return error_set(err, -EFBIG,
                         "its indexes name the same documents too often: more than %llu MiB would "
                         "have to be read (READ_BYTES_MAX)",
                         READ_BYTES_MAX >> 20);
    return 0;
}

/* Follows a nested index to the manifest for this machine. */
static int choose_manifest(struct load *load, const struct oci_image_descriptor *descriptor,
                           const char *source, int depth, const struct document **ret,
                           struct error *err)
{
    _cleanup_oci_image_index_ struct oci_image_index *index = NULL;
    const struct oci_image_descriptor *best = NULL;
    const struct document *document;
    int best_rank = 0;
    int r = find_described(load, descriptor, source, &document, err);

    if (r < 0)
        return r;
    if (!platform_is_index(descriptor->media_type)) {
        *ret = document;
        return 0;
    }
    if (depth >= INDEX_DEPTH_MAX)
        return error_set(err, -ELOOP, "%s: more than %d indexes inside each other", source,
                         INDEX_DEPTH_MAX);
    r = load_count_reading(load, document, err);
    if (r == 0)
        r = oci_image_index_parse(document->text, document->length, document->path, &index, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < index->manifests_count; i++) {
        int rank = platform_rank(load->platform, index->manifests[i]->platform);
        if (rank > best_rank) {
            best_rank = rank;
            best = index->manifests[i];
        }
    }
    if (!best)
        return no_platform(load, document->path, err);
    return choose_manifest(load, best, document->path, depth + 1, ret, err);
}

static void add_name(char ***list, size_t *count, const char *name)
{
    if (text_empty(name) || strv_contains(*list, name))
        return;
    strv_append(list, name);
    (*count)++;
}

/* containerd's annotation is a whole name. The specification's own is free text: other tools write
 * names there, or only a tag; of those "latest" says nothing. */
static void add_names(struct image_worker_image *image,
                      const struct oci_image_descriptor *descriptor)
{
    const char *full = json_string_map_get(descriptor->annotations, "io.containerd.image.name");
    const char *reference =
        json_string_map_get(descriptor->annotations, "org.opencontainers.image.ref.name");

    if (!text_empty(full))
        add_name(&image->names, &image->names_count, full);
    else if (!text_equal(reference, "latest"))
        add_name(&image->suggested_names, &image->suggested_names_count, reference);
}

static struct image_worker_image *find_image(const struct load *load, const char *manifest)
{
    for (size_t i = 0; i < load->result->images_count; i++)
        if (text_equal(load->result->images[i]->manifest, manifest))
            return load->result->images[i];
    return NULL;
}

static int load_described(struct load *load, const struct oci_image_descriptor *descriptor,
                          const char *source, struct error *err)
{
    const struct document *document;
    int r = choose_manifest(load, descriptor, source, 0, &document, err);

    if (r < 0)
        return r;
    /* Several names for one manifest are several descriptors. */
    struct image_worker_image *image = find_image(load, document->digest);
    if (!image)
        r = load_count_reading(load, document, err);
    if (!image && r == 0)
        r = load_manifest(load, document, &image, err);
    if (r == 0)
        add_names(image, descriptor);
    return r;
}

int load_layout_images(struct load *load, const struct document *document, struct error *err)
{
    _cleanup_oci_image_index_ struct oci_image_index *index = NULL;
    size_t taken = 0;
    int r = oci_image_index_parse(document->text, document->length, document->path, &index, err);

    for (size_t i = 0; r == 0 && i < index->manifests_count; i++) {
        if (platform_rank(load->platform, index->manifests[i]->platform) == 0)
            continue;
        taken++;
        r = load_described(load, index->manifests[i], document->path, err);
    }
    if (r == 0 && taken == 0)
        return no_platform(load, document->path, err);
    return r;
}

/* What is sought in the indexes of a docker-archive. */
struct search {
    struct load *load;
    const char *config_digest;
    const struct staged_layer *const *layers;
    size_t count;
};

static bool is_sought(const struct search *search, const struct document *document)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;

    if (oci_image_manifest_parse(document->text, document->length, NULL, &manifest, NULL) < 0 ||
        !text_equal(manifest->config->digest, search->config_digest) ||
        manifest->layers_count != search->count)
        return false;
    for (size_t i = 0; i < search->count; i++)
        if (!text_equal(manifest->layers[i]->digest, search->layers[i]->blob))
            return false;
    return true;
}

/* Depth first through whatever can be read; what cannot is not ours to judge here. */
static const struct document *search_manifest(const struct search *search,
                                              const struct document *document, bool is_an_index,
                                              int depth)
{
    _cleanup_oci_image_index_ struct oci_image_index *index = NULL;

    if (depth > INDEX_DEPTH_MAX || load_count_reading(search->load, document, NULL) < 0)
        return NULL;
    if (!is_an_index)
        return is_sought(search, document) ? document : NULL;
    if (oci_image_index_parse(document->text, document->length, NULL, &index, NULL) < 0)
        return NULL;
    for (size_t i = 0; i < index->manifests_count; i++) {
        const struct oci_image_descriptor *descriptor = index->manifests[i];
        const struct document *below = load_find_blob_document(search->load, descriptor->digest);
        const struct document *found =
            below ? search_manifest(search, below, platform_is_index(descriptor->media_type),
                                    depth + 1)
                  : NULL;
        if (found)
            return found;
    }
    return NULL;
}

const struct document *load_find_manifest(struct load *load, const char *config_digest,
                                          const struct staged_layer *const *layers, size_t count)
{
    const struct search search = {load, config_digest, layers, count};
    const struct document *index = load_find_document(load, "index.json");

    return index ? search_manifest(&search, index, true, 0) : NULL;
}
