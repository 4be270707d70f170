/* What a container has changed in its root, on one of the loop's worker threads. */
#include <base/alloc.h>

#include "internal.h"

struct diff {
    uv_work_t work;
    struct container *container; /* a reference */
    struct api_container_changes *changes;
    engine_image_done done;
    void *data;
    struct error err;
};

static const char *const kind_names[] = {
    [STORE_CHANGE_MODIFIED] = "modified",
    [STORE_CHANGE_ADDED] = "added",
    [STORE_CHANGE_DELETED] = "deleted",
};

static int find_changes(struct diff *diff, struct error *err)
{
    struct store_change *changes = NULL;
    size_t count = 0;
    int r = store_snapshot_changes(diff->container->engine->store, diff->container->id, &changes,
                                   &count, err);

    if (r < 0)
        return r;
    diff->changes = xnew(struct api_container_changes);
    diff->changes->changes = xnew_array(struct api_file_change *, count + 1);
    diff->changes->changes_count = count;
    for (size_t i = 0; i < count; i++) {
        struct api_file_change *change = xnew(struct api_file_change);
        change->path = steal_ptr(changes[i].path);
        change->kind = xstrdup(kind_names[changes[i].kind]);
        diff->changes->changes[i] = change;
    }
    store_changes_free(changes, count);
    return 0;
}

static void diff_work(uv_work_t *work)
{
    struct diff *diff = work->data;

    engine_settle(&diff->err, find_changes(diff, &diff->err));
}

static void diff_done(uv_work_t *work, int status)
{
    struct diff *diff = work->data;

    diff->container->engine->image_calls--;
    diff->done(diff->err.code ? &diff->err : NULL, diff->changes, diff->data);
    api_container_changes_free(diff->changes);
    container_unref(diff->container);
    error_finish(&diff->err);
    free(diff);
}

void engine_container_changes(struct container *container, engine_image_done done, void *data)
{
    struct diff *diff = xnew(struct diff);

    diff->work.data = diff;
    diff->container = container_ref(container);
    diff->done = done;
    diff->data = data;
    container->engine->image_calls++;
    uv_queue_work(container->engine->loop, &diff->work, diff_work, diff_done);
}
