/*
 * What no record refers to: files of layers and blobs after a removal or a crash, and staging
 * folders whose worker is gone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "internal.h"

/* Layer records that neither an image nor a snapshot holds. The newest host skeleton stays: its
 * image refers to it by key, not by number (host.c). */
static const char unused_layers[] =
    "DELETE FROM layer WHERE"
    " NOT EXISTS (SELECT 1 FROM image_layer WHERE layer = layer.id)"
    " AND NOT EXISTS (SELECT 1 FROM snapshot_layer WHERE layer = layer.id)"
    " AND NOT (key LIKE 'host:%' AND id = (SELECT MAX(id) FROM layer WHERE key LIKE 'host:%'))";

static const char layer_is_known[] = "SELECT 1 FROM layer WHERE id = ?";

static const char blob_is_known[] = "SELECT 1 FROM image WHERE id = ?1 OR manifest = ?1 UNION ALL"
                                    " SELECT 1 FROM image_layer WHERE blob = ?1 UNION ALL"
                                    " SELECT 1 FROM blob_hold WHERE blob = ?1 LIMIT 1";

static int row_exists(struct store *store, const char *sql, const char *text, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err, sql, "t", text);

    return r < 0 ? r : store_statement_step(statement, err);
}

/* Moves it out of sight in one step, so that a name in layers/ or content/ always means a whole
 * layer or blob; the slow part happens in staging, when nothing is locked any more. */
static void discard(struct store *store, int dir_fd, const char *name, char ***trash)
{
    char hidden[2 + 16 + 1] = "t-";

    text_random_hex(hidden + 2, 16);
    if (renameat(dir_fd, name, store->staging_fd, hidden) == 0)
        strv_append(trash, hidden);
}

static void empty_trash(struct store *store, char *const *trash)
{
    for (; trash && *trash; trash++)
        file_remove_tree_at(store->staging_fd, *trash, NULL);
}

/* Opens dir_fd anew, so that positions are not shared. */
static DIR *open_listing(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir)
        close_fd(fd);
    return dir;
}

static bool is_dots(const char *name)
{
    return text_equal(name, ".") || text_equal(name, "..");
}

static int collect_layers(struct store *store, char ***trash, struct error *err)
{
    _cleanup_closedir_ DIR *dir = open_listing(store->layers_fd);
    struct dirent *entry;

    if (!dir)
        return error_errno(err, errno, "list %s/layers", store->root);
    while ((entry = readdir(dir))) {
        if (is_dots(entry->d_name) || text_equal(entry->d_name, STORE_EMPTY_LAYER) ||
            text_equal(entry->d_name, STORE_ENGINE_LAYER))
            continue;
        int r = row_exists(store, layer_is_known, entry->d_name, err);
        if (r < 0)
            return r;
        if (!r)
            discard(store, store->layers_fd, entry->d_name, trash);
    }
    return 0;
}

static int collect_blobs(struct store *store, char ***trash, struct error *err)
{
    _cleanup_closedir_ DIR *dir = open_listing(store->content_fd);
    struct dirent *entry;

    if (!dir)
        return error_errno(err, errno, "list %s/content/sha256", store->root);
    while ((entry = readdir(dir))) {
        if (is_dots(entry->d_name))
            continue;
        _cleanup_free_ char *digest = xasprintf("sha256:%s", entry->d_name);
        int r = row_exists(store, blob_is_known, digest, err);
        if (r < 0)
            return r;
        if (!r)
            discard(store, store->content_fd, entry->d_name, trash);
    }
    return 0;
}

/* Folders that a crash left between their creation and their record. */
static int collect_containers(struct store *store, char ***trash, struct error *err)
{
    _cleanup_closedir_ DIR *dir = open_listing(store->containers_fd);
    struct dirent *entry;

    if (!dir)
        return error_errno(err, errno, "list %s/containers", store->root);
    while ((entry = readdir(dir))) {
        if (is_dots(entry->d_name))
            continue;
        int r = row_exists(store, "SELECT 1 FROM snapshot WHERE container = ?", entry->d_name, err);
        if (r < 0)
            return r;
        if (!r)
            discard(store, store->containers_fd, entry->d_name, trash);
    }
    return 0;
}

/* A staging folder is locked through the open file that its worker shares, so that one whose
 * worker outlives a killed daemon is left until the worker is gone. */
static bool is_held(int staging_fd, const char *name)
{
    _cleanup_close_ int fd = openat(staging_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static void collect_staging(struct store *store)
{
    _cleanup_closedir_ DIR *dir = open_listing(store->staging_fd);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (!is_dots(entry->d_name) && !is_held(store->staging_fd, entry->d_name)) {
            partials_keep(store, entry->d_name);
            file_remove_tree_at(store->staging_fd, entry->d_name, NULL);
        }
}

int garbage_collect_at_open(struct store *store, struct error *err)
{
    _cleanup_strv_ char **trash = NULL;
    int r = garbage_collect(store, err);

    if (r == 0)
        r = collect_containers(store, &trash, err);
    empty_trash(store, trash);
    if (r == 0)
        collect_staging(store);
    return r;
}

/* Durable before the folders go: a record that came back after a power cut would stand for a layer
 * that is not there. */
static int forget_layers(struct store *store, struct error *err)
{
    int r = store_db_begin(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = store_db_run(store->db, err, unused_layers, "");
    return r > 0 ? store_db_commit(transaction, err) : r;
}

int garbage_collect(struct store *store, struct error *err)
{
    _cleanup_strv_ char **trash = NULL;

    /* Inside a transaction nothing is decided yet: the next collection takes it. */
    if (store_db_in_transaction(store->db))
        return 0;
    pthread_mutex_lock(&store->files);
    int r = holds_all(store, err);
    store->collect_deferred = holds_any(store, NULL) != 0;
    if (r == 0) {
        r = forget_layers(store, err);
        if (r >= 0)
            r = collect_layers(store, &trash, err);
        if (r >= 0)
            r = collect_blobs(store, &trash, err);
    }
    pthread_mutex_unlock(&store->files);
    empty_trash(store, trash);
    return r < 0 ? r : 0;
}
