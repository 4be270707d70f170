#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>

#include "internal.h"

/* Version n of the store's records is what the first n texts make. Never change one that was
 * released: add another. */
static const char *const migrations[] = {
    /* layer.key: the diff ID, or the chain ID where the folder depends on the layers below. */
    "CREATE TABLE layer("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, diff_id TEXT NOT NULL,"
    " size INTEGER NOT NULL);"
    "CREATE TABLE image("
    " id TEXT PRIMARY KEY, manifest TEXT, base TEXT, built_in INTEGER NOT NULL,"
    " created INTEGER NOT NULL, added INTEGER NOT NULL, config TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE image_layer("
    " image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE, position INTEGER NOT NULL,"
    " layer INTEGER NOT NULL REFERENCES layer(id), blob TEXT NOT NULL, media_type TEXT NOT NULL,"
    " blob_size INTEGER NOT NULL, PRIMARY KEY(image, position)) WITHOUT ROWID;"
    "CREATE INDEX image_layer_layer ON image_layer(layer);"
    "CREATE TABLE image_name("
    " name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE)"
    " WITHOUT ROWID;"
    "CREATE INDEX image_name_image ON image_name(image);"
    /* mapping and label: user-namespace mapping and security label of the files; '' is none. */
    "CREATE TABLE snapshot("
    " container TEXT PRIMARY KEY, image TEXT NOT NULL, mapping TEXT NOT NULL DEFAULT '',"
    " label TEXT NOT NULL DEFAULT '') WITHOUT ROWID;"
    "CREATE INDEX snapshot_image ON snapshot(image);"
    "CREATE TABLE snapshot_layer("
    " container TEXT NOT NULL REFERENCES snapshot(container) ON DELETE CASCADE,"
    " position INTEGER NOT NULL, layer INTEGER NOT NULL REFERENCES layer(id),"
    " PRIMARY KEY(container, position)) WITHOUT ROWID;"
    "CREATE INDEX snapshot_layer_layer ON snapshot_layer(layer);",
    /* What registries have images as: docker.io/library/shop@sha256:HEX. */
    "CREATE TABLE image_digest("
    " name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE)"
    " WITHOUT ROWID;"
    "CREATE INDEX image_digest_image ON image_digest(image);",
};

static int lock_root(struct store *store, struct error *err)
{
    store->lock_fd = openat(store->root_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return error_errno(err, errno, "open %s/lock", store->root);
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return error_set(err, -EBUSY, "%s is in use by another process", store->root);
    return error_errno(err, errno, "lock %s/lock", store->root);
}

static int open_folder(struct store *store, const char *name, int *ret, struct error *err)
{
    if (mkdirat(store->root_fd, name, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create %s/%s", store->root, name);
    *ret = openat(store->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret < 0 ? error_errno(err, errno, "open %s/%s", store->root, name) : 0;
}

static int open_folders(struct store *store, struct error *err)
{
    _cleanup_close_ int content_parent = -1;
    int r = file_mkdir_parents(store->root, 0700, err);

    if (r < 0)
        return r;
    store->root_fd = open(store->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->root_fd < 0)
        return error_errno(err, errno, "open %s", store->root);
    r = lock_root(store, err);
    if (r == 0)
        r = open_folder(store, "content", &content_parent, err);
    if (r == 0)
        r = open_folder(store, "content/sha256", &store->content_fd, err);
    if (r == 0)
        r = open_folder(store, "layers", &store->layers_fd, err);
    if (r == 0 && mkdirat(store->layers_fd, STORE_EMPTY_LAYER, 0755) < 0 && errno != EEXIST)
        r = error_errno(err, errno, "create %s/layers/" STORE_EMPTY_LAYER, store->root);
    if (r == 0)
        r = engine_layer_open(store, err);
    if (r == 0)
        r = open_folder(store, "containers", &store->containers_fd, err);
    if (r == 0)
        r = open_folder(store, "staging", &store->staging_fd, err);
    return r;
}

static int open_records(struct store *store, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/state.db", store->root);
    int r = store_db_open(path, &store->db, err);

    if (r == 0)
        r = store_db_migrate(store->db, "store", migrations, ARRAY_SIZE(migrations), err);
    return r;
}

int store_open(const char *root, struct store **ret, struct error *err)
{
    struct store *store = xnew(struct store);

    store->root = xstrdup(root);
    store->root_fd = store->lock_fd = store->content_fd = -1;
    store->layers_fd = store->containers_fd = store->staging_fd = -1;
    pthread_mutex_init(&store->files, NULL);

    int r = open_folders(store, err);
    if (r == 0)
        r = open_records(store, err);
    if (r == 0)
        r = holds_open(store, err);
    if (r == 0)
        r = build_open(store, err);
    if (r == 0)
        disk_unmount_all(store); /* of a daemon that was killed */
    if (r == 0)
        r = garbage_collect_at_open(store, err);
    if (r == 0)
        r = host_refresh(store, err);
    if (r < 0) {
        error_context(err, "open the image store");
        store_close(store);
        return r;
    }
    *ret = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    store_db_close(store->db);
    disk_unmount_all(store);
    close_fd(store->content_fd);
    close_fd(store->layers_fd);
    close_fd(store->containers_fd);
    close_fd(store->staging_fd);
    close_fd(store->root_fd);
    close_fd(store->lock_fd); /* last: gives the root free */
    pthread_mutex_destroy(&store->files);
    free(store->root);
    free(store);
}

struct store_db *store_database(struct store *store)
{
    return store->db;
}
