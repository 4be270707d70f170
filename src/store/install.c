/*
 * From staging into place. The order is what makes a power cut harmless: the staged files are
 * flushed, then renamed, the renames are flushed, and only then does the record say that they are
 * there. Whatever is renamed without a record is garbage.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>

#include "internal.h"

int staging_flush(struct store_staging *staging, struct error *err)
{
    if (syncfs(staging->fd) < 0)
        return error_errno(err, errno, "flush %s", staging->store->root);
    return 0;
}

int install_flush(struct store *store, struct error *err)
{
    if (fsync(store->layers_fd) < 0 || fsync(store->content_fd) < 0)
        return error_errno(err, errno, "flush the folders of %s", store->root);
    return 0;
}

static int find_layer(struct store *store, const char *sql, const char *text, int64_t *ret,
                      struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, sql, "t", text);

    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r > 0)
        *ret = store_statement_integer(statement, 0);
    return r;
}

static const char layer_by_key[] = "SELECT id FROM layer WHERE key = ?";
static const char layer_by_diff_id[] = "SELECT id FROM layer WHERE diff_id = ? ORDER BY id LIMIT 1";

/* A worker is not trusted: what it calls a layer must be a folder, not a link to one. */
static int check_folder(struct store_staging *staging, const char *source, struct error *err)
{
    struct stat status;

    if (fstatat(staging->fd, source, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "staged layer %s", source);
    if (!S_ISDIR(status.st_mode))
        return error_set(err, -EBADMSG, "staged layer %s is not a folder", source);
    return 0;
}

int layer_install(struct store_staging *staging, const char *source, const char *key,
                  const char *diff_id, uint64_t size, int64_t *ret_layer, struct error *err)
{
    struct store *store = staging->store;
    int r = find_layer(store, layer_by_key, key, ret_layer, err);

    /* An image before this one in the same archive may have taken the folder by another chain. */
    if (r == 0 && faccessat(staging->fd, source, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        r = find_layer(store, layer_by_diff_id, diff_id, ret_layer, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = check_folder(staging, source, err);
    if (r == 0)
        r = store_db_run(store->db, err, "INSERT INTO layer(key, diff_id, size) VALUES(?, ?, ?)",
                         "tti", key, diff_id, (int64_t)size);
    if (r >= 0)
        r = find_layer(store, layer_by_key, key, ret_layer, err);
    if (r < 0)
        return r;

    _cleanup_free_ char *name = xasprintf("%lld", (long long)*ret_layer);
    /* A number that an earlier, rolled back installation used may have left its folder. */
    r = file_remove_tree_at(store->layers_fd, name, err);
    if (r < 0)
        return r;
    if (renameat(staging->fd, source, store->layers_fd, name) < 0)
        return error_errno(err, errno, "move layer %s into %s/layers", source, store->root);
    return 0;
}

/* A blob that is there already is the same blob: its name is its digest. */
static int install_blob(struct store_staging *staging, const char *digest, struct error *err)
{
    struct store *store = staging->store;
    const char *hex = digest_hex(digest);
    _cleanup_free_ char *source = xasprintf("content/%s", hex);
    struct stat status;

    if (fstatat(store->content_fd, hex, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    if (fstatat(staging->fd, source, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "staged blob %s", digest);
    if (!S_ISREG(status.st_mode))
        return error_set(err, -EBADMSG, "staged blob %s is not a file", digest);
    if (renameat(staging->fd, source, store->content_fd, hex) < 0)
        return error_errno(err, errno, "move blob %s into %s/content", digest, store->root);
    return 0;
}

/* Returns how many it has. */
static int64_t inherit_layers(struct store *store, const struct image_install *image,
                              struct error *err)
{
    if (!image->parent)
        return 0;
    return store_db_run(store->db, err,
                        "INSERT INTO image_layer(image, position, layer, blob, media_type,"
                        " blob_size) SELECT ?, position, layer, blob, media_type, blob_size"
                        " FROM image_layer WHERE image = ?",
                        "tt", image->id, image->parent);
}

/* The folder of a layer with implicit folders depends on the layers below it. */
static int install_layers(struct store_staging *staging, const struct image_install *image,
                          struct error *err)
{
    char chain[DIGEST_TEXT_SIZE] = "";
    int64_t first = inherit_layers(staging->store, image, err);

    if (first < 0)
        return (int)first;
    for (size_t i = 0; i < image->layers_count; i++) {
        const struct image_worker_layer *layer = image->layers[i];
        _cleanup_free_ char *source = xasprintf("layers/%s", digest_hex(layer->diff_id));
        char next[DIGEST_TEXT_SIZE];
        int64_t number;
        digest_chain(chain, layer->diff_id, next);
        snprintf(chain, sizeof(chain), "%s", next);
        const char *key = layer->implicit_folders_count && i ? chain : layer->diff_id;
        int r = layer_install(staging, source, key, layer->diff_id, layer->size, &number, err);
        if (r == 0)
            r = install_blob(staging, layer->blob, err);
        if (r == 0)
            r = store_db_run(staging->store->db, err,
                             "INSERT INTO image_layer(image, position, layer, blob, media_type,"
                             " blob_size) VALUES(?, ?, ?, ?, ?, ?)",
                             "tiitti", image->id, first + (int64_t)i, number, layer->blob,
                             layer->media_type, (int64_t)layer->blob_size);
        if (r < 0)
            return r;
    }
    return 0;
}

int image_install(struct store_staging *staging, const struct image_install *image,
                  struct error *err)
{
    int r = store_db_run(staging->store->db, err,
                         "INSERT OR IGNORE INTO image(id, manifest, base, built_in, created, added,"
                         " config) VALUES(?, ?, ?, 0, ?, ?, ?)",
                         "tttiit", image->id, image->manifest, image->base, image->created,
                         clock_now(), image->config_text);

    if (r < 0)
        return r;
    if (r == 0) /* it is there already, with its layers */
        return 0;
    r = install_layers(staging, image, err);
    if (r == 0)
        r = install_blob(staging, image->id, err);
    if (r == 0)
        r = install_blob(staging, image->manifest, err);
    return r;
}
