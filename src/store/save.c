/* What a worker needs to know to write images into an archive. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/check.h>
#include <store/reference.h>
#include <store/staging.h>

#include "internal.h"

int layers_read(struct store *store, const char *image, struct image_worker_layer ***layers,
                size_t *count, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT diff_id, blob, media_type, blob_size, size FROM image_layer"
                           " JOIN layer ON layer.id = image_layer.layer WHERE image = ?"
                           " ORDER BY position",
                           "t", image);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0) {
        struct image_worker_layer *layer = xnew(struct image_worker_layer);
        layer->diff_id = xstrdup(store_statement_text(statement, 0));
        layer->blob = xstrdup(store_statement_text(statement, 1));
        layer->media_type = xstrdup(store_statement_text(statement, 2));
        layer->blob_size = (uint64_t)store_statement_integer(statement, 3);
        layer->size = (uint64_t)store_statement_integer(statement, 4);
        *layers = xrealloc(*layers, *count + 1, sizeof(**layers));
        (*layers)[(*count)++] = layer;
    }
    return r;
}

static void append_text(char ***list, size_t *count, const char *text)
{
    if (strv_contains(*list, text))
        return;
    strv_append(list, text);
    (*count)++;
}

static struct image_worker_saved_image *find_saved(struct image_worker_save *save, const char *id)
{
    for (size_t i = 0; i < save->images_count; i++)
        if (text_equal(save->images[i]->id, id))
            return save->images[i];
    return NULL;
}

static int add_image(struct store *store, struct image_worker_save *save, const char *id,
                     const char *full_name, struct error *err)
{
    struct image_worker_saved_image *saved = find_saved(save, id);

    if (!saved) {
        _cleanup_store_image_ struct store_image *image = NULL;
        int r = image_read(store, id, &image, err);
        if (r < 0)
            return r;
        if (image->base)
            return error_set(err, -EOPNOTSUPP,
                             "image %s stands on this machine's own /usr (image " STORE_HOST_IMAGE
                             "), which is no layer: it cannot be saved",
                             image->names ? image->names[0] : image->id);
        if (!image->manifest_digest)
            return error_set(err, -EAGAIN, "image %s is being built", image->id);
        saved = xnew(struct image_worker_saved_image);
        save->images = xrealloc(save->images, save->images_count + 1, sizeof(*save->images));
        save->images[save->images_count++] = saved;
        saved->id = xstrdup(image->id);
        saved->manifest = xstrdup(image->manifest_digest);
        r = layers_read(store, id, &saved->layers, &saved->layers_count, err);
        if (r < 0)
            return r;
    }
    if (full_name) {
        _cleanup_free_ char *short_name = store_reference_shorten(full_name);
        append_text(&saved->full_names, &saved->full_names_count, full_name);
        append_text(&saved->names, &saved->names_count, short_name);
    }
    return 0;
}

/* "shop" without a tag means every tag of it, as in docker save. Returns how many there were. */
static int add_repository(struct store *store, struct image_worker_save *save,
                          const struct store_reference *reference, struct error *err)
{
    _cleanup_strv_ char **names = NULL, **ids = NULL;
    struct store_statement *statement = NULL;
    _cleanup_free_ char *first = xasprintf("%s/%s:", reference->domain, reference->path);
    _cleanup_free_ char *past = xasprintf("%s/%s;", reference->domain, reference->path);
    int r = store_db_query(store->db, &statement, err,
                           "SELECT name, image FROM image_name WHERE name > ? AND name < ?"
                           " ORDER BY name",
                           "tt", first, past);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0) {
        strv_append(&names, store_statement_text(statement, 0));
        strv_append(&ids, store_statement_text(statement, 1));
    }
    store_statement_finish(statement);
    for (size_t i = 0; r >= 0 && names && names[i]; i++)
        r = add_image(store, save, ids[i], names[i], err);
    return r < 0 ? r : (int)strv_length(names);
}

static int add_name(struct store *store, struct image_worker_save *save, const char *name,
                    struct error *err)
{
    _cleanup_store_reference_ struct store_reference reference = {0};
    _cleanup_free_ char *id = NULL, *full = NULL;
    bool by_name = false;
    bool is_reference = store_reference_parse(name, &reference, NULL) == 0;

    if (is_reference && !reference.tag && !reference.digest) {
        int found = add_repository(store, save, &reference, err);
        if (found)
            return found < 0 ? found : 0;
    }
    int r = image_find_id(store, name, &id, &by_name, err);
    if (r < 0)
        return r;
    if (by_name && is_reference) {
        store_reference_default_tag(&reference);
        full = store_reference_full(&reference);
    }
    return add_image(store, save, id, full, err);
}

/* Steps of builds get their documents now; what cannot be found is told later. */
static int seal_steps(struct store *store, char *const *names, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && names && names[i]; i++) {
        _cleanup_error_ struct error why = ERROR_INIT;
        r = build_seal_named(store, names[i], &why);
        if (r == -ENOENT || r == -EEXIST)
            r = 0;
        else if (r < 0)
            error_move(err, &why);
    }
    return r;
}

int store_save_prepare(struct store *store, char *const *names, struct image_worker_request **ret,
                       struct error *err)
{
    struct image_worker_request *request = xnew(struct image_worker_request);
    int r = 0;

    request->version = 1;
    request->save = xnew(struct image_worker_save);
    r = seal_steps(store, names, err);
    pthread_mutex_lock(&store->files);
    for (size_t i = 0; r == 0 && names && names[i]; i++)
        r = add_name(store, request->save, names[i], err);
    for (size_t i = 0; r == 0 && i < request->save->images_count; i++)
        r = hold_image_blobs(store, request, request->save->images[i], err);
    pthread_mutex_unlock(&store->files);
    if (r < 0) {
        hold_release(store, request);
        image_worker_request_free(request);
        return r;
    }
    *ret = request;
    return 0;
}

void store_save_finish(struct store *store, struct image_worker_request *request)
{
    if (!request)
        return;
    hold_release(store, request);
    image_worker_request_free(request);
}
