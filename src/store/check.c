/* What can be seen without reading layers, and what is done about it (store/check.h). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <store/check.h>
#include <store/reference.h>
#include <store/snapshot.h>

#include "internal.h"

#define FETCH_AGAIN "load or pull the image again, which brings it back"
#define ASK_FOR_REPAIR "--repair mends it"

enum { PROBLEMS_MAX = 1000 }; /* more say nothing new */

void store_report_finish(struct store_report *report)
{
    for (size_t i = 0; i < report->problems_count; i++) {
        free(report->problems[i].what);
        free(report->problems[i].problem);
        free(report->problems[i].remedy);
    }
    free(report->problems);
    *report = (struct store_report){0};
}

void store_report_add(struct store_report *report, const char *what, const char *problem,
                      const char *remedy, bool repaired)
{
    if (report->problems_count >= PROBLEMS_MAX)
        return;
    if (report->problems_count % 16 == 0)
        report->problems =
            xrealloc(report->problems, report->problems_count + 16, sizeof(*report->problems));
    report->problems[report->problems_count++] = (struct store_problem){
        .what = xstrdup(what),
        .problem = xstrdup(problem),
        .remedy = xstrdup(remedy),
        .repaired = repaired,
    };
}

/* What the parts of a check share. */
struct check {
    struct store *store;
    bool deep, repair;
    struct store_report *report;
};

/* --- the database ----------------------------------------------------------------------------- */

/* A row of quick_check is "ok" or a fault; of foreign_key_check, a row that refers to none. */
static int check_database(const struct check *check, struct error *err)
{
    static const char *const pragmas[] = {"PRAGMA quick_check(20)", "PRAGMA foreign_key_check"};

    for (size_t i = 0; i < ARRAY_SIZE(pragmas); i++) {
        _cleanup_store_statement_ struct store_statement *rows = NULL;
        int r = store_db_query(check->store->db, &rows, err, pragmas[i], "");
        while (r >= 0 && (r = store_statement_step(rows, err)) > 0) {
            const char *text = store_statement_text(rows, 0);
            if (text_equal(text, "ok"))
                continue;
            store_report_add(check->report, "state.db", text,
                             "restore it from a copy, or remove the instance: cloche system remove",
                             false);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- documents -------------------------------------------------------------------------------- */

/* 1: it is what its name says; 0: it is not, or is missing. */
static int document_is_good(struct store *store, const char *digest, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    char found[DIGEST_TEXT_SIZE];
    size_t length;
    int r = file_read_at(store->content_fd, digest_hex(digest), STORE_DOCUMENT_MAX, &text, &length,
                         err);

    if (r == -ENOENT || r == -EFBIG || r == -EIO || r == -EISDIR) {
        error_finish(err);
        return 0;
    }
    if (r < 0)
        return r;
    digest_of(text, length, found);
    return text_equal(found, digest);
}

static int write_document(struct store *store, const char *digest, const char *text,
                          struct error *err)
{
    int r = file_replace_at(store->content_fd, digest_hex(digest), text, strlen(text), 0600, err);

    if (r == 0 && (syncfs(store->content_fd) < 0))
        r = error_errno(err, errno, "flush %s", store->root);
    return r;
}

static int check_config(const struct check *check, const struct store_image *image,
                        const char *what, struct error *err)
{
    char found[DIGEST_TEXT_SIZE];
    int r = document_is_good(check->store, image->id, err);

    if (r)
        return r < 0 ? r : 0;
    digest_of(image->config_text, strlen(image->config_text), found);
    bool good = text_equal(found, image->id);
    if (good && check->repair)
        r = write_document(check->store, image->id, image->config_text, err);
    if (r < 0)
        return r;
    store_report_add(check->report, what, "its configuration is missing or damaged",
                     !good           ? FETCH_AGAIN
                     : check->repair ? "written again"
                                     : ASK_FOR_REPAIR,
                     good && check->repair);
    return 0;
}

static int check_manifest(const struct check *check, const struct store_image *image,
                          const char *what, struct error *err)
{
    int r = document_is_good(check->store, image->manifest_digest, err);

    if (r)
        return r < 0 ? r : 0;
    if (check->repair)
        unlinkat(check->store->content_fd, digest_hex(image->manifest_digest), 0);
    store_report_add(check->report, what, "its manifest is missing or damaged", FETCH_AGAIN, false);
    return 0;
}

/* --- layers and blobs ------------------------------------------------------------------------- */

static bool has_blob(const struct store *store, const char *digest)
{
    return digest_valid(digest) &&
           faccessat(store->content_fd, digest_hex(digest), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int check_layer(const struct check *check, const char *what, const char *number,
                       const char *blob, struct error *err)
{
    struct stat status;

    check->report->layers++;
    int r = fstatat(check->store->layers_fd, number, &status, AT_SYMLINK_NOFOLLOW);
    if (r == 0 && S_ISDIR(status.st_mode))
        return 0;
    if (r < 0 && errno != ENOENT)
        return error_errno(err, errno, "look at %s/layers/%s", check->store->root, number);
    bool can_be_unpacked = has_blob(check->store, blob);
    if (!can_be_unpacked || !check->deep)
        store_report_add(check->report, what, "its folder is missing",
                         can_be_unpacked ? "--deep --repair unpacks it again" : FETCH_AGAIN, false);
    return 0;
}

static int check_blob(const struct check *check, const char *what, const char *blob, int64_t size,
                      struct error *err)
{
    struct stat status;
    int content_fd = check->store->content_fd;

    check->report->blobs++;
    if (fstatat(content_fd, digest_hex(blob), &status, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return error_errno(err, errno, "look at blob %s", blob);
        store_report_add(check->report, what, "its blob is missing", FETCH_AGAIN, false);
    } else if (!S_ISREG(status.st_mode) || status.st_size != size) {
        if (check->repair)
            file_remove_tree_at(content_fd, digest_hex(blob), NULL);
        store_report_add(check->report, what, "its blob has another size", FETCH_AGAIN, false);
    }
    return 0;
}

static int check_image_layers(const struct check *check, const struct store_image *image,
                              const char *name, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *rows = NULL;
    int r = store_db_query(check->store->db, &rows, err,
                           "SELECT layer.id, layer.diff_id, blob, blob_size FROM image_layer"
                           " JOIN layer ON layer.id = image_layer.layer WHERE image = ?"
                           " ORDER BY position",
                           "t", image->id);

    while (r >= 0 && (r = store_statement_step(rows, err)) > 0) {
        _cleanup_free_ char *what =
            xasprintf("layer %s of %s", store_statement_text(rows, 1), name);
        r = check_layer(check, what, store_statement_text(rows, 0), store_statement_text(rows, 2),
                        err);
        if (r == 0)
            r = check_blob(check, what, store_statement_text(rows, 2),
                           store_statement_integer(rows, 3), err);
    }
    return r;
}

static const char *name_of(const struct store_image *image)
{
    return image->names && image->names[0] ? image->names[0] : image->id;
}

static int check_image(const struct check *check, const struct store_image *image,
                       struct error *err)
{
    _cleanup_free_ char *what = xasprintf("image %s", name_of(image));
    int r = 0;

    check->report->images++;
    if (!image->built_in && image->manifest_digest) /* a step of a build has no documents */
        r = check_config(check, image, what, err);
    if (r == 0 && image->manifest_digest)
        r = check_manifest(check, image, what, err);
    return r < 0 ? r : check_image_layers(check, image, name_of(image), err);
}

static int check_images(const struct check *check, struct error *err)
{
    struct store_image **images = NULL;
    size_t count = 0;
    int r = store_image_list(check->store, &images, &count, err);

    for (size_t i = 0; r >= 0 && i < count; i++)
        r = check_image(check, images[i], err);
    store_image_list_free(images, count);
    return r;
}

/* --- containers ------------------------------------------------------------------------------- */

static int check_container(const struct check *check, const char *container, struct error *err)
{
    static const char *const folders[] = {"upper", "work"};
    _cleanup_free_ char *what = xasprintf("container %.12s", container);

    check->report->containers++;
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", container, folders[i]);
        if (faccessat(check->store->containers_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        if (errno != ENOENT)
            return error_errno(err, errno, "look at %s/containers/%s", check->store->root, path);
        _cleanup_free_ char *problem = xasprintf("its folder %s is missing", folders[i]);
        bool repaired = false;
        if (check->repair) {
            int fd = file_mkdir_in_root(check->store->containers_fd, path, i ? 0700 : 0755, err);
            if (fd < 0)
                return fd;
            close_fd(fd);
            repaired = true;
        }
        store_report_add(check->report, what, problem,
                         repaired ? "made again, empty" : ASK_FOR_REPAIR, repaired);
    }
    return 0;
}

static int check_containers(const struct check *check, struct error *err)
{
    _cleanup_strv_ char **containers = NULL;
    int r = store_snapshot_list(check->store, &containers, err);

    for (size_t i = 0; r >= 0 && containers && containers[i]; i++)
        r = check_container(check, containers[i], err);
    return r;
}

int store_check_records(struct store *store, bool deep, bool repair, struct store_report *report,
                        struct error *err)
{
    const struct check check = {.store = store, .deep = deep, .repair = repair, .report = report};
    int r = check_database(&check, err);

    if (r >= 0)
        r = check_images(&check, err);
    if (r >= 0)
        r = check_containers(&check, err);
    if (r >= 0 && repair)
        r = garbage_collect(store, err);
    return r < 0 ? r : 0;
}

/* --- deep ------------------------------------------------------------------------------------- */

static const char layers_with_blobs[] =
    "SELECT DISTINCT layer.id, layer.diff_id, image_layer.blob,"
    " (SELECT name FROM image_name WHERE image_name.image = image_layer.image LIMIT 1)"
    " FROM image_layer JOIN layer ON layer.id = image_layer.layer"
    " GROUP BY layer.id, image_layer.blob ORDER BY layer.id";

void store_checked_layers_free(struct store_checked_layer *layers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(layers[i].diff_id);
        free(layers[i].blob);
        free(layers[i].what);
    }
    free(layers);
}

static void read_checked_layer(struct store_statement *row, struct store_checked_layer *layer)
{
    _cleanup_free_ char *name = store_statement_text(row, 3)
                                    ? store_reference_shorten(store_statement_text(row, 3))
                                    : xstrdup("an image without a name");

    *layer = (struct store_checked_layer){
        .number = store_statement_integer(row, 0),
        .diff_id = xstrdup(store_statement_text(row, 1)),
        .blob = xstrdup(store_statement_text(row, 2)),
        .what = xasprintf("layer %s of %s", store_statement_text(row, 1), name),
    };
}

int store_check_layers(struct store *store, struct store_checked_layer **ret, size_t *ret_count,
                       struct error *err)
{
    _cleanup_store_statement_ struct store_statement *rows = NULL;
    struct store_checked_layer *layers = NULL;
    size_t count = 0;
    int r = store_db_query(store->db, &rows, err, layers_with_blobs, "");

    while (r >= 0 && (r = store_statement_step(rows, err)) > 0) {
        if (!has_blob(store, store_statement_text(rows, 2)))
            continue;
        if (count % 16 == 0)
            layers = xrealloc(layers, count + 16, sizeof(*layers));
        read_checked_layer(rows, &layers[count++]);
    }
    if (r < 0) {
        store_checked_layers_free(layers, count);
        return r;
    }
    *ret = layers;
    *ret_count = count;
    return 0;
}

int store_check_open(struct store *store, const struct store_checked_layer *layer, int *ret_blob,
                     int *ret_folder, struct error *err)
{
    _cleanup_free_ char *number = xasprintf("%lld", (long long)layer->number);
    _cleanup_close_ int folder =
        openat(store->layers_fd, number, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (folder < 0 && errno != ENOENT && errno != ENOTDIR)
        return error_errno(err, errno, "open %s/layers/%s", store->root, number);
    *ret_blob = openat(store->content_fd, digest_hex(layer->blob),
                       O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (*ret_blob < 0)
        return error_errno(err, errno, "open blob %s", layer->blob);
    *ret_folder = steal_fd(&folder);
    return 0;
}

int store_check_blob_lost(struct store *store, const struct store_checked_layer *layer,
                          struct error *err)
{
    return file_remove_tree_at(store->content_fd, digest_hex(layer->blob), err);
}

int store_check_layer_user(struct store *store, const struct store_checked_layer *layer,
                           char *const *containers, char **ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *rows = NULL;
    int r =
        store_db_query(store->db, &rows, err,
                       "SELECT container FROM snapshot_layer WHERE layer = ?", "i", layer->number);

    *ret = NULL;
    while (r >= 0 && !*ret && (r = store_statement_step(rows, err)) > 0) {
        if (strv_contains(containers, store_statement_text(rows, 0)))
            *ret = xstrdup(store_statement_text(rows, 0));
    }
    return r < 0 ? r : 0;
}

/* Owner and mode of folders that the layer has no entry for were those of the layers below: the old
 * folder has them, where it is there. */
static void take_implicit_folders(int old_fd, int new_fd, const struct image_worker_layer *layer)
{
    struct stat status;

    for (size_t i = 0; i < layer->implicit_folders_count; i++) {
        const char *path = layer->implicit_folders[i];
        _cleanup_close_ int old = file_open_in_root(old_fd, path, O_PATH | O_DIRECTORY, 0);
        _cleanup_close_ int fd = file_open_in_root(new_fd, path, O_RDONLY | O_DIRECTORY, 0);
        if (old < 0 || fd < 0 || fstat(old, &status) < 0 ||
            fchown(fd, status.st_uid, status.st_gid) < 0)
            continue;
        fchmod(fd, status.st_mode & 07777);
    }
}

/* Between the two renames there is no folder: a crash there leaves what the next check mends. */
static int exchange(struct store *store, struct store_staging *staging, const char *source,
                    const char *number, struct error *err)
{
    _cleanup_free_ char *old = xasprintf("old-%s", number);

    if (renameat(store->layers_fd, number, staging->fd, old) < 0 && errno != ENOENT)
        return error_errno(err, errno, "take the old folder of layer %s away", number);
    if (renameat(staging->fd, source, store->layers_fd, number) < 0)
        return error_errno(err, errno, "move layer %s into %s/layers", source, store->root);
    return install_flush(staging, err);
}

int store_check_layer_replace(struct store *store, struct store_staging *staging,
                              const struct store_checked_layer *layer,
                              const struct image_worker_layer *unpacked, struct error *err)
{
    _cleanup_free_ char *source = xasprintf("layers/%s", digest_hex(layer->diff_id));
    _cleanup_free_ char *number = xasprintf("%lld", (long long)layer->number);
    _cleanup_close_ int old_fd =
        openat(store->layers_fd, number, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_close_ int new_fd =
        openat(staging->fd, source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (new_fd < 0)
        return error_errno(err, errno, "open staged %s", source);
    if (old_fd >= 0)
        take_implicit_folders(old_fd, new_fd, unpacked);
    int r = staging_flush(staging, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&store->files);
    r = exchange(store, staging, source, number, err);
    pthread_mutex_unlock(&store->files);
    return r;
}
