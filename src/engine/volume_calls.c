/*
 * What clients ask of volumes. Files and records are made and removed on the loop's worker threads:
 * a large volume takes its time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"
#include "volume_mount.h"
#include "volumes.h"

struct volume_call {
    uv_work_t work;
    struct engine *engine;
    char *name; /* owned */
    struct volume_making making;
    char **names;                      /* owned; to remove, one after the other */
    struct api_volumes_pruned *pruned; /* owned; NULL: nobody counts */
    uint64_t freed;                    /* by the one that was removed last */
    engine_image_done done;            /* may be NULL */
    void *data;
    struct error err;
};

static struct volume_call *new_call(struct engine *engine, engine_image_done done, void *data)
{
    struct volume_call *call = xnew(struct volume_call);

    call->work.data = call;
    call->engine = engine;
    call->done = done;
    call->data = data;
    return call;
}

/* Answers, and frees it. */
static void end_call(struct volume_call *call, const void *document)
{
    if (call->done)
        call->done(call->err.code ? &call->err : NULL, document, call->data);
    free(call->name);
    volume_making_finish(&call->making);
    strv_free(call->names);
    api_volumes_pruned_free(call->pruned);
    error_finish(&call->err);
    free(call);
}

static void submit(struct volume_call *call, uv_work_cb work, uv_after_work_cb done)
{
    call->engine->image_calls++;
    uv_queue_work(call->engine->loop, &call->work, work, done);
}

/* --- create ----------------------------------------------------------------------------------- */

static void create_work(uv_work_t *work)
{
    struct volume_call *call = work->data;

    engine_settle(&call->err, volume_make(&call->making, &call->err));
}

static void create_done(uv_work_t *work, int status)
{
    struct volume_call *call = work->data;
    struct volume *volume = volume_find(call->engine, call->name);
    struct api_volume *description = volume ? volume_describe(volume) : NULL;

    call->engine->image_calls--;
    if (volume)
        volume->pins--;
    if (call->err.code && volume && !volume_references(volume))
        volume_drop(volume);
    else if (!call->err.code && volume)
        event_volume(call->engine, "create", volume->name);
    end_call(call, description);
    api_volume_free(description);
}

void engine_volume_create(struct engine *engine, const struct api_volume_create *how,
                          engine_image_done done, void *data)
{
    struct volume_call *call = new_call(engine, done, data);
    struct volume *volume = NULL;
    bool is_new = false;
    int r = engine->removing ? error_set(&call->err, -EAGAIN, "the instance is being removed")
                             : volume_add(engine, how->name, how->driver, how->options, how->labels,
                                          &volume, &is_new, &call->err);

    if (r < 0 || !is_new) {
        struct api_volume *description = r < 0 ? NULL : volume_describe(volume);
        end_call(call, description);
        api_volume_free(description);
        return;
    }
    volume->pins++;
    call->name = xstrdup(volume->name);
    volume_making_init(&call->making, volume);
    submit(call, create_work, create_done);
}

/* --- list, inspect ---------------------------------------------------------------------------- */

static bool has_label(const struct volume *volume, const char *wanted)
{
    size_t length = strcspn(wanted, "=");
    _cleanup_free_ char *key = xstrndup(wanted, length);
    const char *value =
        volume->record->labels ? json_string_map_get(volume->record->labels, key) : NULL;

    return value && (!wanted[length] || text_equal(value, wanted + length + 1));
}

static bool has_part(const char *text, char *const *parts)
{
    for (; *parts; parts++)
        if (strstr(text, *parts))
            return true;
    return false;
}

static bool is_wanted(const struct volume *volume, const struct api_volume_filters *filters)
{
    if (!filters)
        return true;
    for (size_t i = 0; i < filters->label_count; i++)
        if (!has_label(volume, filters->label[i]))
            return false;
    for (size_t i = 0; i < filters->label_not_count; i++)
        if (has_label(volume, filters->label_not[i]))
            return false;
    if (filters->has_dangling && filters->dangling == (volume_references(volume) > 0))
        return false;
    return (!filters->name_count || has_part(volume->name, filters->name)) &&
           (!filters->driver_count || strv_contains(filters->driver, volume->record->driver));
}

struct api_volumes *engine_volume_list(struct engine *engine,
                                       const struct api_volume_filters *filters)
{
    struct api_volumes *list = xnew(struct api_volumes);

    list->volumes = xnew_array(struct api_volume *, engine->volumes_count + 1);
    for (size_t i = 0; i < engine->volumes_count; i++)
        if (!engine->volumes[i]->removing && is_wanted(engine->volumes[i], filters))
            list->volumes[list->volumes_count++] = volume_describe(engine->volumes[i]);
    return list;
}

int engine_volume_inspect(struct engine *engine, const char *name, struct api_volume **ret,
                          struct error *err)
{
    struct volume *volume = volume_find(engine, name);

    if (!volume)
        return error_set(err, -ENOENT, "get %.255s: no such volume", name);
    *ret = volume_describe(volume);
    return 0;
}

/* --- remove ----------------------------------------------------------------------------------- */

/* Out of the way first, then the record: what is cut off in between is cleaned at the next start.
 */
static int remove_files(struct volume_call *call, struct error *err)
{
    _cleanup_free_ char *folder = volumes_folder(call->engine);
    _cleanup_close_ int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_free_ char *gone = volume_gone_name(call->name);
    _cleanup_error_ struct error left = ERROR_INIT;

    if (folder_fd < 0)
        return error_errno(err, errno, "open %s", folder);
    _cleanup_free_ char *own = xasprintf("%s/%s", folder, call->name);
    volume_unmount(own);
    if (renameat(folder_fd, call->name, folder_fd, gone) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove %s/%s", folder, call->name);
    int r = store_db_run(store_database(call->engine->store), err,
                         "DELETE FROM engine_volumes WHERE name = ?", "t", call->name);
    if (r < 0) {
        if (renameat(folder_fd, gone, folder_fd, call->name) < 0 && errno != ENOENT)
            log_write(LOG_ERROR, "volume %s stays in %s/%s: %s", call->name, folder, gone,
                      strerror(errno));
        return r;
    }
    _cleanup_free_ char *data = xasprintf("%s/_data", gone);
    if (call->pruned)
        call->freed = folder_usage(openat(folder_fd, data, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    /* From here on it is removed; what is left is the next daemon's to try again. */
    if (file_remove_tree_at(folder_fd, gone, &left) < 0)
        log_failure(LOG_ERROR, &left, "files of the removed volume %s are left", call->name);
    return 0;
}

static void remove_work(uv_work_t *work)
{
    struct volume_call *call = work->data;

    engine_settle(&call->err, remove_files(call, &call->err));
}

/* Back in the table of those that are there, when it could not be removed. */
static void settle_removal(struct volume_call *call)
{
    struct volume *volume = volume_find(call->engine, call->name);

    call->engine->image_calls--;
    if (call->err.code < 0) {
        log_failure(LOG_ERROR, &call->err, "volume %s is not removed", call->name);
        if (volume)
            volume->removing = false;
        return;
    }
    event_volume(call->engine, "destroy", call->name);
    if (volume)
        volume_drop(volume);
}

static void remove_done(uv_work_t *work, int status)
{
    struct volume_call *call = work->data;

    settle_removal(call);
    end_call(call, NULL);
}

static int may_remove(struct engine *engine, const char *name, struct volume **ret,
                      struct error *err)
{
    struct volume *volume = volume_find(engine, name);
    _cleanup_strv_ char **users = NULL;

    if (!volume)
        return error_set(err, -ENOENT, "get %.255s: no such volume", name);
    for (size_t i = 0; i < engine->containers_count; i++)
        /* A hidden one belongs to the disk thread; what it will have is pinned. */
        if (!engine->containers[i]->hidden && container_has_volume(engine->containers[i], name))
            strv_append(&users, engine->containers[i]->id);
    _cleanup_free_ char *list = strv_join(users, ", ");
    if (users || volume->pins)
        return error_set(err, -EBUSY, "remove %s: volume is in use - [%s]", name, list);
    if (volume->removing)
        return error_set(err, -EBUSY, "remove %s: it is being removed already", name);
    *ret = volume;
    return 0;
}

void engine_volume_remove(struct engine *engine, const char *name, bool force,
                          engine_image_done done, void *data)
{
    struct volume_call *call = new_call(engine, done, data);
    struct volume *volume;
    int r = may_remove(engine, name, &volume, &call->err);

    if (r == -ENOENT && force)
        error_finish(&call->err);
    if (r < 0) {
        end_call(call, NULL);
        return;
    }
    volume->removing = true;
    call->name = xstrdup(name);
    submit(call, remove_work, remove_done);
}

/* --- several ---------------------------------------------------------------------------------- */

static void remove_next(struct volume_call *call);

static void one_removed(uv_work_t *work, int status)
{
    struct volume_call *call = work->data;

    settle_removal(call);
    if (!call->err.code && call->pruned) {
        strv_append(&call->pruned->volumes, call->name);
        call->pruned->volumes_count++;
        call->pruned->space_reclaimed += call->freed;
    }
    error_finish(&call->err);
    remove_next(call);
}

/* call->names are taken from the front; what somebody has by now is left out. */
static void remove_next(struct volume_call *call)
{
    struct volume *volume = NULL;

    while (call->names && call->names[0] && !volume) {
        free(call->name);
        call->name = call->names[0];
        memmove(call->names, call->names + 1, strv_length(call->names) * sizeof(char *));
        may_remove(call->engine, call->name, &volume, NULL);
    }
    if (!volume) {
        if (call->pruned)
            event_pruned(call->engine, "volume", call->pruned->space_reclaimed);
        end_call(call, call->pruned);
        return;
    }
    volume->removing = true;
    submit(call, remove_work, one_removed);
}

void engine_volume_prune(struct engine *engine, const struct api_volume_prune *how,
                         engine_image_done done, void *data)
{
    struct volume_call *call = new_call(engine, done, data);

    call->pruned = xnew(struct api_volumes_pruned);
    call->pruned->volumes = xnew_array(char *, 1);
    for (size_t i = 0; i < engine->volumes_count; i++) {
        const struct volume *volume = engine->volumes[i];
        if ((how->all || volume->record->anonymous) && is_wanted(volume, how->filters) &&
            !volume_references(volume))
            strv_append(&call->names, volume->name);
    }
    remove_next(call);
}

void volumes_remove_unused(struct engine *engine, char *const *names)
{
    struct volume_call *call = new_call(engine, NULL, NULL);

    call->names = strv_copy(names);
    remove_next(call);
}
