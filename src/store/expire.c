/* Images that nobody has needed for long. */
#include <errno.h>

#include <base/text.h>
#include <store/store.h>

#include "internal.h"

/* Steps of builds are their cache (store/build.h); what a build ended with has a manifest. */
#define NOT_IN_USE                                                                                 \
    "SELECT id FROM image WHERE built_in = 0 AND added < ?"                                        \
    " AND NOT EXISTS (SELECT 1 FROM snapshot WHERE snapshot.image = image.id)"                     \
    " AND (EXISTS (SELECT 1 FROM image_name WHERE image_name.image = image.id)"                    \
    " OR NOT EXISTS (SELECT 1 FROM build_step WHERE build_step.image = image.id)"                  \
    " OR (manifest IS NOT NULL"                                                                    \
    " AND NOT EXISTS (SELECT 1 FROM build_step WHERE build_step.parent = image.id)))"
#define WITHOUT_NAME " AND NOT EXISTS (SELECT 1 FROM image_name WHERE image_name.image = image.id)"

static int list_old(struct store *store, int64_t before, bool named, char ***ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, named ? NOT_IN_USE : NOT_IN_USE WITHOUT_NAME,
                           "i", before);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0)
        strv_append(ret, store_statement_text(statement, 0));
    return r;
}

static void move_all(char ***to, char **from)
{
    for (size_t i = 0; from && from[i]; i++)
        strv_append(to, from[i]);
}

/* 1: it still is what list_old() found. */
static int is_old(struct store *store, const char *id, int64_t before, bool named,
                  struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           named ? NOT_IN_USE " AND id = ?" : NOT_IN_USE WITHOUT_NAME " AND id = ?",
                           "it", before, id);

    return r < 0 ? r : store_statement_step(statement, err);
}

/* In one transaction with a second look: what has come into use or got a name meanwhile stays, and
 * keeps all its names. */
static int expire(struct store *store, const char *id, int64_t before, bool named,
                  struct store_removed *removed, struct error *err)
{
    _cleanup_store_removed_ struct store_removed now = {0};
    _cleanup_error_ struct error why = ERROR_INIT;
    int r = store_db_begin(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = is_old(store, id, before, named, &why);
    if (r == 0)
        return 0;
    if (r > 0)
        r = image_remove(store, id, STORE_REMOVE_NAMES, &now, &why);
    if (r >= 0)
        r = store_db_commit(transaction, &why);
    if (r == -EBUSY)
        return 0;
    if (r < 0)
        return error_move(err, &why);
    move_all(&removed->untagged, now.untagged);
    move_all(&removed->deleted, now.deleted);
    return 0;
}

int store_image_expire(struct store *store, int64_t before, bool named, struct store_removed *ret,
                       struct error *err)
{
    _cleanup_strv_ char **ids = NULL;
    int r = list_old(store, before, named, &ids, err);

    for (size_t i = 0; r >= 0 && ids && ids[i]; i++)
        r = expire(store, ids[i], before, named, ret, err);
    if (ids)
        garbage_collect(store, NULL); /* as store_image_remove() does */
    return r < 0 ? r : 0;
}

int store_collect(struct store *store, struct error *err)
{
    return garbage_collect(store, err);
}
