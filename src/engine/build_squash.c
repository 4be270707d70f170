/*
 * build --squash: what the last stage added to the image it stands on becomes one layer. The image
 * with all its layers stays, for the cache.
 */
#include <base/alloc.h>
#include <base/text.h>
#include <store/build.h>

#include "build.h"

/* What the last stage stands on, as its FROM says; NULL: nothing. Borrowed. */
static int find_base(struct build *build, const char **ret, struct error *err)
{
    const struct build_stage *last = build->plan->stages[build->plan->stages_count - 1];
    const struct build_image *image;
    int r = 0;

    *ret = last->has_stage ? build->stages[last->stage].image_id : NULL;
    if (!last->has_stage && last->image) {
        r = build_find_image(build, last->image, last->platform, &image, err);
        *ret = r == 0 ? image->id : NULL;
    }
    return r;
}

static int merge_layers(struct build *build, const char *base, struct build_layer *layer,
                        struct error *err)
{
    struct store *store = build->engine->store;
    _cleanup_strv_ char **layers = NULL, **below = NULL;
    struct image_worker_merged merged = {0};
    struct image_worker_commit what = {.merged = &merged};
    struct image_worker_request request = {.commit = &what};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    int r = store_squash_layers(store, build->image_id, base, &layers, &below, err);

    if (r == 0)
        r = store_staging_create(store, &layer->staging, err);
    if (r < 0)
        return r;
    merged.layers = layers;
    merged.layers_count = strv_length(layers);
    merged.below = below;
    merged.below_count = strv_length(below);
    spec.program = build->engine->image_program;
    spec.request = &request;
    spec.staging_fd = store_staging_fd(layer->staging);
    spec.upper_fd = store_layers_fd(store);
    return image_worker_run(&spec, NULL, NULL, build->cancel.fd, &layer->result, err);
}

int build_squash(struct build *build, struct error *err)
{
    struct build_layer layer = {0};
    const char *base = NULL;
    char *id = NULL;
    int r = find_base(build, &base, err);

    if (r == 0)
        r = merge_layers(build, base, &layer, err);
    if (r == 0)
        r = store_build_squash(build->engine->store, layer.staging, build->number, build->image_id,
                               base, layer.result->layer, &id, err);
    build_layer_finish(&layer);
    if (r < 0)
        return r;
    free(build->image_id);
    build->image_id = id;
    return 0;
}
