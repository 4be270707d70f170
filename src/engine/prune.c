/*
 * container.prune: what those that do not run take is counted on a worker thread, then they are
 * removed one by one. One that is started or removed by somebody else meanwhile is left out.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>

#include "events.h"
#include "filters.h"
#include "internal.h"
#include "remove.h"

struct prune_call {
    uv_work_t work;
    struct engine *engine;
    char **ids;      /* owned */
    uint64_t *sizes; /* owned; by container */
    size_t at, count;
    struct api_container_pruned *pruned;
    engine_image_done done;
    void *data;
};

static void remove_next(struct prune_call *call);

static void finish(struct prune_call *call)
{
    call->engine->image_calls--;
    event_pruned(call->engine, "container", call->pruned->space_reclaimed);
    call->done(NULL, call->pruned, call->data);
    api_container_pruned_free(call->pruned);
    strv_free(call->ids);
    free(call->sizes);
    free(call);
}

static void on_removed(const struct engine_result *result, void *data)
{
    struct prune_call *call = data;
    struct api_container_pruned *pruned = call->pruned;

    if (!result->err) {
        strv_append(&pruned->deleted, call->ids[call->at]);
        pruned->deleted_count++;
        pruned->space_reclaimed += call->sizes[call->at];
    }
    call->at++;
    remove_next(call);
}

static void remove_next(struct prune_call *call)
{
    struct container *container;

    while (call->at < call->count &&
           engine_find(call->engine, call->ids[call->at], &container, NULL) < 0)
        call->at++;
    if (call->at < call->count)
        remove_submit(container, false, on_removed, call);
    else
        finish(call);
}

static void sizes_work(uv_work_t *work)
{
    struct prune_call *call = work->data;

    for (size_t i = 0; i < call->count; i++)
        store_snapshot_usage(call->engine->store, call->ids[i], &call->sizes[i], NULL);
}

static void sizes_done(uv_work_t *work, int status)
{
    remove_next(work->data);
}

static bool is_wanted(const struct container *container, const struct api_container_prune *what,
                      engine_list_sees sees, void *data)
{
    return !container->hidden && !container_is_active(container) &&
           container->state != CONTAINER_REMOVING && (!sees || sees(container, data)) &&
           filter_prune(what->filters, container->effective->labels, container->record->created_at);
}

void engine_container_prune(struct engine *engine, const struct api_container_prune *what,
                            engine_list_sees sees, engine_image_done done, void *data)
{
    struct prune_call *call = xnew(struct prune_call);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (engine->removing) {
        error_set(&err, -EAGAIN, "the instance is being removed");
        free(call);
        done(&err, NULL, data);
        return;
    }
    call->work.data = call;
    call->engine = engine;
    call->done = done;
    call->data = data;
    call->pruned = xnew(struct api_container_pruned);
    call->pruned->deleted = xnew_array(char *, 1);
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (is_wanted(engine->containers[i], what, sees, data))
            strv_append(&call->ids, engine->containers[i]->id);
    }
    call->count = strv_length(call->ids);
    call->sizes = xnew_array(uint64_t, call->count + 1);
    engine->image_calls++;
    uv_queue_work(engine->loop, &call->work, sizes_work, sizes_done);
}
