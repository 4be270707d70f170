/* What a build added to an image as one layer: see store/build.h. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <store/build.h>

#include "internal.h"

int store_squash_layers(struct store *store, const char *id, const char *parent, char ***ret_layers,
                        char ***ret_below, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL, *below = NULL;
    int r = image_read(store, id, &image, err);

    if (r == 0 && parent)
        r = image_read(store, parent, &below, err);
    if (r < 0)
        return r;
    size_t kept = below ? strv_length(below->layers) : 0, count = strv_length(image->layers);
    char **layers = NULL, **others = NULL;
    while (count > kept)
        strv_append(&layers, image->layers[--count]);
    while (count)
        strv_append(&others, image->layers[--count]);
    if (!layers) /* nothing was added */
        strv_append(&layers, STORE_EMPTY_LAYER);
    *ret_layers = layers;
    *ret_below = others;
    return 0;
}

/* The steps stay in the history, but none of them has a layer any more. */
static void empty_steps(struct oci_image_configuration *config, size_t kept)
{
    for (size_t i = kept; i < config->history_count; i++)
        config->history[i]->empty_layer = config->history[i]->has_empty_layer = true;
}

static void take_layers(struct oci_image_configuration *config, char *const *diff_ids)
{
    strv_free(config->rootfs->diff_ids);
    config->rootfs->diff_ids = strv_copy(diff_ids);
    config->rootfs->diff_ids_count = strv_length(diff_ids);
}

static int compose(const struct store_image *image, const struct store_image *parent, int64_t now,
                   const char *diff_id, struct buffer *out, struct error *err)
{
    _cleanup_oci_image_configuration_ struct oci_image_configuration *config = NULL;
    _cleanup_free_ char *comment = parent ? xasprintf("merge %s to %s", image->id, parent->id)
                                          : xasprintf("create new from %s", image->id);
    int r = oci_image_configuration_parse(image->config_text, strlen(image->config_text), image->id,
                                          &config, err);

    if (r < 0)
        return r;
    config_drop_origin(config);
    empty_steps(config, parent ? parent->config->history_count : 0);
    take_layers(config, parent ? parent->diff_ids : NULL);
    free(config->created);
    config->created = clock_format(now);
    config_add_history(config, now, NULL, NULL, comment, false);
    strv_append(&config->rootfs->diff_ids, diff_id);
    config->rootfs->diff_ids_count++;
    oci_image_configuration_write(config, out);
    return 0;
}

static int install(struct store_staging *staging, int64_t build, const struct store_image *image,
                   const struct store_image *parent, const struct image_worker_layer *layer,
                   char id[DIGEST_TEXT_SIZE], struct error *err)
{
    struct store *store = staging->store;
    struct image_worker_layer *layers[] = {(struct image_worker_layer *)layer};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    const struct store_step step = {.build = build};
    int64_t now = clock_now();
    int r = compose(image, parent, now, layer->diff_id, &text, err);

    if (r < 0)
        return r;
    digest_of(text.data, text.length, id);
    const struct image_install what = {
        .id = id,
        .base = parent ? parent->base : NULL,
        .parent = parent ? parent->id : NULL,
        .config_text = buffer_text(&text),
        .created = now,
        .layers = layers,
        .layers_count = 1,
    };
    r = image_install(staging, &what, err);
    if (r == 0)
        r = build_record_step(store, &step, id, err);
    return r < 0 ? r : store_build_hold(store, build, id, err);
}

/* With store->files. */
static int record(struct store_staging *staging, int64_t build, const char *id, const char *parent,
                  const struct image_worker_layer *layer, char ret[DIGEST_TEXT_SIZE],
                  struct error *err)
{
    struct store *store = staging->store;
    _cleanup_store_image_ struct store_image *image = NULL, *below = NULL;
    int r = store_db_begin_relaxed(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = image_read(store, id, &image, err);
    if (r == 0 && parent)
        r = image_read(store, parent, &below, err);
    if (r == 0)
        r = install(staging, build, image, below, layer, ret, err);
    return r < 0 ? r : store_db_commit(transaction, err);
}

int store_build_squash(struct store *store, struct store_staging *staging, int64_t build,
                       const char *id, const char *parent, const struct image_worker_layer *layer,
                       char **ret_id, struct error *err)
{
    char squashed[DIGEST_TEXT_SIZE];

    if (!layer || !digest_valid(layer->diff_id) || !digest_valid(layer->blob))
        return error_set(err, -EBADMSG, "the worker made no layer");
    pthread_mutex_lock(&store->files);
    int r = record(staging, build, id, parent, layer, squashed, err);
    pthread_mutex_unlock(&store->files);
    if (r < 0)
        garbage_collect(store, NULL); /* what was renamed before it failed */
    else
        *ret_id = xstrdup(squashed);
    return r;
}
