/*
 * Pulling: the manifest, through an index to the one for the platform, the configuration, then the
 * layers. Every document is compared with the digest it was asked by.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/text.h>
#include <image/descriptors.h>
#include <schema/registry_answers.h>

#include "limits.h"
#include "manifest.h"
#include "pull.h"
#include "requests.h"
#include "worker.h"

void fetched_finish(struct fetched *fetched)
{
    free(fetched->document.path);
    free(fetched->document.text);
    free(fetched->content_type);
}

void pull_item(const char *digest, char ret[13])
{
    memcpy(ret, digest + strlen("sha256:"), 12);
    ret[12] = '\0';
}

int pull_document(struct pull *pull, const char *kind, const char *reference, const char *digest,
                  struct fetched *ret, struct error *err)
{
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_free_ char *url =
        session_url(&pull->session, "%s/%s/%s", pull->request->repository, kind, reference);
    _cleanup_free_ char *what = xasprintf("%s of %s", reference, pull->request->repository);
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;

    call.request.url = url;
    call.request.accept = text_equal(kind, "manifests") ? manifest_types : NULL;
    call.what = what;
    int r = session_fetch(&pull->session, pull->lane, &call, &body, DOCUMENT_MAX, err);
    if (r < 0)
        return r;
    ret->document.length = body.length;
    ret->document.text = buffer_steal(&body);
    ret->document.path = steal_ptr(what);
    ret->content_type = steal_ptr(call.response.content_type);
    digest_of_text(ret->document.text, ret->document.length, ret->document.digest);
    if (digest && !text_equal(digest, ret->document.digest))
        return error_set(err, -EBADMSG, "%s: its content has the digest %s", ret->document.path,
                         ret->document.digest);
    const char *promised = call.response.content_digest;
    if (!digest && digest_is_valid(promised) && !text_equal(promised, ret->document.digest))
        return error_set(err, -EBADMSG, "%s: its content has the digest %s, the server says %s",
                         ret->document.path, ret->document.digest, promised);
    return 0;
}

static int fetch_described(struct pull *pull, const char *kind,
                           const struct oci_image_descriptor *descriptor, struct fetched *ret,
                           struct error *err)
{
    int r = pull_document(pull, kind, descriptor->digest, descriptor->digest, ret, err);

    if (r == 0 && ret->document.length != descriptor->size)
        return error_set(err, -EBADMSG, "%s: it has %zu bytes, not %llu", ret->document.path,
                         ret->document.length, (unsigned long long)descriptor->size);
    return r;
}

/* Replaces an index by the manifest for the platform. */
static int follow_index(struct pull *pull, struct fetched *fetched, struct error *err)
{
    _cleanup_oci_image_index_ struct oci_image_index *index = NULL;
    const struct oci_image_descriptor *chosen;
    struct fetched next = {0};
    int r = oci_image_index_parse(fetched->document.text, fetched->document.length,
                                  fetched->document.path, &index, err);

    if (r == 0) {
        r = manifest_choose(index, pull->request->platform, &chosen, err);
        if (r < 0)
            error_context(err, "%s", fetched->document.path);
    }
    if (r == 0)
        r = fetch_described(pull, "manifests", chosen, &next, err);
    if (r < 0) {
        fetched_finish(&next);
        return r;
    }
    fetched_finish(fetched);
    *fetched = next;
    return 0;
}

static int find_manifest(struct pull *pull, struct fetched *fetched, struct error *err)
{
    for (int depth = 0;; depth++) {
        bool is_index = false;
        int r = manifest_is_index(fetched->document.text, fetched->document.length,
                                  fetched->content_type, &is_index, err);
        if (r < 0)
            return error_context(err, "%s", fetched->document.path), r;
        if (!is_index)
            return 0;
        if (depth >= MANIFEST_DEPTH_MAX)
            return error_set(err, -ELOOP, "%s: more than %d indexes inside each other",
                             fetched->document.path, MANIFEST_DEPTH_MAX);
        r = follow_index(pull, fetched, err);
        if (r < 0)
            return r;
    }
}

/* Images behind this one may have them, too. */
static void keep_layers(struct load *load, const struct staged_layer *layers, size_t count)
{
    load->layers = xrealloc(load->layers, load->layers_count + count + 1, sizeof(*layers));
    memcpy(load->layers + load->layers_count, layers, count * sizeof(*layers));
    load->layers_count += count;
}

static int add_image(struct pull *pull, const struct fetched *manifest_text,
                     const struct oci_image_manifest *manifest, const struct fetched *config_text,
                     struct image_worker_image **ret, struct error *err)
{
    _cleanup_oci_image_configuration_ struct oci_image_configuration *config = NULL;
    size_t count = manifest->layers_count;
    _cleanup_free_ struct staged_layer *layers = xnew_array(struct staged_layer, count + 1);
    _cleanup_free_ const struct staged_layer **list =
        xnew_array(const struct staged_layer *, count + 1);
    int r = oci_image_configuration_parse(config_text->document.text, config_text->document.length,
                                          config_text->document.path, &config, err);

    if (r == 0 && config->rootfs->diff_ids_count != count)
        r = error_set(err, -EBADMSG, "%s: rootfs.diff_ids: %zu for the %zu layers of the image",
                      config_text->document.path, config->rootfs->diff_ids_count, count);
    if (r == 0)
        r = pull_layers(pull, manifest, config, layers, err);
    for (size_t i = 0; i < count; i++)
        list[i] = &layers[i];
    if (r == 0)
        r = load_add_image(&pull->load, &config_text->document, &manifest_text->document, list,
                           count, ret, err);
    keep_layers(&pull->load, layers, count);
    return r;
}

static int pull_manifest(struct pull *pull, const struct fetched *manifest_text,
                         struct image_worker_image **ret, struct error *err)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;
    _cleanup_fetched_ struct fetched config = {0};
    int r = oci_image_manifest_parse(manifest_text->document.text, manifest_text->document.length,
                                     manifest_text->document.path, &manifest, err);

    if (r == 0) {
        r = manifest_check(manifest, err);
        if (r < 0)
            error_context(err, "%s", manifest_text->document.path);
    }
    if (r == 0)
        r = fetch_described(pull, "blobs", manifest->config, &config, err);
    if (r == 0)
        r = add_image(pull, manifest_text, manifest, &config, ret, err);
    return r;
}

static void name_image(struct image_worker_image *image, const char *reference, const char *digest)
{
    free(image->tag);
    free(image->digest);
    image->tag = digest_is_valid(reference) ? NULL : xstrdup(reference);
    image->digest = xstrdup(digest);
}

static int pull_reference(struct pull *pull, const char *reference, struct error *err)
{
    _cleanup_fetched_ struct fetched manifest = {0};
    struct image_worker_image *image = NULL;
    char digest[DIGEST_TEXT_SIZE];
    int r = pull_document(pull, "manifests", reference,
                          digest_is_valid(reference) ? reference : NULL, &manifest, err);

    if (r < 0)
        return r;
    _cleanup_free_ char *step = xasprintf("Pulling from %s", pull->request->repository);
    message_item(reference, step, 0, 0);
    memcpy(digest, manifest.document.digest, sizeof(digest));
    r = find_manifest(pull, &manifest, err);
    if (r < 0)
        return r;
    r = pull_manifest(pull, &manifest, &image, err);
    if (r < 0)
        return r;
    name_image(image, reference, digest);
    return 0;
}

/* ---- endpoints and tags ---- */

/* *url becomes that of the next page. */
static int read_tags(struct pull *pull, char **url, const char *path, char ***tags,
                     struct error *err)
{
    _cleanup_answer_tags_ struct answer_tags *answer = NULL;
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;

    call.request.url = *url;
    call.what = "list of tags";
    int r = session_fetch(&pull->session, pull->lane, &call, &body, DOCUMENT_MAX, err);
    if (r == 0)
        r = answer_tags_parse(buffer_text(&body), body.length, "list of tags", &answer, err);
    if (r == 0 && answer->tags_count + strv_length(*tags) > PULL_TAGS_MAX)
        r = error_set(err, -EFBIG, "%s has more than %d tags", pull->request->repository,
                      PULL_TAGS_MAX);
    for (size_t i = 0; r == 0 && i < answer->tags_count; i++)
        strv_append(tags, answer->tags[i]);
    bool more = r == 0 && answer->tags_count;
    char *next = more ? session_next_page(&pull->session, call.response.link, path) : NULL;
    free(*url);
    *url = next;
    return r;
}

static int list_tags(struct pull *pull, char ***ret, struct error *err)
{
    _cleanup_strv_ char **tags = NULL;
    _cleanup_free_ char *path = xasprintf("%s/tags/list", pull->request->repository);
    _cleanup_free_ char *url = session_url(&pull->session, "%s?n=%d", path, PULL_TAGS_MAX);
    int r = 0;

    while (r == 0 && url)
        r = read_tags(pull, &url, path, &tags, err);
    if (r == 0 && !tags)
        r = error_set(err, -ENOENT, "%s has 0 tags", pull->request->repository);
    if (r == 0)
        *ret = steal_ptr(tags);
    return r;
}

/* Tags come from outside and become part of an address. */
static bool is_tag(const char *text)
{
    size_t length = strlen(text);

    return length && length <= 128 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") ==
               length;
}

static int pull_all(struct pull *pull, struct error *err)
{
    _cleanup_strv_ char **tags = NULL;
    int r = list_tags(pull, &tags, err);

    for (size_t i = 0; r == 0 && tags && tags[i]; i++) {
        if (!is_tag(tags[i]))
            return error_set(err, -EBADMSG, "the registry lists a tag that can be none");
        r = pull_reference(pull, tags[i], err);
    }
    return r;
}

static int pull_from(struct pull *pull, const struct endpoint *endpoint, struct error *err)
{
    _cleanup_free_ char *scope = xasprintf("repository:%s:pull", pull->request->repository);

    session_use(&pull->session, endpoint, scope);
    pull->lane = http_lane_create(&endpoint->settings);
    int r = pull->request->all_tags ? pull_all(pull, err)
                                    : pull_reference(pull, pull->request->reference, err);
    http_lane_destroy(steal_ptr(pull->lane));
    return r;
}

static int pull_from_any(struct pull *pull, struct error *err)
{
    struct session *session = &pull->session;

    for (size_t i = 0;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        int r = pull_from(pull, &session->endpoints[i], &reason);
        if (r == 0)
            return 0;
        if (!session_may_go_on(session, r))
            return error_move(err, &reason);
        image_worker_result_free(pull->load.result);
        pull->load.result = xnew(struct image_worker_result);
    }
}

static int make_folders(int staging_fd, struct error *err)
{
    if (mkdirat(staging_fd, "layers", 0700) < 0 ||
        (mkdirat(staging_fd, "content", 0700) < 0 && errno != EEXIST))
        return error_errno(err, errno, "create folders in staging");
    return 0;
}

static int pull_in_jail(struct pull *pull, struct error *err)
{
    const struct jail jail = {.has_staging = true, .has_network = true};
    int r = jail_enter(&jail, err);

    if (r == 0)
        r = make_folders(pull->load.staging_fd, err);
    return r < 0 ? r : pull_from_any(pull, err);
}

int registry_pull(const struct image_worker_pull *request, struct image_worker_result **ret,
                  struct error *err)
{
    struct pull pull = {
        .request = request,
        .load = {.staging_fd = IMAGE_FD_STAGING, .platform = request->platform},
    };

    if (!request->all_tags && text_empty(request->reference))
        return error_set(err, -EINVAL, "pull: neither a reference nor all tags");
    pull.load.result = xnew(struct image_worker_result);
    int r = session_open(&pull.session, request->registry, err);
    if (r == 0)
        r = pull_in_jail(&pull, err);
    if (r == 0)
        *ret = steal_ptr(pull.load.result);
    session_close(&pull.session);
    load_finish(&pull.load);
    return r;
}
