#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <store/snapshot.h>

#include "internal.h"

/* Container IDs become names of folders. */
static int check_id(const char *container, struct error *err)
{
    size_t length = strlen(container);

    if (length == 0 || length > 64 || !text_is_hex(container, length))
        return error_set(err, -EINVAL, "'%s' is no container ID", container);
    return 0;
}

/* The upper folder is the root folder of the container: its owner and mode are seen inside. */
static int make_upper(struct store *store, const char *container, const char *top_layer,
                      struct error *err)
{
    _cleanup_free_ char *upper = xasprintf("%s/upper", container);
    struct stat status = {.st_mode = 0755};

    if (top_layer && fstatat(store->layers_fd, top_layer, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "layer %s/layers/%s", store->root, top_layer);
    if (mkdirat(store->containers_fd, upper, 0700) < 0)
        return error_errno(err, errno, "create %s/containers/%s", store->root, upper);
    if (fchownat(store->containers_fd, upper, status.st_uid, status.st_gid, 0) < 0 ||
        fchmodat(store->containers_fd, upper, status.st_mode & 07777, 0) < 0)
        return error_errno(err, errno, "set the mode of %s/containers/%s", store->root, upper);
    return 0;
}

static int make_folders(struct store *store, const char *container, const char *top_layer,
                        struct error *err)
{
    _cleanup_free_ char *work = xasprintf("%s/work", container);

    if (mkdirat(store->containers_fd, container, 0700) < 0)
        return error_errno(err, errno, "create %s/containers/%s", store->root, container);
    int r = make_upper(store, container, top_layer, err);
    if (r == 0 && mkdirat(store->containers_fd, work, 0700) < 0)
        r = error_errno(err, errno, "create %s/containers/%s", store->root, work);
    if (r < 0)
        file_remove_tree_at(store->containers_fd, container, NULL);
    return r;
}

static int record_snapshot(struct store *store, const struct store_image *image,
                           const char *container, const char *mapping, struct error *err)
{
    int r = store_db_run(store->db, err,
                         "INSERT INTO snapshot(container, image, mapping) VALUES(?, ?, ?)", "ttt",
                         container, image->id, mapping ? mapping : "");

    for (size_t i = 0; r >= 0 && image->layers && image->layers[i]; i++)
        r = store_db_run(store->db, err,
                         "INSERT INTO snapshot_layer(container, position, layer) VALUES(?, ?, ?)",
                         "tit", container, (int64_t)i, image->layers[i]);
    return r;
}

static int prepare_in_transaction(struct store *store, const char *image_id, const char *container,
                                  const char *mapping, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    int r = image_read(store, image_id, &image, err);

    if (r == 0)
        r = record_snapshot(store, image, container, mapping, err);
    if (r < 0)
        return r;
    size_t layers = strv_length(image->layers);
    return make_folders(store, container, layers ? image->layers[layers - 1] : NULL, err);
}

int store_snapshot_prepare(struct store *store, const char *image_id, const char *container,
                           const char *mapping, struct error *err)
{
    bool joined = store_db_in_transaction(store->db);
    int r = check_id(container, err);

    /* One transaction, so that the image cannot go between its reading and the record. */
    if (r == 0 && !joined)
        r = store_db_begin(store->db, err);
    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = joined ? NULL : store->db;
    r = prepare_in_transaction(store, image_id, container, mapping, err);
    if (r < 0)
        return error_context(err, "prepare the root of container %.12s", container), r;
    if (joined)
        return 0;
    r = store_db_commit(transaction, err);
    if (r < 0)
        file_remove_tree_at(store->containers_fd, container, NULL);
    return r;
}

/* Highest first, as overlay wants them. It refuses a layer that comes twice (ELOOP), as empty ones
 * often do in what BuildKit makes: the highest place stands for all, since whatever the layer has
 * or hides it has and hides there, too. */
int snapshot_layers(struct store *store, const char *container, char ***ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT layer FROM snapshot_layer WHERE container = ?"
                           " ORDER BY position DESC",
                           "t", container);

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0)
        if (!strv_contains(*ret, store_statement_text(statement, 0)))
            strv_append(ret, store_statement_text(statement, 0));
    return r < 0 ? r : 0;
}

int store_snapshot_limit(struct store *store, const char *container, uint64_t bytes,
                         struct error *err)
{
    if (bytes < STORE_DISK_MIN)
        return error_set(err, -EINVAL, "a disk of %llu bytes is too small, %d are the least",
                         (unsigned long long)bytes, STORE_DISK_MIN);
    return disk_limit(store, container, bytes, err);
}

/* The overlay holds on to the limited disk, so that it can go from the mount table at once. */
static int mount_limited(struct store *store, char *const *layers, const char *container,
                         bool passing, const struct store_users *users, int *ret_fd,
                         struct error *err)
{
    _cleanup_free_ char *folder = xasprintf("%s/limited", container);
    int r = disk_mount(store, container, err);

    if (r == 0)
        r = overlay_mount(store, layers, folder, passing, users, ret_fd, err);
    disk_unmount(store, container);
    return r;
}

/* first: over those of the image; NULL: none. */
static int mount_layers(struct store *store, const char *container, const char *first,
                        char *const *layers, bool passing, const struct store_users *users,
                        int *ret_fd, struct error *err)
{
    _cleanup_strv_ char **all = NULL;

    if (first)
        strv_append(&all, first);
    for (; layers && *layers; layers++)
        strv_append(&all, *layers);
    if (!all) /* an image without layers */
        strv_append(&all, STORE_EMPTY_LAYER);
    if (disk_is_limited(store, container))
        return mount_limited(store, all, container, passing, users, ret_fd, err);
    return overlay_mount(store, all, container, passing, users, ret_fd, err);
}

int store_snapshot_mount(struct store *store, const char *container, bool passing,
                         const struct store_users *users, int *ret_fd, struct error *err)
{
    _cleanup_strv_ char **layers = NULL;
    _cleanup_free_ char *first = NULL;
    int r = check_id(container, err);

    if (r == 0)
        r = snapshot_layers(store, container, &layers, err);
    if (r == 0)
        r = engine_layer_for(store, layers, container, &first, err);
    return r < 0 ? r : mount_layers(store, container, first, layers, passing, users, ret_fd, err);
}

int store_snapshot_mount_image(struct store *store, const char *container, int *ret_fd,
                               struct error *err)
{
    _cleanup_strv_ char **layers = NULL;
    int r = check_id(container, err);

    if (r == 0)
        r = snapshot_layers(store, container, &layers, err);
    return r < 0 ? r : mount_layers(store, container, NULL, layers, true, NULL, ret_fd, err);
}

int store_snapshot_open_upper(struct store *store, const char *container, int *ret_fd,
                              struct error *err)
{
    int r = check_id(container, err);

    if (r < 0)
        return r;
    bool limited = disk_is_limited(store, container);
    if (limited)
        r = disk_mount(store, container, err);
    if (r < 0)
        return r;
    _cleanup_free_ char *upper = xasprintf("%s%s/upper", container, limited ? "/limited" : "");
    int fd = openat(store->containers_fd, upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s/containers/%s", store->root, upper);
    *ret_fd = fd;
    return 0;
}

enum { USAGE_DEPTH_MAX = 1024 }; /* of folders; deeper ones are not counted */

/* Takes dir_fd over. What vanishes meanwhile is not counted: the container may be running. */
static void add_usage(int dir_fd, int depth, uint64_t *total)
{
    _cleanup_closedir_ DIR *dir = fdopendir(dir_fd);
    struct dirent *entry;
    struct stat status;

    if (!dir) {
        close_fd(dir_fd);
        return;
    }
    while ((entry = readdir(dir))) {
        if (text_equal(entry->d_name, ".") || text_equal(entry->d_name, "..") ||
            fstatat(dirfd(dir), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(status.st_mode))
            *total += (uint64_t)status.st_size;
        if (S_ISDIR(status.st_mode) && depth < USAGE_DEPTH_MAX) {
            int fd =
                openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd >= 0)
                add_usage(fd, depth + 1, total);
        }
    }
}

int store_snapshot_usage(struct store *store, const char *container, uint64_t *ret,
                         struct error *err)
{
    int fd = -1;
    int r = store_snapshot_open_upper(store, container, &fd, err);

    if (r < 0)
        return r;
    *ret = 0;
    add_usage(fd, 0, ret);
    return 0;
}

/* Whether the image's record is gone: then its layers were only kept by snapshots. */
static int image_is_gone(struct store *store, const char *container, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT 1 FROM snapshot WHERE container = ? AND NOT EXISTS"
                           " (SELECT 1 FROM image WHERE image.id = snapshot.image)",
                           "t", container);

    return r < 0 ? r : store_statement_step(statement, err);
}

static int remove_record(struct store *store, const char *container, struct error *err)
{
    int r =
        store_db_run(store->db, err, "DELETE FROM snapshot WHERE container = ?", "t", container);

    return r < 0 ? r : 0;
}

static int remove_files(struct store *store, const char *container, struct error *err)
{
    disk_unmount(store, container);
    return file_remove_tree_at(store->containers_fd, container, err);
}

int store_snapshot_remove(struct store *store, const char *container, struct error *err)
{
    int r = check_id(container, err);

    if (r < 0)
        return r;
    int gone = image_is_gone(store, container, err);
    if (gone < 0)
        return gone;
    /* Files first: a record whose folder is gone can be removed again, a folder without a record
     * would be found only at the next opening. */
    r = remove_files(store, container, err);
    if (r == 0)
        r = remove_record(store, container, err);
    if (r < 0)
        return error_context(err, "remove the root of container %.12s", container), r;
    if (gone)
        garbage_collect(store, NULL);
    return 0;
}

int store_snapshot_forget(struct store *store, const char *container, bool *ret_last,
                          struct error *err)
{
    int r = check_id(container, err);
    int gone = r < 0 ? r : image_is_gone(store, container, err);

    if (gone < 0)
        return gone;
    r = remove_record(store, container, err);
    if (r < 0)
        return error_context(err, "remove the root of container %.12s", container), r;
    *ret_last = gone;
    return 0;
}

int store_snapshot_clear(struct store *store, const char *container, bool last, struct error *err)
{
    int r = check_id(container, err);

    if (r == 0)
        r = remove_files(store, container, err);
    if (r < 0)
        return error_context(err, "remove the root of container %.12s", container), r;
    if (last)
        garbage_collect(store, NULL);
    return 0;
}

int store_snapshot_list(struct store *store, char ***ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;
    _cleanup_strv_ char **list = NULL;
    int r = store_db_query(store->db, &statement, err,
                           "SELECT container FROM snapshot ORDER BY container", "");

    while (r >= 0 && (r = store_statement_step(statement, err)) > 0)
        strv_append(&list, store_statement_text(statement, 0));
    if (r < 0)
        return r;
    *ret = steal_ptr(list);
    return 0;
}
