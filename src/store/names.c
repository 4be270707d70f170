/* Tagging and removing: docker's tag and rmi. */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/reference.h>

#include "internal.h"

void store_removed_finish(struct store_removed *removed)
{
    strv_free(removed->untagged);
    strv_free(removed->deleted);
    *removed = (struct store_removed){0};
}

static int parse_new_name(const char *name, char **ret_full, struct error *err)
{
    _cleanup_store_reference_ struct store_reference reference = {0};
    int r = store_reference_parse(name, &reference, err);

    if (r < 0)
        return r;
    if (reference.digest)
        return error_set(err, -EINVAL, "refusing to create a tag with a digest reference: '%s'",
                         name);
    store_reference_default_tag(&reference);
    _cleanup_free_ char *full = store_reference_full(&reference);
    if (text_equal(full, STORE_HOST_NAME))
        return error_set(err, -EPERM, "the name '%s' belongs to the built-in image",
                         STORE_HOST_IMAGE);
    *ret_full = steal_ptr(full);
    return 0;
}

int name_assign(struct store *store, const char *id, const char *name, char **ret_short,
                struct error *err)
{
    _cleanup_free_ char *full = NULL;
    int r = parse_new_name(name, &full, err);

    if (r >= 0)
        r = store_db_run(store->db, err,
                         "INSERT INTO image_name(name, image) VALUES(?, ?)"
                         " ON CONFLICT(name) DO UPDATE SET image = excluded.image",
                         "tt", full, id);
    if (r < 0)
        return r;
    if (ret_short)
        *ret_short = store_reference_shorten(full);
    return 0;
}

int store_image_tag(struct store *store, const char *what, const char *name, char **ret_name,
                    struct error *err)
{
    _cleanup_free_ char *id = NULL, *short_name = NULL;
    int r = build_seal_named(store, what, err);

    if (r >= 0)
        r = store_db_begin(store->db, err);
    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = image_find_id(store, what, &id, NULL, err);
    if (r == 0)
        r = name_assign(store, id, name, &short_name, err);
    if (r == 0)
        r = store_db_commit(transaction, err);
    if (r == 0 && ret_name)
        *ret_name = steal_ptr(short_name);
    return r;
}

/* A container whose snapshot stands on the image, or NULL. */
static int find_user(struct store *store, const char *id, char **ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT container FROM snapshot WHERE image = ? LIMIT 1", "t", id);

    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r > 0)
        *ret = xstrdup(store_statement_text(statement, 0));
    return r;
}

struct removal {
    const char *what;
    unsigned how; /* enum store_remove */
    bool by_name;
    struct store_image *image;
};

/* docker's rules (daemon/images/image_delete.go, conflicts): what stands against it. */
static int check_conflicts(struct store *store, const struct removal *removal, struct error *err)
{
    const struct store_image *image = removal->image;
    _cleanup_free_ char *user = NULL;

    if (image->built_in)
        return error_set(err, -EPERM, "the image '%s' is built in and cannot be removed",
                         STORE_HOST_IMAGE);
    if (removal->by_name && strv_length(image->names) > 1)
        return 0;
    int r = build_is_held(store, image->id, err);
    if (r > 0)
        return error_set(
            err, -EBUSY,
            "conflict: unable to delete %.12s (cannot be forced) - image is being used "
            "by a build or commit that is under way",
            digest_hex(image->id));
    if (r == 0 && !removal->by_name)
        r = build_has_children(store, image->id, err);
    if (r > 0 && !image->names)
        return error_set(err, -EBUSY,
                         "conflict: unable to delete %.12s (cannot be forced) - image has "
                         "dependent child images",
                         digest_hex(image->id));
    if (r >= 0)
        r = find_user(store, image->id, &user, err);
    if (r < 0 || (removal->how & STORE_REMOVE_FORCE))
        return r < 0 ? r : 0;
    if (user && removal->by_name)
        return error_set(err, -EBUSY,
                         "conflict: unable to remove repository reference \"%s\" (must force) - "
                         "container %.12s is using its referenced image %.12s",
                         removal->what, user, digest_hex(image->id));
    if (user)
        return error_set(err, -EBUSY,
                         "conflict: unable to delete %.12s (must be forced) - image is being used "
                         "by container %.12s",
                         digest_hex(image->id), user);
    if (!removal->by_name && !(removal->how & STORE_REMOVE_NAMES) && strv_length(image->names) > 1)
        return error_set(err, -EBUSY,
                         "conflict: unable to delete %.12s (must be forced) - image is referenced "
                         "in multiple repositories",
                         digest_hex(image->id));
    return 0;
}

static int remove_name(struct store *store, const char *name, struct store_removed *removed,
                       struct error *err)
{
    _cleanup_free_ char *full = NULL;
    int r = store_reference_normalize(name, &full, err);

    if (r >= 0)
        r = store_db_run(store->db, err, "DELETE FROM image_name WHERE name = ?", "t", full);
    if (r > 0)
        strv_take(&removed->untagged, store_reference_shorten(full));
    return r;
}

/* Chain IDs of layers that no other image has. */
static int report_layers(struct store *store, const struct store_image *image,
                         struct store_removed *removed, struct error *err)
{
    char chain[DIGEST_TEXT_SIZE] = "";

    for (size_t i = 0; image->diff_ids && image->diff_ids[i]; i++) {
        _cleanup_store_statement_ struct store_statement *statement = NULL;
        char next[DIGEST_TEXT_SIZE];
        digest_chain(chain, image->diff_ids[i], next);
        memcpy(chain, next, sizeof(chain));
        int r = store_db_query(store->db, &statement, err,
                               "SELECT 1 FROM image_layer JOIN layer ON layer.id = layer"
                               " WHERE diff_id = ? UNION ALL"
                               " SELECT 1 FROM snapshot_layer JOIN layer ON layer.id = layer"
                               " WHERE diff_id = ? LIMIT 1",
                               "tt", image->diff_ids[i], image->diff_ids[i]);
        if (r >= 0)
            r = store_statement_step(statement, err);
        if (r < 0)
            return r;
        if (r == 0)
            strv_append(&removed->deleted, chain);
    }
    return 0;
}

static int remove_record(struct store *store, const struct removal *removal,
                         struct store_removed *removed, struct error *err)
{
    const struct store_image *image = removal->image;
    _cleanup_free_ char *parent = NULL;
    int r = build_parent(store, image->id, &parent, err);

    if (r == 0)
        r = store_db_run(store->db, err, "DELETE FROM image WHERE id = ?", "t", image->id);
    if (r < 0)
        return r;
    strv_append(&removed->deleted, image->id);
    if (!(removal->how & STORE_REMOVE_KEEP_PARENTS))
        r = build_remove_line(store, parent, &removed->deleted, err);
    return r < 0 ? r : report_layers(store, image, removed, err);
}

static int remove_steps(struct store *store, struct removal *removal, struct store_removed *removed,
                        struct error *err)
{
    int r = check_conflicts(store, removal, err);

    if (r < 0)
        return r;
    char **names = removal->image->names;
    if (removal->by_name && strv_length(names) > 1)
        return remove_name(store, removal->what, removed, err);
    for (size_t i = 0; r >= 0 && names && names[i]; i++)
        r = remove_name(store, names[i], removed, err);
    return r < 0 ? r : remove_record(store, removal, removed, err);
}

int image_remove(struct store *store, const char *what, unsigned how, struct store_removed *removed,
                 struct error *err)
{
    struct removal removal = {.what = what, .how = how};
    _cleanup_free_ char *id = NULL;
    int r = image_find_id(store, what, &id, &removal.by_name, err);

    if (r == 0)
        r = image_read(store, id, &removal.image, err);
    if (r == 0)
        r = remove_steps(store, &removal, removed, err);
    store_image_free(removal.image);
    return r;
}

int store_image_remove(struct store *store, const char *what, unsigned how,
                       struct store_removed *ret, struct error *err)
{
    _cleanup_store_removed_ struct store_removed removed = {0};
    int r = store_db_begin(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = image_remove(store, what, how, &removed, err);
    if (r >= 0)
        r = store_db_commit(transaction, err);
    if (r < 0)
        return r;
    if (removed.deleted)
        /* The image is gone either way; files that stay are taken at the next opening. */
        garbage_collect(store, NULL);
    *ret = removed;
    removed = (struct store_removed){0};
    return 0;
}
