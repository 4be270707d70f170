/*
 * The layers of an image: several threads, each with a connection, take one after the other. What
 * comes in is summed up, kept and unpacked at once (worker/layer.c).
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

#include "blob.h"
#include "lanes.h"
#include "pull.h"
#include "worker.h"

struct layers {
    struct pull *pull;
    const struct oci_image_manifest *manifest;
    const struct oci_image_configuration *config;
    struct staged_layer *layers;
    size_t *wanted; /* places of those that are to be fetched */
    size_t wanted_count;
};

/* ---- what is there ---- */

static const struct image_worker_known_layer *find_known(const struct image_worker_pull *request,
                                                         const char *blob, const char *diff_id,
                                                         const char *chain)
{
    for (size_t i = 0; i < request->known_count; i++) {
        const struct image_worker_known_layer *known = request->known[i];
        if (text_equal(known->blob, blob) && text_equal(known->diff_id, diff_id) &&
            (text_equal(known->key, diff_id) || text_equal(known->key, chain)))
            return known;
    }
    return NULL;
}

static enum compression compression_of(const char *media_type)
{
    if (text_ends_with(media_type, "gzip"))
        return COMPRESSION_GZIP;
    return text_ends_with(media_type, "zstd") ? COMPRESSION_ZSTD : COMPRESSION_NONE;
}

static void note_known(struct staged_layer *layer, const struct image_worker_known_layer *known)
{
    memcpy(layer->blob, known->blob, sizeof(layer->blob));
    memcpy(layer->diff_id, known->diff_id, sizeof(layer->diff_id));
    layer->blob_size = known->blob_size;
    layer->size = known->size;
    layer->media_type = known->media_type;
    layer->compression = compression_of(known->media_type);
    layer->present = true;
}

/* Of an image before this one. */
static bool find_staged(const struct load *load, const char *blob, const char *diff_id,
                        struct staged_layer *layer)
{
    for (size_t i = 0; i < load->layers_count; i++) {
        const struct staged_layer *staged = &load->layers[i];
        if (!text_equal(staged->blob, blob) || !text_equal(staged->diff_id, diff_id))
            continue;
        char *path = layer->path;
        *layer = *staged;
        layer->path = path;
        layer->implicit = strv_copy(staged->implicit);
        return true;
    }
    return false;
}

/* An earlier place with the same blob. */
static const struct staged_layer *find_twin(const struct layers *layers, size_t place)
{
    const struct oci_image_descriptor *const *list =
        (const struct oci_image_descriptor *const *)layers->manifest->layers;

    for (size_t i = 0; i < place; i++)
        if (text_equal(list[i]->digest, list[place]->digest))
            return &layers->layers[i];
    return NULL;
}

/* ChainID of the image specification (config.md). */
static void chain(char text[DIGEST_TEXT_SIZE], const char *diff_id)
{
    if (!text[0]) {
        memcpy(text, diff_id, DIGEST_TEXT_SIZE);
        return;
    }
    _cleanup_free_ char *both = xasprintf("%s %s", text, diff_id);
    digest_of_text(both, strlen(both), text);
}

static void tell(const char *digest, const char *step)
{
    char item[13];

    pull_item(digest, item);
    message_item(item, step, 0, 0);
}

static int sort_out(struct layers *layers, struct error *err)
{
    char chain_id[DIGEST_TEXT_SIZE] = "";

    for (size_t i = 0; i < layers->manifest->layers_count; i++) {
        const char *digest = layers->manifest->layers[i]->digest;
        const char *diff_id = layers->config->rootfs->diff_ids[i];
        if (!digest_is_valid(diff_id))
            return error_set(err, -EBADMSG, "the diff ID of layer %zu is '%.100s'", i + 1, diff_id);
        chain(chain_id, diff_id);
        layers->layers[i].path = xstrdup(digest);
        const struct image_worker_known_layer *known =
            find_known(layers->pull->request, digest, diff_id, chain_id);
        if (known)
            note_known(&layers->layers[i], known);
        else if (!find_staged(&layers->pull->load, digest, diff_id, &layers->layers[i]) &&
                 !find_twin(layers, i))
            layers->wanted[layers->wanted_count++] = i;
        tell(digest, known ? "Already exists" : "Pulling fs layer");
    }
    return 0;
}

/* ---- fetching ---- */

/* What an earlier pull left, as long as it may be the beginning of this blob. */
static int open_partial(const char *name, uint64_t size, uint64_t *ret_length)
{
    _cleanup_free_ char *path = xasprintf("content/%s", name);
    int fd = openat(IMAGE_FD_STAGING, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;

    *ret_length = 0;
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_size > size) {
        close_fd(fd);
        unlinkat(IMAGE_FD_STAGING, path, 0);
        return -1;
    }
    *ret_length = (uint64_t)status.st_size;
    return fd;
}

/* What came is of use to a later attempt when the rest could not be had, or there was no room.
 * After any other failure it is suspect: what is wrong with it shows in the digest, but also, and
 * before that, in whatever it is unpacked to. */
static bool is_worth_keeping(int r, bool broken)
{
    return broken || r == -ECANCELED || r == -ENOSPC || r == -EDQUOT;
}

static int take_once(struct layers *layers, size_t place, struct http_lane *lane, bool *ret_suspect,
                     struct error *err)
{
    const struct oci_image_descriptor *descriptor = layers->manifest->layers[place];
    struct staged_layer *layer = &layers->layers[place];
    _cleanup_free_ char *name = xasprintf("partial-%s", descriptor->digest + 7);
    char item[13];
    bool broken = false;
    struct blob_source source = {
        .session = &layers->pull->session,
        .lane = lane,
        .repository = layers->pull->request->repository,
        .descriptor = descriptor,
        .item = item,
        .ret_broken = &broken,
    };

    pull_item(descriptor->digest, item);
    _cleanup_close_ int partial_fd = open_partial(name, descriptor->size, &source.partial_length);
    source.partial_fd = partial_fd;
    const struct layer_job job = {
        .staging_fd = IMAGE_FD_STAGING,
        .number = __atomic_fetch_add(&layers->pull->numbers, 1, __ATOMIC_RELAXED),
        .blob_name = name,
        .written = source.partial_length,
        .blob = descriptor->digest,
        .diff_id = layers->config->rootfs->diff_ids[place],
        .quiet = true,
    };
    struct stream *stream = blob_stream(&source);
    int r = layer_take(&job, stream, layer, err);
    stream_destroy(stream);
    *ret_suspect = r < 0 && source.partial_length > 0 && !is_worth_keeping(r, broken);
    if (r < 0 && !is_worth_keeping(r, broken)) {
        _cleanup_free_ char *path = xasprintf("content/%s", name);
        unlinkat(IMAGE_FD_STAGING, path, 0);
    }
    if (r < 0) /* summed up, but not there */
        layer->blob[0] = layer->diff_id[0] = '\0';
    return r;
}

/* What was left by an earlier pull, perhaps from somebody else, may be damaged: then all of it once
 * more. */
static int take_layer(struct layers *layers, size_t place, struct http_lane *lane,
                      struct error *err)
{
    _cleanup_error_ struct error reason = ERROR_INIT;
    struct staged_layer *layer = &layers->layers[place];
    bool suspect = false;
    int r = take_once(layers, place, lane, &suspect, &reason);

    if (suspect) {
        strv_free(steal_ptr(layer->implicit));
        error_finish(&reason);
        reason = (struct error)ERROR_INIT;
        r = take_once(layers, place, lane, &suspect, &reason);
    }
    if (r < 0)
        return error_move(err, &reason);
    tell(layers->manifest->layers[place]->digest, "Download complete");
    tell(layers->manifest->layers[place]->digest, "Pull complete");
    return 0;
}

static int take_wanted(void *data, size_t place, struct http_lane *lane, struct error *err)
{
    struct layers *layers = data;

    return take_layer(layers, layers->wanted[place], lane, err);
}

static int take_layers(struct layers *layers, struct error *err)
{
    const struct image_worker_pull *request = layers->pull->request;
    const struct lanes lanes = {
        .session = &layers->pull->session,
        .count = layers->wanted_count,
        .most = request->has_parallel ? request->parallel : PULL_PARALLEL,
        .take = take_wanted,
        .data = layers,
    };

    for (size_t i = lanes.most; i < layers->wanted_count; i++)
        tell(layers->manifest->layers[layers->wanted[i]]->digest, "Waiting");
    return lanes_run(&lanes, err);
}

static void copy_twins(struct layers *layers)
{
    for (size_t i = 0; i < layers->manifest->layers_count; i++) {
        struct staged_layer *layer = &layers->layers[i];
        const struct staged_layer *twin = layer->blob[0] ? NULL : find_twin(layers, i);
        if (!twin)
            continue;
        char *path = layer->path;
        *layer = *twin;
        layer->path = path;
        layer->implicit = strv_copy(twin->implicit);
    }
}

int pull_layers(struct pull *pull, const struct oci_image_manifest *manifest,
                const struct oci_image_configuration *config, struct staged_layer *ret,
                struct error *err)
{
    struct layers layers = {
        .pull = pull,
        .manifest = manifest,
        .config = config,
        .layers = ret,
        .wanted = xnew_array(size_t, manifest->layers_count + 1),
    };

    pull->session.stop = false;
    int r = sort_out(&layers, err);
    if (r == 0)
        r = take_layers(&layers, err);
    if (r == 0)
        copy_twins(&layers);
    free(layers.wanted);
    return r;
}
