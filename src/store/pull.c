#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/pull.h>

#include "internal.h"

/* ---- pull ---- */

/* The worker may leave out any layer that it was told of. A registry that takes longer than this
 * for the others cannot keep the rest of the store from being cleaned: should one of them go
 * meanwhile, the pull fails and says so. */
#define PULL_HOLD (30LL * 60 * 1000000000)

static struct image_worker_known_layer *read_known(const struct store_statement *row)
{
    struct store_statement *statement = (struct store_statement *)row;
    struct image_worker_known_layer *known = xnew(struct image_worker_known_layer);

    known->key = xstrdup(store_statement_text(statement, 0));
    known->diff_id = xstrdup(store_statement_text(statement, 1));
    known->blob = xstrdup(store_statement_text(statement, 2));
    known->media_type = xstrdup(store_statement_text(statement, 3));
    known->blob_size = (uint64_t)store_statement_integer(statement, 4);
    known->size = (uint64_t)store_statement_integer(statement, 5);
    return known;
}

static int list_known(struct store *store, struct image_worker_pull *request, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT DISTINCT layer.key, diff_id, blob, media_type, blob_size, size"
                           " FROM image_layer JOIN layer ON layer.id = image_layer.layer"
                           /* what no build has sealed may not be on the disk */
                           " LEFT JOIN build_step USING(image) WHERE unsealed IS NULL",
                           "");

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0) {
        request->known =
            xrealloc(request->known, request->known_count + 1, sizeof(*request->known));
        request->known[request->known_count++] = read_known(statement);
    }
    return r;
}

int store_pull_begin(struct store_staging *staging, struct image_worker_pull *request,
                     struct error *err)
{
    struct store *store = staging->store;

    pthread_mutex_lock(&store->files);
    int r = list_known(store, request, err);
    if (r >= 0)
        r = partials_take(staging, err);
    if (r >= 0)
        r = hold_all(store, request, PULL_HOLD, err);
    pthread_mutex_unlock(&store->files);
    return r < 0 ? r : 0;
}

void store_pull_end(struct store *store, const struct image_worker_pull *request)
{
    hold_release(store, request);
}

bool store_name_is(struct store *store, const char *name, const char *id)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;

    return store_db_query(store->db, &statement, NULL,
                          "SELECT 1 FROM image_name WHERE name = ? AND image = ? UNION ALL"
                          " SELECT 1 FROM image_digest WHERE name = ? AND image = ?",
                          "tttt", name, id, name, id) >= 0 &&
           store_statement_step(statement, NULL) > 0;
}

int store_note_digest(struct store *store, const char *id, const char *name_and_digest,
                      struct error *err)
{
    int64_t r = store_db_run(store->db, err,
                             "INSERT INTO image_digest(name, image) VALUES(?, ?)"
                             " ON CONFLICT(name) DO UPDATE SET image = excluded.image",
                             "tt", name_and_digest, id);

    return r < 0 ? (int)r : 0;
}

/* ---- push ---- */

static void add_mount(struct image_worker_push *request, const char *blob, const char *repository)
{
    struct image_worker_mount *mount = xnew(struct image_worker_mount);

    mount->blob = xstrdup(blob);
    mount->repository = xstrdup(repository);
    request->mounts = xrealloc(request->mounts, request->mounts_count + 1, sizeof(mount));
    request->mounts[request->mounts_count++] = mount;
}

/* Another repository of the same registry whose image has the layer: whether it is there, too, the
 * registry knows. */
static int find_mount(struct store *store, const struct store_reference *name, const char *blob,
                      struct image_worker_push *request, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    _cleanup_free_ char *first = xasprintf("%s/", name->domain);
    _cleanup_free_ char *past = xasprintf("%s0", name->domain); /* '0' stands behind '/' */
    int r = store_db_query(store->db, &statement, err,
                           "SELECT DISTINCT n.name FROM image_layer AS l JOIN"
                           " (SELECT name, image FROM image_digest UNION ALL"
                           "  SELECT name, image FROM image_name) AS n ON n.image = l.image"
                           " WHERE l.blob = ? AND n.name >= ? AND n.name < ? LIMIT 16",
                           "ttt", blob, first, past);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0) {
        _cleanup_store_reference_ struct store_reference other = {0};
        if (store_reference_parse(store_statement_text(statement, 0), &other, NULL) < 0 ||
            text_equal(other.path, name->path))
            continue;
        add_mount(request, blob, other.path);
        return 0;
    }
    return r;
}

static int fill_push(struct store *store, const struct store_reference *name,
                     struct image_worker_push *request, struct error *err)
{
    _cleanup_free_ char *full = store_reference_full(name);
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_free_ char *id = NULL;
    bool by_name = false;
    int r = image_find_id(store, full, &id, &by_name, err);

    if (r == 0 && by_name)
        r = image_read(store, id, &image, err);
    if (r == -ENOENT || (r == 0 && !by_name))
        r = error_set(err, -ENOENT, "An image does not exist locally with the tag: %s", full);
    if (r == 0 && image->base)
        r = error_set(err, -EOPNOTSUPP,
                      "image %s stands on this machine's own /usr (image " STORE_HOST_IMAGE
                      "), which is no layer: it cannot be pushed",
                      full);
    if (r < 0)
        return r;
    request->repository = xstrdup(name->path);
    request->tag = xstrdup(name->tag);
    request->image = xnew(struct image_worker_saved_image);
    request->image->names = xnew_array(char *, 1);
    request->image->full_names = xnew_array(char *, 1);
    request->image->id = xstrdup(image->id);
    request->image->manifest = xstrdup(image->manifest_digest);
    r = layers_read(store, id, &request->image->layers, &request->image->layers_count, err);
    for (size_t i = 0; r >= 0 && i < request->image->layers_count; i++)
        r = find_mount(store, name, request->image->layers[i]->blob, request, err);
    return r;
}

int store_push_prepare(struct store *store, const struct store_reference *name,
                       struct image_worker_push *request, struct error *err)
{
    _cleanup_free_ char *full = store_reference_full(name);
    _cleanup_error_ struct error sealing = ERROR_INIT;
    int r = build_seal_named(store, full, &sealing);

    if (r < 0 && r != -ENOENT) {
        error_move(err, &sealing);
        error_context(err, "make image %s durable", full);
        return r;
    }
    pthread_mutex_lock(&store->files);
    r = fill_push(store, name, request, err);
    if (r >= 0)
        r = hold_image_blobs(store, request, request->image, err);
    pthread_mutex_unlock(&store->files);
    if (r < 0)
        hold_release(store, request);
    return r < 0 ? r : 0;
}

void store_push_finish(struct store *store, const struct image_worker_push *request)
{
    hold_release(store, request);
}

int store_tags(struct store *store, const struct store_reference *repository, char ***ret,
               struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    _cleanup_free_ char *first = xasprintf("%s/%s:", repository->domain, repository->path);
    _cleanup_free_ char *past = xasprintf("%s/%s;", repository->domain, repository->path);
    int r = store_db_query(store->db, &statement, err,
                           "SELECT name FROM image_name WHERE name > ? AND name < ? ORDER BY name",
                           "tt", first, past);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0)
        strv_append(ret, store_statement_text(statement, 0) + strlen(first));
    return r;
}
