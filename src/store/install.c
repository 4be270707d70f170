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

int install_flush(struct store_staging *staging, struct error *err)
{
    struct store *store = staging->store;

    if (staging->unflushed)
        return syncfs(store->layers_fd) < 0 ? error_errno(err, errno, "flush %s", store->root) : 0;
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
int layer_find(struct store *store, const char *key, int64_t *ret, struct error *err)
{
    return find_layer(store, layer_by_key, key, ret, err);
}

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

/* A layer that has a record but, after a loss, no folder gets the one that came now. */
static int restore_folder(struct store_staging *staging, const char *source, int64_t layer,
                          struct error *err)
{
    struct store *store = staging->store;
    _cleanup_free_ char *name = xasprintf("%lld", (long long)layer);

    if (faccessat(store->layers_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    int r = check_folder(staging, source, err);
    if (r == 0 && renameat(staging->fd, source, store->layers_fd, name) < 0)
        r = error_errno(err, errno, "move layer %s into %s/layers", source, store->root);
    return r;
}

/* Layers of steps that no build has sealed yet may not be on the disk. */
static int note_unflushed(struct store_staging *staging, int64_t layer, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(staging->store->db, &statement, err,
                           "SELECT 1 FROM image_layer LEFT JOIN build_step USING(image)"
                           " WHERE layer = ? AND unsealed IS NULL LIMIT 1",
                           "i", layer);

    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r == 0)
        staging->unflushed = true;
    return r < 0 ? r : 0;
}

int layer_install(struct store_staging *staging, const char *source, const char *key,
                  const char *diff_id, uint64_t size, int64_t *ret_layer, struct error *err)
{
    struct store *store = staging->store;
    int r = find_layer(store, layer_by_key, key, ret_layer, err);

    /* An image before this one in the same archive may have taken the folder by another chain. */
    if (r == 0 && faccessat(staging->fd, source, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        r = find_layer(store, layer_by_diff_id, diff_id, ret_layer, err);
    if (r > 0) {
        r = note_unflushed(staging, *ret_layer, err);
        return r < 0 ? r : restore_folder(staging, source, *ret_layer, err);
    }
    if (r < 0)
        return r;
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
int blob_install(struct store_staging *staging, const char *digest, struct error *err)
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

/* A layer that the worker was told of: by its diff ID, or by its chain where its folders depend on
 * the layers below. */
static int find_present(struct store *store, const struct image_worker_layer *layer,
                        const char *chain, int64_t *ret, struct error *err)
{
    int r = layer_find(store, layer->diff_id, ret, err);

    if (r == 0)
        r = layer_find(store, chain, ret, err);
    if (r == 0)
        return error_set(err, -EBADMSG, "layer %s is not there", layer->diff_id);
    return r < 0 ? r : 0;
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
        int r = layer->present ? find_present(staging->store, layer, chain, &number, err)
                               : layer_install(staging, source, key, layer->diff_id, layer->size,
                                               &number, err);
        if (r == 0)
            r = blob_install(staging, layer->blob, err);
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

/* 1: every blob of the image's record is there. */
static int is_whole(struct store *store, const char *image, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *blobs = NULL;
    int r = store_db_query(store->db, &blobs, err,
                           "SELECT blob FROM image_layer WHERE image = ?1 UNION"
                           " SELECT id FROM image WHERE id = ?1 UNION"
                           " SELECT manifest FROM image WHERE id = ?1 AND manifest IS NOT NULL",
                           "t", image);

    while (r >= 0 && (r = store_statement_step(blobs, err)) > 0) {
        const char *blob = store_statement_text(blobs, 0);
        if (faccessat(store->content_fd, digest_hex(blob), F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            return 0;
    }
    return r < 0 ? r : 1;
}

/* It is there already. What a repair threw away comes back with it, in the form that came now,
 * whose compression, and with it the manifest, may be another; layers and containers stay what they
 * are. */
static int install_again(struct store_staging *staging, const struct image_install *image,
                         struct error *err)
{
    struct store *store = staging->store;
    int r = is_whole(store, image->id, err);

    if (r)
        return r < 0 ? r : 0;
    if (!image->parent) {
        r = store_db_run(store->db, err, "DELETE FROM image_layer WHERE image = ?", "t", image->id);
        if (r >= 0)
            r = store_db_run(store->db, err, "UPDATE image SET manifest = ? WHERE id = ?", "tt",
                             image->manifest, image->id);
        if (r >= 0)
            r = install_layers(staging, image, err);
    }
    if (r >= 0)
        r = blob_install(staging, image->id, err);
    if (r >= 0)
        r = blob_install(staging, image->manifest, err);
    /* One that a build made is now as durable as the others. */
    if (r >= 0)
        r = store_db_run(store->db, err, "UPDATE build_step SET unsealed = NULL WHERE image = ?",
                         "t", image->id);
    return r < 0 ? r : 0;
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
    if (r == 0) /* a step of a build brings no documents */
        return image->manifest ? install_again(staging, image, err) : 0;
    r = install_layers(staging, image, err);
    if (r == 0 && image->manifest)
        r = blob_install(staging, image->id, err);
    if (r == 0 && image->manifest)
        r = blob_install(staging, image->manifest, err);
    return r;
}
