#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/registry_answers.h>

#include "limits.h"
#include "load.h"
#include "manifest.h"
#include "platform.h"

const char manifest_types[] = "application/vnd.oci.image.index.v1+json, "
                              "application/vnd.oci.image.manifest.v1+json, "
                              "application/vnd.docker.distribution.manifest.list.v2+json, "
                              "application/vnd.docker.distribution.manifest.v2+json";

static bool is_manifest(const char *media_type)
{
    return text_equal(media_type, "application/vnd.oci.image.manifest.v1+json") ||
           text_equal(media_type, "application/vnd.docker.distribution.manifest.v2+json");
}

static bool is_schema_1(const struct answer_manifest_version *version, const char *content_type)
{
    return version->schema_version == 1 || version->signatures ||
           text_starts_with(content_type ? content_type : "",
                            "application/vnd.docker.distribution.manifest.v1");
}

/* Some registries send everything as plain JSON. */
static bool says_something(const char *content_type)
{
    return platform_is_index(content_type) || is_manifest(content_type);
}

static int check_agreement(const struct answer_manifest_version *version, const char *content_type,
                           struct error *err)
{
    if (version->media_type && says_something(content_type) &&
        !text_equal(version->media_type, content_type))
        return error_set(err, -EBADMSG, "it is sent as %.100s and calls itself %.100s",
                         content_type, version->media_type);
    if (version->manifests && version->config)
        return error_set(err, -EBADMSG, "it is a manifest and an index at once");
    return 0;
}

int manifest_is_index(const char *text, size_t length, const char *content_type, bool *ret,
                      struct error *err)
{
    _cleanup_answer_manifest_version_ struct answer_manifest_version *version = NULL;
    int r = answer_manifest_version_parse(text, length, "manifest", &version, err);

    if (r < 0)
        return r;
    if (is_schema_1(version, content_type)) {
        error_set(err, -EOPNOTSUPP, "it is of schema 1, which was given up in 2017");
        error_hint(err, "push it anew with a tool of this decade, or ask whoever publishes it to");
        return -EOPNOTSUPP;
    }
    r = check_agreement(version, content_type, err);
    if (r < 0)
        return r;
    const char *type = says_something(content_type) ? content_type : version->media_type;
    if (platform_is_index(type) || (!is_manifest(type) && version->manifests)) {
        *ret = true;
        return 0;
    }
    if (!is_manifest(type) && !version->config)
        return error_set(err, -EPROTO, "it is neither a manifest nor an index (%.100s)",
                         type ? type : "of no type");
    *ret = false;
    return 0;
}

int manifest_choose(const struct oci_image_index *index,
                    const struct image_worker_platform *platform,
                    const struct oci_image_descriptor **ret, struct error *err)
{
    const struct oci_image_descriptor *best = NULL;
    int best_rank = 0;

    for (size_t i = 0; i < index->manifests_count; i++) {
        const struct oci_image_descriptor *descriptor = index->manifests[i];
        int rank = descriptor->media_type && !says_something(descriptor->media_type)
                       ? 0
                       : platform_rank(platform, descriptor->platform);
        if (rank > best_rank) {
            best_rank = rank;
            best = descriptor;
        }
    }
    if (!best)
        return error_set(err, -ENOENT,
                         "no matching manifest for %s/%s%s%s in the manifest list entries",
                         platform->os, platform->architecture, platform->variant ? "/" : "",
                         platform->variant ? platform->variant : "");
    if (!digest_is_valid(best->digest) || best->size > DOCUMENT_MAX)
        return error_set(err, -EBADMSG, "the entry for %s/%s has digest '%.100s' and size %llu",
                         platform->os, platform->architecture, best->digest,
                         (unsigned long long)best->size);
    *ret = best;
    return 0;
}

/* Whatever else is kept in registries has manifests, too. */
static bool is_image_configuration(const char *media_type)
{
    return text_empty(media_type) ||
           text_equal(media_type, "application/vnd.oci.image.config.v1+json") ||
           text_equal(media_type, "application/vnd.docker.container.image.v1+json") ||
           text_equal(media_type, "application/octet-stream");
}

int manifest_check(const struct oci_image_manifest *manifest, struct error *err)
{
    const struct oci_image_descriptor *config = manifest->config;

    if (!is_image_configuration(config->media_type))
        return error_set(err, -EOPNOTSUPP, "it is no image of a container but %.100s",
                         config->media_type);
    if (!digest_is_valid(config->digest) || config->size > DOCUMENT_MAX)
        return error_set(err, -EBADMSG, "its configuration has digest '%.100s' and size %llu",
                         config->digest, (unsigned long long)config->size);
    if (manifest->layers_count > MANIFEST_LAYERS_MAX)
        return error_set(err, -EFBIG, "it has %zu layers, at most %d are possible",
                         manifest->layers_count, MANIFEST_LAYERS_MAX);
    for (size_t i = 0; i < manifest->layers_count; i++) {
        const struct oci_image_descriptor *layer = manifest->layers[i];
        if (!digest_is_valid(layer->digest) || layer->size > LAYER_BYTES_MAX)
            return error_set(err, -EBADMSG, "layer %zu has digest '%.100s' and size %llu", i + 1,
                             layer->digest, (unsigned long long)layer->size);
    }
    return 0;
}
