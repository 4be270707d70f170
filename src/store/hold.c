/*
 * What must stay although no record refers to it: images that a build under way stands on, blobs
 * that are being sent, and for a while everything. In temporary tables, which end with the process
 * as that work does.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <store/build.h>
#include <store/check.h>

#include "internal.h"

int holds_open(struct store *store, struct error *err)
{
    static const char *const tables[] = {
        "PRAGMA temp_store = MEMORY",
        "CREATE TEMP TABLE build_hold(build INTEGER, image TEXT, PRIMARY KEY(image, build))"
        " WITHOUT ROWID",
        "CREATE TEMP TABLE blob_hold(holder INTEGER, blob TEXT, PRIMARY KEY(blob, holder))"
        " WITHOUT ROWID",
        "CREATE TEMP TABLE store_hold(holder INTEGER PRIMARY KEY, until INTEGER NOT NULL)",
    };
    int r = 0;

    for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(tables); i++)
        r = store_db_run(store->db, err, tables[i], "");
    return r < 0 ? r : 0;
}

/* --- builds ----------------------------------------------------------------------------------- */

int64_t store_build_begin(struct store *store)
{
    pthread_mutex_lock(&store->files);
    int64_t build = ++store->build_number;
    pthread_mutex_unlock(&store->files);
    return build;
}

int store_build_hold(struct store *store, int64_t build, const char *image, struct error *err)
{
    /* An image that is held already counts as changed, too, so that 0 means that it is gone. */
    int r = store_db_run(store->db, err,
                         "INSERT OR REPLACE INTO build_hold(build, image)"
                         " SELECT ?, id FROM image WHERE id = ?",
                         "it", build, image);

    if (r == 0)
        return error_set(err, -ENOENT, "No such image: %s", image);
    return r < 0 ? r : 0;
}

int build_is_held(struct store *store, const char *image, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, "SELECT 1 FROM build_hold WHERE image = ?",
                           "t", image);

    return r < 0 ? r : store_statement_step(statement, err);
}

/* Images that containers are left of, as of a step that failed: they are to outlast a power cut.
 * build: 0: of all. */
static char **list_left(struct store *store, int64_t build, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    char **left = NULL;

    if (store_db_query(store->db, &statement, err,
                       "SELECT DISTINCT image FROM build_step JOIN snapshot USING(image)"
                       " WHERE unsealed IS NOT NULL AND"
                       " (?1 = 0 OR image IN (SELECT image FROM build_hold WHERE build = ?1))",
                       "i", build) < 0)
        return NULL;
    while (store_statement_step(statement, err) > 0)
        strv_append(&left, store_statement_text(statement, 0));
    return left;
}

void store_build_end(struct store *store, int64_t build)
{
    _cleanup_strv_ char **left = list_left(store, build, NULL);

    store_db_run(store->db, NULL, "DELETE FROM build_hold WHERE build = ?", "i", build);
    for (size_t i = 0; left && left[i]; i++)
        store_image_settle(store, left[i], NULL);
}

int store_build_settle_left(struct store *store, struct error *err)
{
    _cleanup_strv_ char **left = list_left(store, 0, err);
    int r = err->code;

    for (size_t i = 0; left && left[i]; i++) {
        int own = store_image_settle(store, left[i], r < 0 ? NULL : err);

        r = r < 0 ? r : own;
    }
    return r;
}

/* --- content ---------------------------------------------------------------------------------- */

static int64_t number_of(const void *holder)
{
    return (int64_t)(intptr_t)holder;
}

int hold_blob(struct store *store, const void *holder, const char *blob, struct error *err)
{
    int r =
        store_db_run(store->db, err, "INSERT OR IGNORE INTO blob_hold(holder, blob) VALUES(?, ?)",
                     "it", number_of(holder), blob);

    return r < 0 ? r : 0;
}

int hold_image_blobs(struct store *store, const void *holder,
                     const struct image_worker_saved_image *image, struct error *err)
{
    int r = hold_blob(store, holder, image->id, err);

    if (r == 0)
        r = hold_blob(store, holder, image->manifest, err);
    for (size_t i = 0; r == 0 && i < image->layers_count; i++)
        r = hold_blob(store, holder, image->layers[i]->blob, err);
    return r;
}

int hold_all(struct store *store, const void *holder, int64_t nanoseconds, struct error *err)
{
    int64_t until = nanoseconds ? clock_now() + nanoseconds : INT64_MAX;
    int r = store_db_run(store->db, err,
                         "INSERT OR REPLACE INTO store_hold(holder, until) VALUES(?, ?)", "ii",
                         number_of(holder), until);

    return r < 0 ? r : 0;
}

int holds_all(struct store *store, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT 1 FROM store_hold WHERE until > ? LIMIT 1", "i", clock_now());

    return r < 0 ? r : store_statement_step(statement, err);
}

int holds_any(struct store *store, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r =
        store_db_query(store->db, &statement, err,
                       "SELECT 1 FROM store_hold UNION ALL SELECT 1 FROM blob_hold LIMIT 1", "");

    return r < 0 ? r : store_statement_step(statement, err);
}

void hold_release(struct store *store, const void *holder)
{
    store_db_run(store->db, NULL, "DELETE FROM blob_hold WHERE holder = ?", "i", number_of(holder));
    store_db_run(store->db, NULL, "DELETE FROM store_hold WHERE holder = ?", "i",
                 number_of(holder));
    pthread_mutex_lock(&store->files);
    bool collect = store->collect_deferred;
    pthread_mutex_unlock(&store->files);
    if (collect)
        garbage_collect(store, NULL);
}

void store_hold(struct store *store, const void *holder)
{
    hold_all(store, holder, 0, NULL);
}

void store_release(struct store *store, const void *holder)
{
    hold_release(store, holder);
}
