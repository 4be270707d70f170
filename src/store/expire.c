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
static const char not_in_use[] = NOT_IN_USE;
static const char without_name[] =
    NOT_IN_USE " AND NOT EXISTS (SELECT 1 FROM image_name WHERE image_name.image = image.id)";

static int list_old(struct store *store, int64_t before, bool named, char ***ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r =
        store_db_query(store->db, &statement, err, named ? not_in_use : without_name, "i", before);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0)
        strv_append(ret, store_statement_text(statement, 0));
    return r;
}

static void move_all(char ***to, char **from)
{
    for (size_t i = 0; from && from[i]; i++)
        strv_append(to, from[i]);
}

static int remove_one(struct store *store, const char *what, struct store_removed *removed,
                      struct error *err)
{
    _cleanup_store_removed_ struct store_removed now = {0};
    int r = store_image_remove(store, what, 0, &now, err);

    move_all(&removed->untagged, now.untagged);
    move_all(&removed->deleted, now.deleted);
    return r;
}

/* Name by name: with the last one it goes. What has come into use meanwhile stays. */
static int expire(struct store *store, const char *id, struct store_removed *removed,
                  struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    _cleanup_error_ struct error why = ERROR_INIT;
    int r = image_read(store, id, &image, &why);

    for (size_t i = 0; r == 0 && image->names && image->names[i]; i++)
        r = remove_one(store, image->names[i], removed, &why);
    if (r == 0 && !image->names)
        r = remove_one(store, id, removed, &why);
    if (r == 0 || r == -ENOENT || r == -EBUSY)
        return 0;
    return error_move(err, &why);
}

int store_image_expire(struct store *store, int64_t before, bool named, struct store_removed *ret,
                       struct error *err)
{
    _cleanup_strv_ char **ids = NULL;
    int r = list_old(store, before, named, &ids, err);

    for (size_t i = 0; r >= 0 && ids && ids[i]; i++)
        r = expire(store, ids[i], ret, err);
    return r < 0 ? r : 0;
}

int store_collect(struct store *store, struct error *err)
{
    return garbage_collect(store, err);
}
