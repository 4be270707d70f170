/*
 * `system.check`: the store's own look at its records (store/check.h), and for a deep check an
 * image worker for each layer, one at a time: it reads all that the instance has, and nothing waits
 * for it.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <image/worker.h>
#include <store/check.h>
#include <store/staging.h>

#include "errand.h"
#include "image_call.h"
#include "internal.h"

struct check_call {
    uv_work_t work;
    struct engine *engine;
    bool deep, repair;
    char **active; /* owned; containers that run, whose layers stay as they are */
    struct engine_cancel cancel;
    struct store_report report;
    uint64_t bytes; /* of layers that were read */
    engine_image_done done;
    void *data;
    struct error err;
};

static bool is_cancelled(const struct check_call *call)
{
    eventfd_t value;

    return eventfd_read(call->cancel.fd, &value) == 0;
}

static void report(struct check_call *call, const struct store_checked_layer *layer,
                   const char *problem, const char *remedy, bool repaired)
{
    store_report_add(&call->report, layer->what, problem, remedy, repaired);
}

/* The blob cannot be what its name says: a repair can only throw it away. */
static int blob_is_lost(struct check_call *call, const struct store_checked_layer *layer,
                        const char *why, struct error *err)
{
    _cleanup_free_ char *problem = xasprintf("its blob is damaged: %s", why);
    int r = call->repair ? store_check_blob_lost(call->engine->store, layer, err) : 0;

    if (r == 0)
        report(call, layer, problem, "load or pull the image again, which brings it back", false);
    return r;
}

static int folder_differs(struct check_call *call, const struct store_checked_layer *layer,
                          struct store_staging *staging, const struct image_worker_result *result,
                          const char *how, struct error *err)
{
    _cleanup_free_ char *problem = xasprintf("its folder is not what it was: %s", how);
    _cleanup_free_ char *remedy = NULL, *user = NULL;
    struct store *store = call->engine->store;
    int r = 0;

    if (call->repair)
        r = store_check_layer_user(store, layer, call->active, &user, err);
    bool repaired = r == 0 && call->repair && !user;
    if (repaired)
        r = store_check_layer_replace(store, staging, layer, result->layer, err);
    if (r < 0)
        return r;
    remedy = user ? xasprintf("container %.12s runs on it: stop it, then repair", user)
                  : xstrdup(repaired ? "unpacked again" : "--repair unpacks it again");
    report(call, layer, problem, remedy, repaired);
    return 0;
}

static int judge(struct check_call *call, const struct store_checked_layer *layer,
                 struct store_staging *staging, const struct image_worker_result *result,
                 bool has_folder, struct error *err)
{
    if (!result->layer || !text_equal(result->layer->blob, layer->blob))
        return blob_is_lost(call, layer, "it has another digest", err);
    if (!text_equal(result->layer->diff_id, layer->diff_id))
        return blob_is_lost(call, layer, "its content has another digest", err);
    if (!has_folder)
        return folder_differs(call, layer, staging, result, "it is missing", err);
    if (!result->differences_count)
        return 0;
    _cleanup_free_ char *how = strv_join(result->differences, ", ");
    return folder_differs(call, layer, staging, result, how, err);
}

/* What says that the disk is damaged, and not that the check could not be made. */
static bool is_damage(int r)
{
    return r == -EBADMSG || r == -EIO || r == -EFBIG;
}

static int verify(struct check_call *call, const struct store_checked_layer *layer,
                  struct error *err)
{
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    _cleanup_close_ int blob_fd = -1, folder_fd = -1;
    struct image_worker_verify how = {.has_compare = true};
    struct image_worker_request request = {.verify = &how};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    _cleanup_error_ struct error reason = ERROR_INIT;

    int r = store_check_open(call->engine->store, layer, &blob_fd, &folder_fd, err);
    if (r == 0)
        r = store_staging_create(call->engine->store, &staging, err);
    if (r < 0)
        return r;
    how.compare = folder_fd >= 0;
    spec.program = call->engine->image_program;
    spec.request = &request;
    spec.archive_fd = blob_fd;
    spec.upper_fd = folder_fd;
    spec.staging_fd = store_staging_fd(staging);
    r = image_worker_run(&spec, NULL, NULL, call->cancel.fd, &result, &reason);
    if (r < 0 && is_damage(r))
        return blob_is_lost(call, layer, error_message(&reason), err);
    if (r < 0)
        return error_move(err, &reason);
    call->bytes += result->layer ? result->layer->blob_size : 0;
    return judge(call, layer, staging, result, how.compare, err);
}

static int check_deep(struct check_call *call, struct error *err)
{
    struct store_checked_layer *layers = NULL;
    size_t count = 0;
    int r = store_check_layers(call->engine->store, &layers, &count, err);

    for (size_t i = 0; r >= 0 && i < count; i++)
        r = is_cancelled(call) ? error_set(err, -ECANCELED, "the check was interrupted")
                               : verify(call, &layers[i], err);
    store_checked_layers_free(layers, count);
    return r;
}

static void check_work(uv_work_t *work)
{
    struct check_call *call = work->data;
    struct store *store = call->engine->store;

    if (call->err.code)
        return;
    int r = store_check_records(store, call->deep, call->repair, &call->report, &call->err);
    if (r >= 0 && call->deep) {
        store_hold(store, call);
        r = check_deep(call, &call->err);
        store_release(store, call);
    }
    engine_settle(&call->err, r);
}

static struct api_system_checked *document_of(struct check_call *call)
{
    struct api_system_checked *document = xnew(struct api_system_checked);
    size_t count = call->report.problems_count;

    document->images = call->report.images;
    document->layers = call->report.layers;
    document->blobs = call->report.blobs;
    document->containers = call->report.containers;
    document->bytes = call->bytes;
    document->problems = xnew_array(struct api_store_problem *, count + 1);
    document->problems_count = count;
    for (size_t i = 0; i < count; i++) {
        struct store_problem *from = &call->report.problems[i];
        struct api_store_problem *to = document->problems[i] = xnew(struct api_store_problem);
        to->what = steal_ptr(from->what);
        to->problem = steal_ptr(from->problem);
        to->remedy = steal_ptr(from->remedy);
        to->repaired = from->repaired;
    }
    return document;
}

static void check_done(uv_work_t *work, int status)
{
    struct check_call *call = work->data;
    _cleanup_api_system_checked_ struct api_system_checked *document = document_of(call);

    call->engine->image_calls--;
    call->engine->repairs -= call->repair;
    call->done(call->err.code ? &call->err : NULL, document, call->data);
    store_report_finish(&call->report);
    strv_free(call->active);
    close_fd(call->cancel.fd);
    error_finish(&call->err);
    free(call);
}

struct engine_cancel *engine_check(struct engine *engine, bool deep, bool repair,
                                   engine_image_done done, void *data)
{
    struct check_call *call = xnew(struct check_call);

    *call = (struct check_call){
        .engine = engine, .deep = deep, .repair = repair, .done = done, .data = data};
    call->work.data = call;
    call->cancel.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->removing) /* the store is closed under whoever comes now */
        error_set(&call->err, -EAGAIN, "the instance is being removed");
    for (size_t i = 0; repair && i < engine->containers_count; i++) {
        if (container_is_active(engine->containers[i]))
            strv_append(&call->active, engine->containers[i]->id);
    }
    engine->repairs += repair;
    engine->image_calls++;
    errand_run(engine, &call->work, check_work, check_done);
    return &call->cancel;
}
