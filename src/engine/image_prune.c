/*
 * image.prune: images that no container is made of, and that have no name or, with `all`, any.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "filters.h"
#include "image_call.h"
#include "internal.h"

static bool is_unused(const struct image_call *call, const struct store_image *image)
{
    const struct api_image_prune *what = call->what;

    return !image->built_in && !image->intermediate && (what->all || !image->names) &&
           !strv_contains(call->used_images, image->id) &&
           filter_prune(what->filters, image_labels(image), image->created);
}

static void append_all(char ***list, size_t *count, char *const *texts)
{
    for (; texts && *texts; texts++) {
        strv_append(list, *texts);
        (*count)++;
    }
}

static int remove_one(struct image_call *call, const char *reference, const char *id,
                      struct error *err)
{
    _cleanup_store_removed_ struct store_removed removed = {0};
    struct api_image_pruned *pruned = call->document;

    int r = store_image_remove(call->engine->store, reference, 0, &removed, err);
    if (r < 0)
        return r;
    image_call_removed(call, id, &removed);
    append_all(&pruned->untagged, &pruned->untagged_count, removed.untagged);
    append_all(&pruned->deleted, &pruned->deleted_count, removed.deleted);
    return 0;
}

/* Name by name: with the last one the image goes. One that has come into use meanwhile stays. */
static int remove_image(struct image_call *call, const struct store_image *image, struct error *err)
{
    _cleanup_error_ struct error why = ERROR_INIT;
    int r = 0;

    for (size_t i = 0; r == 0 && image->names && image->names[i]; i++)
        r = remove_one(call, image->names[i], image->id, &why);
    if (!image->names)
        r = remove_one(call, image->id, image->id, &why);
    if (r == 0 || r == -ENOENT || r == -EBUSY)
        return 0;
    error_move(err, &why);
    return r;
}

static int prune_step(struct image_call *call, struct error *err)
{
    struct api_image_pruned *pruned = xnew(struct api_image_pruned);
    struct store *store = call->engine->store;
    struct store_image **images = NULL;
    uint64_t before = 0, after = 0;
    size_t count = 0;

    pruned->untagged = xnew_array(char *, 1);
    pruned->deleted = xnew_array(char *, 1);
    call->document = pruned;
    int r = store_layers_size(store, &before, err);
    if (r >= 0)
        r = store_image_list(store, &images, &count, err);
    for (size_t i = 0; r >= 0 && i < count; i++) {
        if (is_unused(call, images[i]))
            r = remove_image(call, images[i], err);
    }
    store_image_list_free(images, count);
    if (r >= 0)
        r = store_layers_size(store, &after, err);
    pruned->space_reclaimed = before > after ? before - after : 0;
    return r;
}

static struct api_image_prune *copy_prune(const struct api_image_prune *what)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_image_prune *copy = NULL;

    api_image_prune_write(what, &text);
    if (api_image_prune_parse(text.data, text.length, NULL, &copy, NULL) < 0)
        copy = xnew(struct api_image_prune);
    return copy;
}

void engine_image_prune(struct engine *engine, const struct api_image_prune *what,
                        engine_image_done done, void *data)
{
    struct image_call *call =
        image_call_new(engine, prune_step, &api_image_pruned_type, done, data);

    call->what = copy_prune(what);
    call->what_type = &api_image_prune_type;
    image_call_used(call);
    image_call_submit_slow(call);
}
