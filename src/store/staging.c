#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <store/staging.h>

#include "internal.h"

int store_staging_create(struct store *store, struct store_staging **ret, struct error *err)
{
    struct store_staging *staging = xnew(struct store_staging);

    staging->store = store;
    text_random_hex(staging->name, 16);
    staging->fd = -1;
    if (mkdirat(store->staging_fd, staging->name, 0700) == 0)
        staging->fd = openat(store->staging_fd, staging->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* The lock belongs to the open file, which the worker shares (garbage.c, is_held). */
    if (staging->fd < 0 || flock(staging->fd, LOCK_EX | LOCK_NB) < 0) {
        int r = error_errno(err, errno, "create %s/staging/%s", store->root, staging->name);
        store_staging_free(staging);
        return r;
    }
    *ret = staging;
    return 0;
}

int store_staging_fd(const struct store_staging *staging)
{
    return staging->fd;
}

void store_staging_free(struct store_staging *staging)
{
    if (!staging)
        return;
    partials_keep(staging->store, staging->name);
    file_remove_tree_at(staging->store->staging_fd, staging->name, NULL);
    close_fd(staging->fd);
    free(staging);
}

int store_layers_fd(const struct store *store)
{
    return store->layers_fd;
}

int store_content_fd(const struct store *store)
{
    return store->content_fd;
}
