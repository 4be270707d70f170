/*
 * Pushing: layers in several threads, then the configuration, then the manifest, which makes the
 * image appear. Layers that the store has as plain tars are packed on the way, and the manifest
 * says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>
#include <schema/oci_image.h>

#include "lanes.h"
#include "limits.h"
#include "manifest.h"
#include "push.h"
#include "requests.h"
#include "worker.h"

enum { ANSWER_MAX = 64 * 1024 };

static const char docker_manifest[] = "application/vnd.docker.distribution.manifest.v2+json";
static const char oci_manifest[] = "application/vnd.oci.image.manifest.v1+json";

struct layers {
    struct push *push;
    const struct image_worker_saved_image *image;
    struct push_blob *blobs; /* one a layer */
};

/* ---- blobs ---- */

static int add_file(struct push *push, const char *digest, struct error *err)
{
    if (!digest_is_valid(digest))
        return error_set(err, -EINVAL, "'%.100s' is no digest", digest ? digest : "");
    for (size_t i = 0; i < push->files_count; i++)
        if (text_equal(push->files[i].digest, digest))
            return 0;
    int fd = openat(IMAGE_FD_SOURCE, digest + strlen("sha256:"), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open blob %s", digest);
    push->files = xrealloc(push->files, push->files_count + 1, sizeof(*push->files));
    push->files[push->files_count++] = (struct push_file){digest, fd};
    return 0;
}

static int open_files(struct push *push, struct error *err)
{
    const struct image_worker_saved_image *image = push->request->image;
    int r = add_file(push, image->id, err);

    if (r == 0)
        r = add_file(push, image->manifest, err);
    for (size_t i = 0; r == 0 && i < image->layers_count; i++)
        r = add_file(push, image->layers[i]->blob, err);
    close(IMAGE_FD_SOURCE);
    return r;
}

static void close_files(struct push *push)
{
    for (size_t i = 0; i < push->files_count; i++)
        close_fd(push->files[i].fd);
    free(push->files);
}

/* Borrowed. */
static int find_file(const struct push *push, const char *digest)
{
    for (size_t i = 0; i < push->files_count; i++)
        if (text_equal(push->files[i].digest, digest))
            return push->files[i].fd;
    return -1;
}

static int open_blob(const struct push *push, const char *digest, struct push_blob *blob,
                     struct error *err)
{
    struct stat status;

    memcpy(blob->digest, digest, DIGEST_TEXT_SIZE);
    memcpy(blob->item, digest + strlen("sha256:"), 12);
    blob->fd = fcntl(find_file(push, digest), F_DUPFD_CLOEXEC, IMAGE_FD_COUNT);
    if (blob->fd < 0 || fstat(blob->fd, &status) < 0)
        return error_errno(err, errno, "open blob %s", digest);
    blob->size = (uint64_t)status.st_size;
    return 0;
}

static bool is_plain(const char *media_type)
{
    return !text_ends_with(media_type, "gzip") && !text_ends_with(media_type, "zstd");
}

static int push_layer(void *data, size_t place, struct http_lane *lane, struct error *err)
{
    struct layers *layers = data;
    const struct image_worker_layer *layer = layers->image->layers[place];
    struct push_blob *blob = &layers->blobs[place];
    int r = open_blob(layers->push, layer->blob, blob, err);

    blob->is_layer = true;
    if (r == 0 && is_plain(layer->media_type))
        r = pack_blob(blob, err);
    if (r == 0)
        r = push_blob(layers->push, lane, blob, err);
    close_fd(steal_fd(&blob->fd));
    return r < 0 ? error_context(err, "layer %.19s", layer->blob), r : 0;
}

static void tell(const struct layers *layers, size_t place, const char *step)
{
    char item[13] = "";

    memcpy(item, layers->image->layers[place]->blob + strlen("sha256:"), sizeof(item) - 1);
    message_item(item, step, 0, 0);
}

static int push_layers(struct layers *layers, struct error *err)
{
    const struct image_worker_push *request = layers->push->request;
    const struct lanes lanes = {
        .session = &layers->push->session,
        .count = layers->image->layers_count,
        .most = request->has_parallel ? request->parallel : PUSH_PARALLEL,
        .take = push_layer,
        .data = layers,
    };

    for (size_t i = 0; i < lanes.count; i++)
        tell(layers, i, "Preparing");
    for (size_t i = lanes.most; i < lanes.count; i++)
        tell(layers, i, "Waiting");
    return lanes_run(&lanes, err);
}

/* ---- the manifest ---- */

static bool is_repacked(const struct layers *layers, size_t place)
{
    return !text_equal(layers->blobs[place].digest, layers->image->layers[place]->blob);
}

static int rewrite(const struct layers *layers, struct oci_image_manifest *manifest,
                   struct error *err)
{
    bool docker = text_equal(manifest->media_type, docker_manifest);

    if (manifest->layers_count != layers->image->layers_count)
        return error_set(err, -EBADMSG, "the manifest has %zu layers, the image %zu",
                         manifest->layers_count, layers->image->layers_count);
    for (size_t i = 0; i < manifest->layers_count; i++) {
        struct oci_image_descriptor *descriptor = manifest->layers[i];
        if (!is_repacked(layers, i))
            continue;
        free(descriptor->digest);
        free(descriptor->media_type);
        descriptor->digest = xstrdup(layers->blobs[i].digest);
        descriptor->size = layers->blobs[i].size;
        descriptor->media_type =
            xstrdup(docker ? "application/vnd.docker.image.rootfs.diff.tar.gzip"
                           : "application/vnd.oci.image.layer.v1.tar+gzip");
    }
    return 0;
}

/* The manifest as the store has it, byte for byte, unless layers were packed. */
static int make_manifest(const struct layers *layers, struct buffer *text, char **ret_type,
                         struct error *err)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;
    _cleanup_free_ char *stored = NULL;
    const char *digest = layers->image->manifest;
    bool repacked = false;
    size_t length;

    int fd = find_file(layers->push, digest);
    if (lseek(fd, 0, SEEK_SET) < 0) /* another endpoint may have had it */
        return error_errno(err, errno, "read the manifest");
    int r = file_read_fd(fd, DOCUMENT_MAX, &stored, &length, err);
    if (r == 0)
        r = oci_image_manifest_parse(stored, length, digest, &manifest, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < layers->image->layers_count; i++)
        repacked = repacked || is_repacked(layers, i);
    if (repacked) {
        r = rewrite(layers, manifest, err);
        oci_image_manifest_write(manifest, text);
    } else {
        buffer_append(text, stored, length);
    }
    *ret_type = xstrdup(manifest->media_type ? manifest->media_type : oci_manifest);
    return r;
}

static int put_manifest(struct push *push, struct http_lane *lane, const struct buffer *text,
                        const char *type, const char *digest, struct error *err)
{
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_free_ char *url = session_url(&push->session, "%s/manifests/%s",
                                           push->request->repository, push->request->tag);

    call.request.method = "PUT";
    call.request.url = url;
    call.request.content_type = type;
    call.request.body = text->data;
    call.request.body_length = text->length;
    call.what = "manifest";
    int r = session_fetch(&push->session, lane, &call, &body, ANSWER_MAX, err);
    if (r < 0)
        return r;
    if (call.response.content_digest && !text_equal(call.response.content_digest, digest))
        return error_set(err, -EBADMSG, "%s: the registry has the manifest as %.100s, it is %s",
                         push->session.registry->name, call.response.content_digest, digest);
    return 0;
}

static int push_config(struct push *push, struct http_lane *lane, struct error *err)
{
    struct push_blob blob = {.fd = -1};
    int r = open_blob(push, push->request->image->id, &blob, err);

    if (r == 0)
        r = push_blob(push, lane, &blob, err);
    close_fd(blob.fd);
    return r < 0 ? error_context(err, "configuration"), r : 0;
}

static int push_documents(struct layers *layers, struct image_worker_pushed *pushed,
                          struct error *err)
{
    struct push *push = layers->push;
    _cleanup_http_lane_ struct http_lane *lane =
        http_lane_create(&push->session.endpoint->settings);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_free_ char *type = NULL;
    char digest[DIGEST_TEXT_SIZE];
    int r = push_config(push, lane, err);

    if (r == 0)
        r = make_manifest(layers, &text, &type, err);
    if (r < 0)
        return r;
    digest_of_text(text.data, text.length, digest);
    r = put_manifest(push, lane, &text, type, digest, err);
    free(pushed->digest);
    pushed->digest = xstrdup(digest);
    pushed->size = text.length;
    return r;
}

/* ---- endpoints ---- */

/* Also to read from where layers may be mounted from. */
static char *make_scope(const struct image_worker_push *request)
{
    _cleanup_strv_ char **scopes = NULL;

    strv_take(&scopes, xasprintf("repository:%s:pull,push", request->repository));
    for (size_t i = 0; i < request->mounts_count && i < MANIFEST_LAYERS_MAX; i++) {
        _cleanup_free_ char *scope =
            xasprintf("repository:%s:pull", request->mounts[i]->repository);
        if (!strv_contains(scopes, scope))
            strv_append(&scopes, scope);
    }
    return strv_join(scopes, " ");
}

static int push_to(struct push *push, const struct endpoint *endpoint,
                   struct image_worker_pushed *pushed, struct error *err)
{
    const struct image_worker_saved_image *image = push->request->image;
    struct layers layers = {
        .push = push,
        .image = image,
        .blobs = xnew_array(struct push_blob, image->layers_count + 1),
    };
    _cleanup_free_ char *scope = make_scope(push->request);

    for (size_t i = 0; i < image->layers_count; i++)
        layers.blobs[i].fd = -1;
    session_use(&push->session, endpoint, scope);
    push->session.stop = false;
    int r = push_layers(&layers, err);
    if (r == 0)
        r = push_documents(&layers, pushed, err);
    free(layers.blobs);
    return r;
}

/* Mirrors are for reading. */
static int push_to_any(struct push *push, struct image_worker_pushed *pushed, struct error *err)
{
    struct session *session = &push->session;

    for (size_t i = 0; i < session->endpoints_count; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        if (session->endpoints[i].given->mirror)
            continue;
        int r = push_to(push, &session->endpoints[i], pushed, &reason);
        if (r == 0)
            return 0;
        if (!session_may_go_on(session, r))
            return error_move(err, &reason);
    }
    return error_set(err, -EINVAL, "%s: there are only mirrors of it", session->registry->name);
}

int registry_push(const struct image_worker_push *request, struct image_worker_result **ret,
                  struct error *err)
{
    const struct jail jail = {.has_staging = true, .has_network = true};
    struct push push = {.request = request};
    _cleanup_image_worker_result_ struct image_worker_result *result =
        xnew(struct image_worker_result);
    int r = session_open(&push.session, request->registry, err);

    result->pushed = xnew(struct image_worker_pushed);
    if (r == 0)
        r = open_files(&push, err);
    if (r == 0)
        r = jail_enter(&jail, err);
    if (r == 0)
        r = push_to_any(&push, result->pushed, err);
    session_close(&push.session);
    close_files(&push);
    if (r == 0)
        *ret = steal_ptr(result);
    return r;
}
