/*
 * What a registry has under a name: the manifest or index, and which platforms it is for. Of an
 * image's own manifest only its configuration tells that.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "manifest.h"
#include "pull.h"
#include "requests.h"
#include "worker.h"

static void add_platform(struct image_worker_described *described, struct oci_image_platform *taken)
{
    described->platforms = xrealloc(described->platforms, described->platforms_count + 1,
                                    sizeof(*described->platforms));
    described->platforms[described->platforms_count++] = taken;
}

static int describe_index(struct image_worker_described *described, const struct fetched *document,
                          struct error *err)
{
    _cleanup_oci_image_index_ struct oci_image_index *index = NULL;
    int r = oci_image_index_parse(document->document.text, document->document.length,
                                  document->document.path, &index, err);

    for (size_t i = 0; r == 0 && i < index->manifests_count; i++)
        if (index->manifests[i]->platform)
            add_platform(described, steal_ptr(index->manifests[i]->platform));
    return r;
}

static int describe_image(struct pull *pull, struct image_worker_described *described,
                          const struct fetched *document, struct error *err)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;
    _cleanup_oci_image_configuration_ struct oci_image_configuration *config = NULL;
    _cleanup_fetched_ struct fetched text = {0};
    int r = oci_image_manifest_parse(document->document.text, document->document.length,
                                     document->document.path, &manifest, err);

    if (r == 0)
        r = manifest_check(manifest, err);
    if (r == 0)
        r = pull_document(pull, "blobs", manifest->config->digest, manifest->config->digest, &text,
                          err);
    if (r == 0)
        r = oci_image_configuration_parse(text.document.text, text.document.length,
                                          text.document.path, &config, err);
    if (r < 0)
        return r;
    struct oci_image_platform *platform = xnew(struct oci_image_platform);
    platform->os = steal_ptr(config->os);
    platform->architecture = steal_ptr(config->architecture);
    platform->variant = steal_ptr(config->variant);
    platform->os_version = steal_ptr(config->os_version);
    add_platform(described, platform);
    return 0;
}

static const char *type_of(const struct fetched *document, bool is_index)
{
    if (!text_empty(document->content_type))
        return document->content_type;
    return is_index ? "application/vnd.oci.image.index.v1+json"
                    : "application/vnd.oci.image.manifest.v1+json";
}

static int describe(struct pull *pull, struct image_worker_described **ret, struct error *err)
{
    _cleanup_image_worker_described_ struct image_worker_described *described =
        xnew(struct image_worker_described);
    _cleanup_fetched_ struct fetched document = {0};
    const char *reference = pull->request->reference;
    bool is_index = false;
    int r = pull_document(pull, "manifests", reference,
                          digest_is_valid(reference) ? reference : NULL, &document, err);

    if (r == 0)
        r = manifest_is_index(document.document.text, document.document.length,
                              document.content_type, &is_index, err);
    if (r == 0)
        r = is_index ? describe_index(described, &document, err)
                     : describe_image(pull, described, &document, err);
    if (r < 0)
        return r;
    described->media_type = xstrdup(type_of(&document, is_index));
    described->digest = xstrdup(document.document.digest);
    described->size = document.document.length;
    *ret = steal_ptr(described);
    return 0;
}

static int describe_any(struct pull *pull, struct image_worker_described **ret, struct error *err)
{
    _cleanup_free_ char *scope = xasprintf("repository:%s:pull", pull->request->repository);

    for (size_t i = 0;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        session_use(&pull->session, &pull->session.endpoints[i], scope);
        pull->lane = http_lane_create(&pull->session.endpoint->settings);
        int r = describe(pull, ret, &reason);
        http_lane_destroy(steal_ptr(pull->lane));
        if (r == 0)
            return 0;
        if (!session_may_go_on(&pull->session, r))
            return error_move(err, &reason);
    }
}

int registry_describe(const struct image_worker_describe *request, struct image_worker_result **ret,
                      struct error *err)
{
    const struct jail jail = {.has_network = true};
    const struct image_worker_pull as_pull = {.registry = request->registry,
                                              .repository = request->repository,
                                              .reference = request->reference};
    _cleanup_image_worker_result_ struct image_worker_result *result =
        xnew(struct image_worker_result);
    struct pull pull = {.request = &as_pull};
    int r = session_open(&pull.session, request->registry, err);

    if (r == 0)
        r = jail_enter(&jail, err);
    if (r == 0)
        r = describe_any(&pull, &result->described, err);
    session_close(&pull.session);
    if (r == 0)
        *ret = steal_ptr(result);
    return r;
}
