#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/json.h>

#include "errand.h"
#include "events.h"
#include "transfer.h"

static void begin_round(struct transfer *transfer);

void engine_set_registries(struct engine *engine, struct registries_settings *settings)
{
    registries_settings_free(engine->registries);
    engine->registries = settings;
}

struct transfer *transfer_new(struct engine *engine, const struct transfer_kind *kind,
                              const struct engine_transfer_callbacks *callbacks)
{
    struct transfer *transfer = xnew(struct transfer);

    transfer->engine = engine;
    transfer->kind = kind;
    transfer->callbacks = *callbacks;
    transfer->content_fd = -1;
    transfer->work.data = transfer->poll.data = transfer;
    return transfer;
}

void transfer_add_news(struct transfer *transfer, const char *action, const char *id,
                       const char *name)
{
    strv_append(&transfer->news, action);
    strv_append(&transfer->news, id);
    strv_append(&transfer->news, name);
}

static void unlink_transfer(struct transfer *transfer)
{
    struct transfer **at = &transfer->engine->transfers;

    while (*at && *at != transfer)
        at = &(*at)->next;
    if (*at)
        *at = transfer->next;
}

static void release(struct transfer *transfer)
{
    json_free(transfer->kind->type, transfer->document);
    image_worker_registry_free(transfer->access);
    image_worker_platform_free(transfer->platform);
    store_reference_finish(&transfer->reference);
    free(transfer->registry);
    free(transfer->key);
    free(transfer->term);
    strv_free(transfer->tags);
    strv_free(transfer->news);
    error_finish(&transfer->err);
    free(transfer);
}

static void tell_news(struct transfer *transfer)
{
    char *const *news = transfer->news;

    for (size_t i = 0; news && news[i]; i += 3)
        event_image(transfer->engine, news[i], news[i + 1], news[i + 2]);
    strv_free(steal_ptr(transfer->news));
}

static void tell_end(const struct transfer *transfer,
                     const struct engine_transfer_callbacks *callbacks, bool failed)
{
    callbacks->done(failed ? &transfer->err : NULL, failed ? NULL : transfer->document,
                    callbacks->data);
}

static void finish_transfer(struct transfer *transfer)
{
    bool failed = transfer->err.code < 0;

    unlink_transfer(transfer);
    while (transfer->followers) {
        struct transfer *follower = transfer->followers;
        transfer->followers = follower->next;
        tell_end(transfer, &follower->callbacks, failed);
        release(follower);
    }
    if (transfer->callbacks.done)
        tell_end(transfer, &transfer->callbacks, failed);
    release(transfer);
}

void transfer_refuse(struct transfer *transfer, const struct error *err)
{
    error_set(&transfer->err, err->code, "%s", error_message(err));
    finish_transfer(transfer);
}

/* ---- the end of a round ---- */

static void finish_work(uv_work_t *work)
{
    struct transfer *transfer = work->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    image_worker_free(steal_ptr(transfer->worker));
    int r = transfer->begun ? transfer->kind->finish(transfer, transfer->result, &err) : 0;
    if (r < 0 && transfer->err.code == 0) {
        engine_settle(&err, r);
        error_move(&transfer->err, &err);
    }
    store_staging_free(steal_ptr(transfer->staging));
    image_worker_result_free(steal_ptr(transfer->result));
    image_worker_request_free(steal_ptr(transfer->request));
    transfer->begun = false;
}

static void round_finished(uv_work_t *work, int status)
{
    struct transfer *transfer = work->data;

    transfer->engine->image_calls--;
    if (transfer->err.code == 0) {
        tell_news(transfer);
        if (transfer->kind->next && transfer->kind->next(transfer) && !transfer->cancelled) {
            begin_round(transfer);
            return;
        }
    }
    finish_transfer(transfer);
}

static void queue_finish(struct transfer *transfer)
{
    errand_run(transfer->engine, &transfer->work, finish_work, round_finished);
}

static void poll_closed(uv_handle_t *handle)
{
    queue_finish(handle->data);
}

static void end_round(struct transfer *transfer)
{
    if (!transfer->polling) {
        queue_finish(transfer);
        return;
    }
    transfer->polling = false;
    uv_poll_stop(&transfer->poll);
    uv_close((uv_handle_t *)&transfer->poll, poll_closed);
}

/* ---- while the worker runs ---- */

static void show_to(const struct transfer *transfer, const struct image_worker_progress *progress)
{
    if (transfer->callbacks.progress)
        transfer->callbacks.progress(progress->item, progress->step, progress->bytes,
                                     progress->total, transfer->callbacks.data);
}

static void show_progress(struct transfer *transfer, const struct image_worker_progress *progress)
{
    show_to(transfer, progress);
    for (struct transfer *at = transfer->followers; at; at = at->next)
        show_to(at, progress);
}

static void on_worker(uv_poll_t *poll, int status, int events)
{
    struct transfer *transfer = poll->data;

    /* A few lines at a time, so that one worker cannot keep the loop. */
    for (int i = 0; i < 32; i++) {
        _cleanup_image_worker_message_ struct image_worker_message *message = NULL;
        int r = image_worker_receive(transfer->worker, &message, &transfer->err);
        if (r == IMAGE_WORKER_AGAIN)
            return;
        if (r == IMAGE_WORKER_PROGRESS) {
            show_progress(transfer, message->progress);
            continue;
        }
        if (r == IMAGE_WORKER_DONE)
            transfer->result = steal_ptr(message->result);
        end_round(transfer);
        return;
    }
}

static void cancelled(struct transfer *transfer)
{
    error_finish(&transfer->err);
    transfer->err = (struct error)ERROR_INIT;
    error_set(&transfer->err, -ECANCELED, "cancelled");
}

static void watch_worker(uv_work_t *work, int status)
{
    struct transfer *transfer = work->data;

    if (transfer->cancelled && transfer->err.code == 0)
        cancelled(transfer);
    if (transfer->err.code < 0 || transfer->engine->ending) {
        if (transfer->err.code == 0)
            cancelled(transfer);
        queue_finish(transfer);
        return;
    }
    int r =
        uv_poll_init(transfer->engine->loop, &transfer->poll, image_worker_fd(transfer->worker));
    if (r < 0) {
        error_errno(&transfer->err, -r, "watch the image worker");
        queue_finish(transfer);
        return;
    }
    transfer->polling = true;
    uv_poll_start(&transfer->poll, UV_READABLE | UV_DISCONNECT, on_worker);
}

static void stop(struct transfer *transfer)
{
    if (transfer->cancelled)
        return;
    transfer->cancelled = true;
    if (!transfer->polling)
        return; /* a thread has it: the next step on the loop sees it */
    cancelled(transfer);
    end_round(transfer);
}

/* ---- several callers of one ---- */

bool transfer_join(struct transfer *transfer)
{
    for (struct transfer *at = transfer->engine->transfers; at; at = at->next) {
        if (at->kind != transfer->kind || at->cancelled || !text_equal(at->key, transfer->key))
            continue;
        transfer->leader = at;
        transfer->next = at->followers;
        at->followers = transfer;
        return true;
    }
    return false;
}

static void caller_gone(uv_handle_t *handle)
{
    struct transfer *transfer = handle->data;

    cancelled(transfer);
    tell_end(transfer, &transfer->callbacks, true);
    release(transfer);
}

static void close_timer(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, caller_gone);
}

/* Its end comes to the caller by the loop, as that of a transfer does. */
static void leave(struct transfer *transfer)
{
    transfer->cancelled = true;
    transfer->timer.data = transfer;
    uv_timer_init(transfer->engine->loop, &transfer->timer);
    uv_timer_start(&transfer->timer, close_timer, 0, 0);
}

static void leave_leader(struct transfer *transfer)
{
    struct transfer *leader = transfer->leader, **at = &leader->followers;

    while (*at != transfer)
        at = &(*at)->next;
    *at = transfer->next;
    leave(transfer);
    if (!leader->followers && !leader->callbacks.done)
        stop(leader);
}

/* The transfer goes on for the others. */
static void leave_followers(struct transfer *transfer)
{
    struct transfer *caller = transfer_new(transfer->engine, transfer->kind, &transfer->callbacks);

    transfer->callbacks = (struct engine_transfer_callbacks){0};
    leave(caller);
}

void engine_transfer_cancel(struct transfer *transfer)
{
    if (!transfer || transfer->cancelled || !transfer->callbacks.done)
        return;
    if (transfer->leader)
        leave_leader(transfer);
    else if (transfer->followers)
        leave_followers(transfer);
    else
        stop(transfer);
}

void transfers_end(struct engine *engine)
{
    for (struct transfer *at = engine->transfers; at; at = at->next)
        stop(at);
}

/* ---- the beginning ---- */

static int start_worker(struct transfer *transfer, struct error *err)
{
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;

    spec.program = transfer->engine->registry_program;
    spec.request = transfer->request;
    spec.staging_fd = transfer->staging ? store_staging_fd(transfer->staging) : -1;
    spec.content_fd = transfer->content_fd;
    int r = image_worker_start(&spec, &transfer->worker, err);
    if (r == -ENOENT)
        error_hint(err, "was this build made without libcurl?");
    return r;
}

static void begin_work(uv_work_t *work)
{
    struct transfer *transfer = work->data;

    transfer->request = xnew(struct image_worker_request);
    int r = transfer->kind->begin(transfer, &transfer->err);
    if (r >= 0) {
        transfer->begun = true;
        r = start_worker(transfer, &transfer->err);
    }
    engine_settle(&transfer->err, r);
}

static void begin_round(struct transfer *transfer)
{
    transfer->engine->image_calls++;
    errand_run(transfer->engine, &transfer->work, begin_work, watch_worker);
}

struct transfer *transfer_start(struct transfer *transfer)
{
    struct engine *engine = transfer->engine;

    if (engine->removing || engine->ending) {
        _cleanup_error_ struct error err = ERROR_INIT;
        error_set(&err, -EAGAIN, "the instance is being removed");
        transfer_refuse(transfer, &err);
        return NULL;
    }
    transfer->next = engine->transfers;
    engine->transfers = transfer;
    begin_round(transfer);
    return transfer;
}
