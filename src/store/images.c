#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <store/reference.h>

#include "internal.h"

void store_image_free(struct store_image *image)
{
    if (!image)
        return;
    free(image->id);
    free(image->manifest_digest);
    strv_free(image->names);
    strv_free(image->digests);
    strv_free(image->diff_ids);
    strv_free(image->layers);
    free(image->base);
    free(image->parent);
    free(image->config_text);
    oci_image_configuration_free(image->config);
    free(image);
}

void store_image_list_free(struct store_image **images, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_image_free(images[i]);
    free(images);
}

static int read_names(struct store *store, struct store_image *image, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *names = NULL;
    int r =
        store_db_query(store->db, &names, err,
                       "SELECT name FROM image_name WHERE image = ? ORDER BY name", "t", image->id);

    while (r >= 0 && (r = store_statement_step(names, err)) > 0)
        strv_take(&image->names, store_reference_shorten(store_statement_text(names, 0)));
    return r;
}

static int read_digests(struct store *store, struct store_image *image, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *digests = NULL;
    int r = store_db_query(store->db, &digests, err,
                           "SELECT name FROM image_digest WHERE image = ? ORDER BY name", "t",
                           image->id);

    while (r >= 0 && (r = store_statement_step(digests, err)) > 0)
        strv_take(&image->digests, store_reference_shorten(store_statement_text(digests, 0)));
    return r;
}

static int read_layers(struct store *store, struct store_image *image, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *layers = NULL;
    int r = store_db_query(store->db, &layers, err,
                           "SELECT layer.id, layer.diff_id, layer.size FROM image_layer"
                           " JOIN layer ON layer.id = image_layer.layer WHERE image = ?"
                           " ORDER BY position",
                           "t", image->id);

    while (r >= 0 && (r = store_statement_step(layers, err)) > 0) {
        strv_append(&image->layers, store_statement_text(layers, 0));
        strv_append(&image->diff_ids, store_statement_text(layers, 1));
        image->size += (uint64_t)store_statement_integer(layers, 2);
    }
    return r;
}

static int add_layer_size(struct store *store, int64_t layer, uint64_t *size, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, "SELECT size FROM layer WHERE id = ?", "i",
                           layer);

    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r > 0)
        *size += (uint64_t)store_statement_integer(statement, 0);
    return r < 0 ? r : 0;
}

/* An image on the base `host` stands on the skeleton that is current. */
static int add_host_layer(struct store *store, struct store_image *image, struct error *err)
{
    int64_t number;
    int r = host_layer(store, &number, err);

    if (r < 0)
        return r;
    char **layers = NULL;
    strv_take(&layers, xasprintf("%lld", (long long)number));
    for (size_t i = 0; image->layers && image->layers[i]; i++)
        strv_append(&layers, image->layers[i]);
    strv_free(image->layers);
    image->layers = layers;
    return add_layer_size(store, number, &image->size, err);
}

static int read_record(struct store *store, struct store_image *image, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *record = NULL;
    int r = store_db_query(store->db, &record, err,
                           "SELECT manifest, base, built_in, created, config FROM image"
                           " WHERE id = ?",
                           "t", image->id);

    if (r >= 0)
        r = store_statement_step(record, err);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, "No such image: %s", image->id);
    image->manifest_digest = xstrdup(store_statement_text(record, 0));
    image->base = xstrdup(store_statement_text(record, 1));
    image->built_in = store_statement_integer(record, 2) != 0;
    image->created = store_statement_integer(record, 3);
    image->config_text = xstrdup(store_statement_text(record, 4));
    return 0;
}

int image_read(struct store *store, const char *id, struct store_image **ret, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = xnew(struct store_image);

    image->id = xstrdup(id);
    int r = read_record(store, image, err);
    if (r >= 0)
        r = read_names(store, image, err);
    if (r >= 0)
        r = read_digests(store, image, err);
    if (r >= 0)
        r = read_layers(store, image, err);
    if (r >= 0 && image->base)
        r = add_host_layer(store, image, err);
    if (r >= 0)
        r = build_parent(store, id, &image->parent, err);
    if (r >= 0 && !image->names) {
        r = build_has_children(store, id, err);
        image->intermediate = r > 0;
    }
    if (r >= 0)
        r = oci_image_configuration_parse(image->config_text, strlen(image->config_text), image->id,
                                          &image->config, err);
    if (r < 0)
        return r;
    *ret = steal_ptr(image);
    return 0;
}

int store_image_list(struct store *store, struct store_image ***ret, size_t *ret_count,
                     struct error *err)
{
    _cleanup_strv_ char **ids = NULL;
    struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT id FROM image ORDER BY built_in, created DESC, added DESC", "");

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0)
        strv_append(&ids, store_statement_text(statement, 0));
    store_statement_finish(statement);
    if (r < 0)
        return r;

    struct store_image **images = xnew_array(struct store_image *, strv_length(ids) + 1);
    size_t count = 0;
    for (size_t i = 0; ids && ids[i]; i++) {
        r = image_read(store, ids[i], &images[count], err);
        if (r == -ENOENT) /* removed meanwhile */
            continue;
        if (r < 0) {
            store_image_list_free(images, count);
            return r;
        }
        count++;
    }
    *ret = images;
    *ret_count = count;
    return 0;
}

static int find_by_name(struct store *store, const char *text, char **ret_id, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    _cleanup_free_ char *full = NULL;

    if (store_reference_normalize(text, &full, NULL) < 0)
        return 0;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT image FROM image_name WHERE name = ?", "t", full);
    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r > 0)
        *ret_id = xstrdup(store_statement_text(statement, 0));
    return r;
}

/* NAME@sha256:HEX: the image with that manifest. */
static int find_by_digest(struct store *store, const char *text, char **ret_id, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    const char *at = strchr(text, '@');

    if (!at || !digest_valid(at + 1))
        return 0;
    _cleanup_store_reference_ struct store_reference reference = {0};
    if (store_reference_parse(text, &reference, NULL) < 0)
        return 0;
    free(steal_ptr(reference.tag)); /* where both stand, the digest says it all */
    _cleanup_free_ char *full = store_reference_full(&reference);
    int r = store_db_query(store->db, &statement, err,
                           "SELECT image FROM image_digest WHERE name = ? UNION ALL"
                           " SELECT id FROM image WHERE manifest = ? LIMIT 1",
                           "tt", full, at + 1);
    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r > 0)
        *ret_id = xstrdup(store_statement_text(statement, 0));
    return r;
}

static bool is_id_prefix(const char *hex)
{
    size_t length = strlen(hex);

    return length >= STORE_ID_PREFIX_MIN && length <= 64 && text_is_hex(hex, length);
}

static int find_by_id(struct store *store, const char *text, char **ret_id, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    const char *hex = text_starts_with(text, "sha256:") ? text + 7 : text;

    if (!is_id_prefix(hex))
        return 0;
    _cleanup_free_ char *first = xasprintf("sha256:%s", hex);
    _cleanup_free_ char *past = xasprintf("sha256:%sg", hex); /* above every further hex digit */
    int r =
        store_db_query(store->db, &statement, err,
                       "SELECT id FROM image WHERE id >= ? AND id < ? LIMIT 2", "tt", first, past);
    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r <= 0)
        return r;
    _cleanup_free_ char *id = xstrdup(store_statement_text(statement, 0));
    r = store_statement_step(statement, err);
    if (r < 0)
        return r;
    if (r > 0)
        return error_set(err, -EEXIST, "several images have an ID that starts with %s", hex);
    *ret_id = steal_ptr(id);
    return 1;
}

/* As docker words it: with the tag that was looked for. */
static int no_such_image(const char *text, struct error *err)
{
    _cleanup_store_reference_ struct store_reference reference = {0};

    if (store_reference_parse(text, &reference, NULL) < 0)
        return error_set(err, -ENOENT, "No such image: %s", text);
    store_reference_default_tag(&reference);
    _cleanup_free_ char *name = store_reference_short(&reference);
    return error_set(err, -ENOENT, "No such image: %s", name);
}

int image_find_id(struct store *store, const char *text, char **ret_id, bool *ret_by_name,
                  struct error *err)
{
    bool by_name = true;
    int r = find_by_name(store, text, ret_id, err);

    if (r == 0) {
        by_name = false;
        r = find_by_digest(store, text, ret_id, err);
    }
    if (r == 0)
        r = find_by_id(store, text, ret_id, err);
    if (r < 0)
        return r;
    if (r == 0)
        return no_such_image(text, err);
    if (ret_by_name)
        *ret_by_name = by_name;
    return 0;
}

int store_image_find(struct store *store, const char *text, struct store_image **ret,
                     struct error *err)
{
    _cleanup_free_ char *id = NULL;
    int r = image_find_id(store, text, &id, NULL, err);

    return r < 0 ? r : image_read(store, id, ret, err);
}

int store_image_layer_sizes(struct store *store, const char *id, uint64_t **ret, size_t *ret_count,
                            struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    uint64_t *sizes = xnew_array(uint64_t, STORE_LAYERS_MAX + 1);
    size_t count = 0;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT layer.size FROM image_layer JOIN layer ON layer.id = layer"
                           " WHERE image = ? ORDER BY position",
                           "t", id);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0 && count < STORE_LAYERS_MAX)
        sizes[count++] = (uint64_t)store_statement_integer(statement, 0);
    if (r < 0) {
        free(sizes);
        return r;
    }
    *ret = sizes;
    *ret_count = count;
    return 0;
}

int store_layers_size(struct store *store, uint64_t *ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r =
        store_db_query(store->db, &statement, err, "SELECT COALESCE(SUM(size), 0) FROM layer", "");

    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r > 0)
        *ret = (uint64_t)store_statement_integer(statement, 0);
    return r < 0 ? r : 0;
}
