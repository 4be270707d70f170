/* The steps of builds: see store/build.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>
#include <store/build.h>

#include "internal.h"

enum { PRUNED_AT_ONCE = 16 };

/* unsealed: the boot in which the step was made, until it is whole and flushed. */
static const char *const migrations[] = {
    "CREATE TABLE build_step("
    " image TEXT PRIMARY KEY REFERENCES image(id) ON DELETE CASCADE, parent TEXT, key TEXT UNIQUE,"
    " unsealed TEXT, used INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX build_step_parent ON build_step(parent);",
};

static int read_boot(char ret[64], struct error *err)
{
    _cleanup_free_ char *text = NULL;
    int r = file_read_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 63, &text, NULL, err);

    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    snprintf(ret, 64, "%s", text);
    return 0;
}

int build_open(struct store *store, struct error *err)
{
    char boot[64];
    int r = store_db_migrate(store->db, "builds", migrations, ARRAY_SIZE(migrations), err);

    if (r == 0)
        r = read_boot(boot, err);
    if (r == 0)
        r = store_db_run(store->db, err,
                         "DELETE FROM image WHERE id IN (SELECT image FROM build_step"
                         " WHERE unsealed IS NOT NULL AND unsealed <> ?)",
                         "t", boot);
    return r < 0 ? r : 0;
}

/* --- a step ----------------------------------------------------------------------------------- */

static struct oci_image_configuration *empty_config(const struct store_step *step)
{
    struct oci_image_configuration *config = xnew(struct oci_image_configuration);

    config->os = xstrdup(step->os);
    config->architecture = xstrdup(step->architecture);
    config->rootfs = xnew(struct oci_image_rootfs);
    config->rootfs->type = xstrdup("layers");
    config->rootfs->diff_ids = xnew_array(char *, 1);
    return config;
}

static void set_author(struct oci_image_configuration *config, const char *author)
{
    free(config->author);
    config->author = xstrdup(author);
}

/* The parent's configuration with what the step changes. The image that stands on nothing has no
 * time: it is always the same. */
static int compose(const struct store_step *step, const struct store_image *parent, int64_t now,
                   struct buffer *out, struct error *err)
{
    _cleanup_oci_image_configuration_ struct oci_image_configuration *config = NULL;
    int r = 0;

    if (parent)
        r = oci_image_configuration_parse(parent->config_text, strlen(parent->config_text),
                                          parent->id, &config, err);
    else
        config = empty_config(step);
    if (r < 0)
        return r;
    config_drop_origin(config);
    if (step->created_by) {
        free(config->created);
        config->created = clock_format(now);
        config_add_history(config, now, step->created_by, NULL, step->comment, !step->layer);
    }
    if (!text_empty(step->author))
        set_author(config, step->author);
    if (step->layer) {
        strv_append(&config->rootfs->diff_ids, step->layer->diff_id);
        config->rootfs->diff_ids_count++;
    }
    struct oci_image_execution *own = config->config;
    config->config = (struct oci_image_execution *)step->config; /* lent */
    oci_image_configuration_write(config, out);
    config->config = own;
    return 0;
}

int build_record_step(struct store *store, const struct store_step *step, const char *id,
                      struct error *err)
{
    char boot[64];
    int r = read_boot(boot, err);

    /* A step that was forced to run again takes the place of the cached one. */
    if (r == 0 && step->key)
        r = store_db_run(store->db, err, "UPDATE build_step SET key = NULL WHERE key = ?", "t",
                         step->key);
    if (r >= 0)
        r = store_db_run(store->db, err,
                         "INSERT INTO build_step(image, parent, key, unsealed, used)"
                         " VALUES(?, ?, ?, ?, ?)"
                         " ON CONFLICT(image) DO UPDATE SET key = excluded.key,"
                         " used = excluded.used",
                         "ttttt", id, step->parent, step->key, boot, "0");
    if (r >= 0)
        r = store_db_run(store->db, err, "UPDATE build_step SET used = ? WHERE image = ?", "it",
                         clock_now(), id);
    return r < 0 ? r : 0;
}

static int install_step(struct store *store, struct store_staging *staging,
                        const struct store_step *step, char **ret_id, struct error *err)
{
    struct store_staging none = {.store = store, .fd = -1};
    _cleanup_store_image_ struct store_image *parent = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct image_worker_layer *layer = (struct image_worker_layer *)step->layer;
    int64_t now = clock_now();
    char id[DIGEST_TEXT_SIZE];
    int r = store_db_begin_relaxed(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    if (step->parent)
        r = image_read(store, step->parent, &parent, err);
    if (r == 0 && layer && parent && strv_length(parent->layers) >= STORE_LAYERS_MAX)
        r = error_set(err, -EFBIG, "max depth exceeded: the image has %d layers already",
                      STORE_LAYERS_MAX);
    if (r == 0)
        r = compose(step, parent, now, &text, err);
    if (r < 0)
        return r;
    digest_of(text.data, text.length, id);
    const struct image_install install = {
        .id = id,
        .base = parent ? parent->base : NULL,
        .parent = step->parent,
        .config_text = buffer_text(&text),
        .created = step->created_by ? now : 0,
        .layers = &layer,
        .layers_count = layer ? 1 : 0,
    };
    r = image_install(staging ? staging : &none, &install, err);
    if (r == 0)
        r = build_record_step(store, step, id, err);
    if (r == 0)
        r = store_build_hold(store, step->build, id, err);
    if (r == 0)
        r = store_db_commit(transaction, err);
    if (r == 0)
        *ret_id = xstrdup(id);
    return r;
}

int store_build_step(struct store *store, struct store_staging *staging,
                     const struct store_step *step, char **ret_id, struct error *err)
{
    const struct image_worker_layer *layer = step->layer;

    if (layer && (!digest_valid(layer->diff_id) || !digest_valid(layer->blob)))
        return error_set(err, -EBADMSG, "the worker made no layer");
    pthread_mutex_lock(&store->files);
    int r = install_step(store, staging, step, ret_id, err);
    pthread_mutex_unlock(&store->files);
    if (r < 0)
        garbage_collect(store, NULL); /* what was renamed before it failed */
    return r;
}

void store_build_key(const char *text, size_t length, char ret[72])
{
    digest_of(text, length, ret);
}

int store_build_find(struct store *store, int64_t build, const char *key, char **ret_id,
                     struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, "SELECT image FROM build_step WHERE key = ?",
                           "t", key);

    if (r >= 0)
        r = store_statement_step(statement, err);
    *ret_id = r > 0 ? xstrdup(store_statement_text(statement, 0)) : NULL;
    if (r > 0)
        r = store_db_run(store->db, err, "UPDATE build_step SET used = ? WHERE key = ?", "it",
                         clock_now(), key);
    if (r >= 0 && *ret_id) /* the statement keeps others out until here */
        r = store_build_hold(store, build, *ret_id, err);
    return r < 0 ? r : 0;
}

/* --- sealing ---------------------------------------------------------------------------------- */

/* An image that is to become whole: its documents in staging. */
struct sealing {
    struct store_staging *staging; /* owned; NULL: it is whole already */
    char manifest[DIGEST_TEXT_SIZE];
};

static int stage_documents(struct store_staging *staging, const struct store_image *image,
                           char manifest_digest[DIGEST_TEXT_SIZE], struct error *err)
{
    _cleanup_buffer_ struct buffer manifest = BUFFER_INIT, config = BUFFER_INIT;
    size_t length = strlen(image->config_text);
    int r = manifest_compose(staging->store, image->id, length, &manifest, err);

    if (r < 0)
        return r;
    digest_of(manifest.data, manifest.length, manifest_digest);
    buffer_append(&config, image->config_text, length);
    r = stage_document(staging, image->id, &config, err);
    return r < 0 ? r : stage_document(staging, manifest_digest, &manifest, err);
}

/* The long part: all that the build has written goes to the disk. Not under a lock. */
static int seal_prepare(struct store *store, const char *id, struct sealing *sealing,
                        struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    int r = image_read(store, id, &image, err);

    if (r < 0 || image->manifest_digest || image->built_in)
        return r;
    r = store_staging_create(store, &sealing->staging, err);
    if (r == 0)
        r = stage_documents(sealing->staging, image, sealing->manifest, err);
    return r < 0 ? r : staging_flush(sealing->staging, err);
}

static int record_seal(struct store *store, const char *id, const char *manifest, struct error *err)
{
    int r = store_db_run(store->db, err, "UPDATE image SET manifest = ? WHERE id = ?", "tt",
                         manifest, id);

    if (r >= 0)
        r = store_db_run(store->db, err,
                         "WITH RECURSIVE line(image) AS (SELECT ? UNION"
                         " SELECT parent FROM build_step JOIN line USING(image))"
                         " UPDATE build_step SET unsealed = NULL WHERE image IN line",
                         "t", id);
    return r < 0 ? r : 0;
}

/* With store->files and a transaction: quick. */
static int seal_finish(struct store *store, const char *id, struct sealing *sealing,
                       struct error *err)
{
    int r = blob_install(sealing->staging, id, err);

    if (r == 0)
        r = blob_install(sealing->staging, sealing->manifest, err);
    if (r == 0)
        r = install_flush(sealing->staging, err);
    return r < 0 ? r : record_seal(store, id, sealing->manifest, err);
}

static int assign_names(struct store *store, const char *id, char *const *names, char ***given,
                        struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && names && names[i]; i++) {
        char *name = NULL;
        r = name_assign(store, id, names[i], &name, err);
        if (r == 0)
            strv_take(given, name);
    }
    return r;
}

/* The names in the same transaction: the image is never whole without them. */
static int seal(struct store *store, const char *id, char *const *names, char ***given,
                struct error *err)
{
    struct sealing sealing = {0};
    int r = seal_prepare(store, id, &sealing, err);

    if (r == 0 && (sealing.staging || names)) {
        pthread_mutex_lock(&store->files);
        r = store_db_begin(store->db, err);
        _cleanup_store_rollback_ struct store_db *transaction = r == 0 ? store->db : NULL;
        if (r == 0 && sealing.staging)
            r = seal_finish(store, id, &sealing, err);
        if (r >= 0)
            r = assign_names(store, id, names, given, err);
        if (r >= 0)
            r = store_db_commit(transaction, err);
        if (r < 0 && transaction)
            store_db_rollback(transaction);
        pthread_mutex_unlock(&store->files);
    }
    store_staging_free(sealing.staging);
    return r < 0 ? r : 0;
}

int store_build_seal(struct store *store, const char *id, char *const *names, char ***ret_names,
                     struct error *err)
{
    _cleanup_strv_ char **given = NULL;
    int r = seal(store, id, names, &given, err);

    if (r == 0)
        *ret_names = steal_ptr(given);
    return r;
}

int store_image_settle(struct store *store, const char *id, struct error *err)
{
    int r = build_is_held(store, id, err);

    return r ? (r < 0 ? r : 0) : seal(store, id, NULL, NULL, err);
}

bool store_image_is_loose(const struct store_image *image)
{
    return !image->manifest_digest && !image->built_in;
}

int build_seal_named(struct store *store, const char *name, struct error *err)
{
    _cleanup_free_ char *id = NULL;
    int r = image_find_id(store, name, &id, NULL, err);

    return r < 0 ? r : seal(store, id, NULL, NULL, err);
}

/* --- removing --------------------------------------------------------------------------------- */

/* Of a step that nothing stands on, has a name of or runs in, and no build under way has made or
 * found. */
static const char unused[] =
    "SELECT image, parent FROM build_step AS step JOIN image ON image.id = step.image WHERE"
    " NOT EXISTS (SELECT 1 FROM build_step AS child WHERE child.parent = step.image)"
    " AND NOT EXISTS (SELECT 1 FROM image_name WHERE image_name.image = step.image)"
    " AND NOT EXISTS (SELECT 1 FROM snapshot WHERE snapshot.image = step.image)"
    " AND NOT EXISTS (SELECT 1 FROM build_hold WHERE build_hold.image = step.image)";

int build_parent(struct store *store, const char *id, char **ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT parent FROM build_step WHERE image = ?", "t", id);

    if (r >= 0)
        r = store_statement_step(statement, err);
    *ret = r > 0 ? xstrdup(store_statement_text(statement, 0)) : NULL;
    return r < 0 ? r : 0;
}

int build_has_children(struct store *store, const char *id, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT 1 FROM build_step WHERE parent = ? LIMIT 1", "t", id);

    return r < 0 ? r : store_statement_step(statement, err);
}

static int is_unused(struct store *store, const char *id, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    _cleanup_free_ char *sql = xasprintf("%s AND step.image = ?", unused);
    int r = store_db_query(store->db, &statement, err, sql, "t", id);

    return r < 0 ? r : store_statement_step(statement, err);
}

int build_remove_line(struct store *store, const char *parent, char ***deleted, struct error *err)
{
    _cleanup_free_ char *id = xstrdup(parent);
    int r = 0;

    while (id && (r = is_unused(store, id, err)) > 0) {
        char *above = NULL;
        r = build_parent(store, id, &above, err);
        if (r == 0)
            r = store_db_run(store->db, err, "DELETE FROM image WHERE id = ?", "t", id);
        if (r > 0)
            strv_append(deleted, id);
        free(id);
        id = above;
        if (r < 0)
            break;
    }
    return r < 0 ? r : 0;
}

void store_pruned_finish(struct store_pruned *pruned)
{
    strv_free(pruned->deleted);
    *pruned = (struct store_pruned){0};
}

static int layers_size(struct store *store, const char *which, uint64_t *ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, which, "");

    if (r >= 0)
        r = store_statement_step(statement, err);
    *ret = r > 0 ? (uint64_t)store_statement_integer(statement, 0) : 0;
    return r < 0 ? r : 0;
}

/* What would go if all steps did that can. */
static const char size_of_steps[] =
    "SELECT IFNULL(SUM(size), 0) FROM layer WHERE EXISTS (SELECT 1 FROM image_layer JOIN build_step"
    " USING(image) WHERE layer = layer.id) AND NOT EXISTS (SELECT 1 FROM image_layer JOIN"
    " image_name USING(image) WHERE layer = layer.id) AND NOT EXISTS (SELECT 1 FROM image_layer"
    " JOIN build_hold USING(image) WHERE layer = layer.id) AND NOT EXISTS (SELECT 1 FROM"
    " image_layer WHERE layer = layer.id AND image NOT IN (SELECT image FROM build_step))"
    " AND NOT EXISTS (SELECT 1 FROM snapshot_layer WHERE layer = layer.id)";
static const char not_of_results[] =
    " AND NOT EXISTS (SELECT 1 FROM image_layer JOIN image ON image.id = image_layer.image"
    " WHERE layer = layer.id AND image.manifest IS NOT NULL)";
static const char size_of_used[] =
    "SELECT IFNULL(SUM(size), 0) FROM layer WHERE EXISTS (SELECT 1 FROM image_layer"
    " WHERE layer = layer.id) OR EXISTS (SELECT 1 FROM snapshot_layer WHERE layer = layer.id)";

/* The step that was used longest ago, of those that can go. */
static int next_unused(struct store *store, const struct store_prune *how, char **ret,
                       struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    _cleanup_free_ char *sql =
        xasprintf("%s%s AND image.added < ? AND used < ? ORDER BY used LIMIT 1", unused,
                  how->steps_only ? " AND image.manifest IS NULL" : "");
    int r =
        store_db_query(store->db, &statement, err, sql, "ii", how->until ? how->until : INT64_MAX,
                       how->unused_since ? how->unused_since : INT64_MAX);

    if (r >= 0)
        r = store_statement_step(statement, err);
    *ret = r > 0 ? xstrdup(store_statement_text(statement, 0)) : NULL;
    return r < 0 ? r : 0;
}

/* Part of it, in a transaction of its own: others get their turn in between. *ret_more: something
 * is left. */
static int prune_some(struct store *store, const struct store_prune *how,
                      struct store_pruned *pruned, bool *ret_more, struct error *err)
{
    _cleanup_free_ char *sizes =
        xasprintf("%s%s", size_of_steps, how->steps_only ? not_of_results : "");
    int r = store_db_begin(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    size_t count = 0;
    for (*ret_more = true; r >= 0 && *ret_more && count < PRUNED_AT_ONCE; count++) {
        _cleanup_free_ char *id = NULL;
        uint64_t size = 0;

        r = how->keep ? layers_size(store, sizes, &size, err) : 0;
        if (r == 0 && (!how->keep || size > how->keep))
            r = next_unused(store, how, &id, err);
        *ret_more = id != NULL;
        if (r >= 0 && id)
            r = store_db_run(store->db, err, "DELETE FROM image WHERE id = ?", "t", id);
        if (r >= 0 && id)
            strv_append(&pruned->deleted, id);
    }
    return r < 0 ? r : store_db_commit(transaction, err);
}

static int forget_keys(struct store *store, const struct store_prune *how, struct error *err)
{
    int r = how->all ? store_db_run(store->db, err,
                                    "UPDATE build_step SET key = NULL WHERE image IN"
                                    " (SELECT id FROM image WHERE added < ?)",
                                    "i", how->until ? how->until : INT64_MAX)
                     : 0;

    return r < 0 ? r : 0;
}

int store_build_prune(struct store *store, const struct store_prune *how, struct store_pruned *ret,
                      struct error *err)
{
    struct store_pruned pruned = {0};
    uint64_t before = 0, after = 0;
    bool more = true;
    int r = layers_size(store, size_of_used, &before, err);

    while (r == 0 && more)
        r = prune_some(store, how, &pruned, &more, err);
    if (r == 0)
        r = forget_keys(store, how, err);
    if (r == 0)
        r = layers_size(store, size_of_used, &after, err);
    garbage_collect(store, NULL);
    if (r < 0) {
        store_pruned_finish(&pruned);
        return r;
    }
    pruned.reclaimed = before > after ? before - after : 0; /* others may have added to it */
    *ret = pruned;
    return 0;
}
