/* What a worker loaded becomes images. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>
#include <store/reference.h>
#include <store/staging.h>

#include "internal.h"

enum { IMPORT_IMAGES_MAX = 1024 };

void store_loaded_free(struct store_loaded *loaded, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(loaded[i].id);
        strv_free(loaded[i].names);
    }
    free(loaded);
}

/* A document of the staged content, whose digest is computed again. An image before in the same
 * import may have moved it into place. */
static int read_document(struct store_staging *staging, const char *digest, char **ret,
                         struct error *err)
{
    _cleanup_free_ char *path = NULL, *text = NULL;
    char found[DIGEST_TEXT_SIZE];
    size_t length;

    if (!digest_valid(digest))
        return error_set(err, -EBADMSG, "'%s' is no digest", digest);
    path = xasprintf("content/%s", digest_hex(digest));
    _cleanup_close_ int fd =
        openat(staging->fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        fd = openat(staging->store->content_fd, digest_hex(digest),
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open staged %s", path);
    int r = file_read_fd(fd, STORE_DOCUMENT_MAX, &text, &length, err);
    if (r < 0)
        return error_context(err, "staged %s", path), r;
    digest_of(text, length, found);
    if (!text_equal(found, digest))
        return error_set(err, -EBADMSG, "staged %s has the digest %s", path, found);
    *ret = steal_ptr(text);
    return 0;
}

static int check_layers(const struct image_worker_image *image,
                        const struct oci_image_configuration *config, struct error *err)
{
    if (image->layers_count > STORE_LAYERS_MAX)
        return error_set(err, -EFBIG, "image %s has %zu layers, at most %d are possible", image->id,
                         image->layers_count, STORE_LAYERS_MAX);
    if (image->layers_count != config->rootfs->diff_ids_count)
        return error_set(err, -EBADMSG, "image %s: %zu layers for %zu diff IDs", image->id,
                         image->layers_count, config->rootfs->diff_ids_count);
    for (size_t i = 0; i < image->layers_count; i++) {
        const struct image_worker_layer *layer = image->layers[i];
        if (!digest_valid(layer->diff_id) || !digest_valid(layer->blob))
            return error_set(err, -EBADMSG, "image %s: layer %zu has no digest", image->id, i + 1);
        if (!text_equal(layer->diff_id, config->rootfs->diff_ids[i]))
            return error_set(err, -EBADMSG, "image %s: layer %zu is %s, not %s", image->id, i + 1,
                             layer->diff_id, config->rootfs->diff_ids[i]);
    }
    return 0;
}

static void next_chain(char chain[DIGEST_TEXT_SIZE], const char *diff_id)
{
    char next[DIGEST_TEXT_SIZE];

    digest_chain(chain, diff_id, next);
    memcpy(chain, next, sizeof(next));
}

/* The folder of a layer of the image, staged or of the store. -1: not there. */
static int open_layer(struct store_staging *staging, const struct image_worker_image *image,
                      size_t place)
{
    const struct image_worker_layer *layer = image->layers[place];
    const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    char chain[DIGEST_TEXT_SIZE] = "";
    int64_t number = 0;

    if (!layer->present) {
        _cleanup_free_ char *staged = xasprintf("layers/%s", digest_hex(layer->diff_id));
        return openat(staging->fd, staged, flags);
    }
    for (size_t i = 0; i <= place; i++)
        next_chain(chain, image->layers[i]->diff_id);
    if (layer_find(staging->store, layer->diff_id, &number, NULL) <= 0 &&
        layer_find(staging->store, chain, &number, NULL) <= 0)
        return -1;
    _cleanup_free_ char *name = xasprintf("%lld", (long long)number);
    return openat(staging->store->layers_fd, name, flags);
}

/* Looks for the folder in the layers below, nearest first. */
static int stat_below(struct store_staging *staging, const struct image_worker_image *image,
                      size_t above, const char *path, struct stat *ret)
{
    for (size_t i = above; i-- > 0;) {
        _cleanup_close_ int root_fd = open_layer(staging, image, i);
        if (root_fd < 0)
            continue;
        _cleanup_close_ int fd = file_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);
        if (fd >= 0)
            return fstat(fd, ret);
    }
    return -1;
}

/* A folder without an entry of its own was made with owner 0:0 and mode 0755, and would show so
 * over the real one of a lower layer: it takes that one's owner and mode. */
static int inherit_folders(struct store_staging *staging, const struct image_worker_image *image,
                           size_t index, struct error *err)
{
    const struct image_worker_layer *layer = image->layers[index];
    _cleanup_free_ char *name = xasprintf("layers/%s", digest_hex(layer->diff_id));
    _cleanup_close_ int root_fd =
        openat(staging->fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (root_fd < 0)
        return error_errno(err, errno, "open staged %s", name);
    for (size_t i = 0; i < layer->implicit_folders_count; i++) {
        const char *path = layer->implicit_folders[i];
        struct stat status;
        if (stat_below(staging, image, index, path, &status) < 0)
            continue;
        _cleanup_close_ int fd = file_open_in_root(root_fd, path, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0 || fchown(fd, status.st_uid, status.st_gid) < 0 ||
            fchmod(fd, status.st_mode & 07777) < 0)
            return error_errno(err, fd < 0 ? -fd : errno, "staged %s: folder %s", name, path);
    }
    return 0;
}

static int import_name(struct store *store, const char *id, const char *name,
                       struct store_loaded *loaded, struct error *err)
{
    char *short_name = NULL;
    int r = name_assign(store, id, name, &short_name, err);

    if (r == 0)
        strv_take(&loaded->names, short_name);
    return r;
}

static int import_names(struct store *store, const struct image_worker_image *image,
                        struct store_loaded *loaded, struct error *err)
{
    int r = 0;

    loaded->id = xstrdup(image->id);
    for (size_t i = 0; r == 0 && i < image->names_count; i++)
        r = import_name(store, image->id, image->names[i], loaded, err);
    for (size_t i = 0; r == 0 && i < image->suggested_names_count; i++) {
        r = import_name(store, image->id, image->suggested_names[i], loaded, NULL);
        if (r == -EINVAL || r == -EPERM) /* no reference, or one that is not to be had */
            r = 0;
    }
    return r;
}

/* One image, inside the transaction. */
static int import_image(struct store_staging *staging, const struct image_worker_image *image,
                        struct store_loaded *loaded, struct error *err)
{
    int64_t created;
    _cleanup_free_ char *config_text = NULL, *manifest_text = NULL;
    _cleanup_oci_image_configuration_ struct oci_image_configuration *config = NULL;
    int r = read_document(staging, image->id, &config_text, err);

    if (r == 0)
        r = read_document(staging, image->manifest, &manifest_text, err);
    if (r == 0)
        r = oci_image_configuration_parse(config_text, strlen(config_text), image->id, &config,
                                          err);
    if (r == 0)
        r = check_layers(image, config, err);
    if (r < 0)
        return r;
    if (clock_parse(config->created, &created) < 0)
        created = 0; /* shown as unknown */
    const struct image_install install = {
        .id = image->id,
        .manifest = image->manifest,
        .config_text = config_text,
        .created = created,
        .layers = image->layers,
        .layers_count = image->layers_count,
    };
    r = image_install(staging, &install, err);
    return r < 0 ? r : import_names(staging->store, image, loaded, err);
}

static int import_images(struct store_staging *staging, const struct image_worker_result *result,
                         struct store_loaded *loaded, struct error *err)
{
    struct store *store = staging->store;
    int r = store_db_begin(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    for (size_t i = 0; r == 0 && i < result->images_count; i++)
        r = import_image(staging, result->images[i], &loaded[i], err);
    if (r == 0)
        r = install_flush(staging, err);
    return r < 0 ? r : store_db_commit(transaction, err);
}

/* What must be right before files are touched under the lock. */
static int prepare_files(struct store_staging *staging, const struct image_worker_result *result,
                         struct error *err)
{
    if (result->images_count > IMPORT_IMAGES_MAX)
        return error_set(err, -EFBIG, "more than %d images in an archive", IMPORT_IMAGES_MAX);
    for (size_t i = 0; i < result->images_count; i++) {
        const struct image_worker_image *image = result->images[i];
        for (size_t l = 0; l < image->layers_count; l++) {
            if (!digest_valid(image->layers[l]->diff_id))
                return error_set(err, -EBADMSG, "image %s: a layer has no digest", image->id);
            int r = l && !image->layers[l]->present && image->layers[l]->implicit_folders_count
                        ? inherit_folders(staging, image, l, err)
                        : 0;
            if (r < 0)
                return r;
        }
    }
    return staging_flush(staging, err);
}

int store_staging_import(struct store_staging *staging, const struct image_worker_result *result,
                         struct store_loaded **ret, size_t *ret_count, struct error *err)
{
    struct store *store = staging->store;
    struct store_loaded *loaded = xnew_array(struct store_loaded, result->images_count + 1);
    int r = prepare_files(staging, result, err);

    if (r == 0) {
        pthread_mutex_lock(&store->files);
        r = import_images(staging, result, loaded, err);
        pthread_mutex_unlock(&store->files);
        if (r < 0)
            garbage_collect(store, NULL); /* what was renamed before it failed */
    }
    if (r < 0) {
        store_loaded_free(loaded, result->images_count);
        return r;
    }
    *ret = loaded;
    *ret_count = result->images_count;
    return 0;
}
