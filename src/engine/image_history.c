/*
 * image.history: the steps that an image's configuration tells, with the layers that they made.
 */
#include <base/alloc.h>
#include <base/text.h>

#include "image_call.h"
#include "internal.h"

/* Steps that made no layer have no size; a configuration that tells fewer steps than there are
 * layers gets one for each that is left. */
static struct api_image_step *step_of(const struct oci_image_history *told, uint64_t size)
{
    struct api_image_step *step = xnew(struct api_image_step);

    step->created_by = xstrdup(told && told->created_by ? told->created_by : "");
    step->size = size;
    if (!told)
        return step;
    step->created_at = xstrdup(told->created);
    step->author = xstrdup(told->author);
    step->comment = xstrdup(told->comment);
    step->empty_layer = step->has_empty_layer = told->empty_layer;
    return step;
}

static struct api_image_history_list *steps_of(const struct store_image *image,
                                               const uint64_t *sizes, size_t layers)
{
    struct api_image_history_list *list = xnew(struct api_image_history_list);
    const struct oci_image_configuration *config = image->config;
    size_t layer = 0, count = config->history_count + layers;
    struct api_image_step **steps = xnew_array(struct api_image_step *, count + 1);
    size_t made = 0;

    for (size_t i = 0; i < config->history_count; i++) {
        const struct oci_image_history *told = config->history[i];
        bool empty = told->empty_layer || layer == layers;
        steps[made++] = step_of(told, empty ? 0 : sizes[layer++]);
    }
    while (layer < layers)
        steps[made++] = step_of(NULL, sizes[layer++]);
    list->steps = xnew_array(struct api_image_step *, made + 1);
    while (made)
        list->steps[list->steps_count++] = steps[--made];
    free(steps);
    return list;
}

/* The images that a build or a commit made it from, one below the other, each behind its own step:
 * as far as they are still here, and have told one step less. */
static void name_parents(struct image_call *call, const struct store_image *image,
                         struct api_image_history_list *list)
{
    struct store *store = call->engine->store;
    _cleanup_free_ char *parent = image_parent(store, image);

    for (size_t i = 1; parent && i < list->steps_count; i++) {
        _cleanup_store_image_ struct store_image *found = NULL;
        if (store_image_find(store, parent, &found, NULL) < 0 ||
            found->config->history_count != list->steps_count - i)
            return;
        struct api_image_step *step = list->steps[i];
        step->id = xstrdup(found->id);
        step->names = strv_copy(found->names);
        step->names_count = strv_length(found->names);
        free(parent);
        parent = image_parent(store, found);
    }
}

static int history_step(struct image_call *call, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_free_ uint64_t *sizes = NULL;
    size_t layers = 0;

    int r = image_call_find(call, &image, err);
    if (r == 0)
        r = store_image_layer_sizes(call->engine->store, image->id, &sizes, &layers, err);
    if (r < 0)
        return r;
    struct api_image_history_list *list = steps_of(image, sizes, layers);
    if (list->steps_count) {
        struct api_image_step *newest = list->steps[0];
        newest->id = xstrdup(image->id);
        newest->names = strv_copy(image->names);
        newest->names_count = strv_length(image->names);
    }
    call->document = list;
    name_parents(call, image, list);
    return 0;
}

void engine_image_history(struct engine *engine, const char *image, engine_image_done done,
                          void *data)
{
    struct image_call *call =
        image_call_new(engine, history_step, &api_image_history_list_type, done, data);

    call->image = xstrdup(image);
    image_call_submit(call);
}
