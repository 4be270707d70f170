/*
 * Asynchronous calls. From any thread:
 *
 *     async_call       writes the parameters down and hands the call in
 *
 * and then in the thread that runs the loop:
 *
 *     async_take       takes what was handed in, sets its timer
 *     start            finds an endpoint and a connection, sends; or the call waits
 *     on_outcome       an answer, or the connection ended: then perhaps start again
 *     finish           the callback, once
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/pool.h>

#include "pool.h"

enum {
    CALLS_FIRST = 64,
    PARAMS_KEPT = 16 * 1024, /* a larger buffer is not kept for the next call */
    GENERATION_MAX = INT32_MAX,
};

/* ---- lists and slots ---- */

static void list_append(struct call_list *list, struct async_call *call)
{
    call->next = NULL;
    call->previous = list->last;
    if (list->last)
        list->last->next = call;
    else
        list->first = call;
    list->last = call;
}

static void list_remove(struct call_list *list, struct async_call *call)
{
    if (call->previous)
        call->previous->next = call->next;
    else
        list->first = call->next;
    if (call->next)
        call->next->previous = call->previous;
    else
        list->last = call->previous;
    call->next = call->previous = NULL;
}

static int64_t number_of(const struct async_call *call)
{
    return (int64_t)((uint64_t)call->generation << 32 | (call->slot + 1));
}

/* Under the lock. */
static struct async_call *find_call(struct cloche_client *client, int64_t number)
{
    uint64_t slot = (uint64_t)number & UINT32_MAX;

    if (number <= 0 || slot == 0 || slot > client->calls_count)
        return NULL;
    struct async_call *call = client->calls[slot - 1];
    return call->state != CALL_FREE && number_of(call) == number ? call : NULL;
}

static struct async_call *add_call(struct cloche_client *client)
{
    struct async_call *call = xnew(struct async_call);

    if (client->calls_count == client->calls_capacity) {
        client->calls_capacity = client->calls_capacity ? 2 * client->calls_capacity : CALLS_FIRST;
        client->calls = xrealloc(client->calls, client->calls_capacity, sizeof(*client->calls));
    }
    call->client = client;
    call->slot = (uint32_t)client->calls_count;
    client->calls[client->calls_count++] = call;
    return call;
}

/* Under the lock. NULL: there are as many as there may be. */
static struct async_call *new_call(struct cloche_client *client)
{
    struct async_call *call = client->spare;

    if (client->calls_used >= client->settings.waiting)
        return NULL;
    if (call)
        client->spare = call->next;
    else
        call = add_call(client);
    client->calls_used++;
    call->generation = call->generation < GENERATION_MAX ? call->generation + 1 : 1;
    call->state = CALL_HANDED_IN;
    call->next = call->previous = NULL;
    call->cancelled = call->moving = false;
    call->attempts = 0;
    return call;
}

static void free_call(struct async_call *call)
{
    struct cloche_client *client = call->client;

    for (size_t i = 0; i < call->fds_count; i++)
        close_fd(call->fds[i]);
    call->fds_count = 0;
    if (call->params.capacity > PARAMS_KEPT)
        buffer_finish(&call->params);
    client_lock(client);
    call->state = CALL_FREE;
    call->next = client->spare;
    client->spare = call;
    client->calls_used--;
    client_unlock(client);
}

/* ---- the end of a call ---- */

/* By our clock, or by the server's. */
static bool is_timeout(const struct rpc_outcome *outcome)
{
    return outcome->fault ? outcome->fault == RPC_DEADLINE_EXCEEDED : outcome->code == -ETIMEDOUT;
}

static enum rpc_ended how_it_ended(const struct rpc_outcome *outcome)
{
    if (outcome->code == 0)
        return RPC_ENDED_ANSWERED;
    if (is_timeout(outcome))
        return RPC_ENDED_TIMEOUT;
    if (outcome->fault)
        return RPC_ENDED_FAULT;
    return outcome->code == -ECANCELED ? RPC_ENDED_CANCELLED : RPC_ENDED_LOST;
}

/* Until what came in this round had come. A call that began in the round has taken no time yet. */
static uint64_t finished_after(const struct async_call *call)
{
    uint64_t now = rpc_loop_now(call->client->loop);

    return now > call->begun ? now - call->begun : 0;
}

static void finish(struct async_call *call, const struct rpc_outcome *outcome)
{
    struct cloche_client *client = call->client;
    const struct async_target target = call->target;

    rpc_loop_clear_timer(client->loop, &call->timer);
    rpc_metrics_end(&client->metrics, how_it_ended(outcome), outcome->fault, finished_after(call));
    free_call(call);
    target.done(&target, outcome);
}

static void fail(struct async_call *call, int code, const char *what, const char *why)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, code, "%s: %s%s%s", call->method->name, what, why ? ": " : "", why ? why : "");
    finish(call, &(struct rpc_outcome){.code = code, .error = &err});
}

static void fail_in_time(struct async_call *call)
{
    struct cloche_client *client = call->client;
    char why[sizeof(client->endpoints[0].why)];

    client_lock(client);
    bool out = client->endpoints[0].state != CLOCHE_ENDPOINT_IN;
    memcpy(why, client->endpoints[0].why, sizeof(why));
    client_unlock(client);
    fail(call, -ETIMEDOUT, out ? "no connection in time" : "no answer in time", out ? why : NULL);
}

/* ---- waiting, and going on ---- */

static void make_ready(struct async_call *call)
{
    call->state = CALL_READY;
    list_append(&call->client->ready, call);
    rpc_loop_queue_later(call->client->loop, &call->client->start_task);
}

static void wait(struct async_call *call)
{
    call->state = CALL_WAITING;
    list_append(&call->client->waiting, call);
    if (call->deadline != NEVER && !call->timer.place)
        rpc_loop_set_timer(call->client->loop, &call->timer, call->deadline);
}

/* The first of those that wait. */
static void go_on_one(struct cloche_client *client)
{
    struct async_call *call = client->waiting.first;

    if (!call)
        return;
    list_remove(&client->waiting, call);
    make_ready(call);
}

void async_go_on(struct cloche_client *client)
{
    while (client->waiting.first)
        go_on_one(client);
}

static void on_again(struct rpc_timer *timer)
{
    async_go_on((struct cloche_client *)((char *)timer - offsetof(struct cloche_client, again)));
}

static void leave_list(struct async_call *call)
{
    if (call->state == CALL_READY)
        list_remove(&call->client->ready, call);
    else if (call->state == CALL_WAITING)
        list_remove(&call->client->waiting, call);
}

/* ---- there ---- */

static void on_outcome(void *data, const struct rpc_outcome *outcome);

static void on_progress(void *data, const struct rpc_progress *progress)
{
    const struct async_call *call = data;
    const struct cloche_progress shown = show_progress(progress);

    call->progress(call->progress_data, &shown);
}

/* What this attempt may take; the server is told. 0: as long as it wants. */
static uint64_t attempt_ms(const struct async_call *call)
{
    uint64_t limit =
        attempt_deadline(call->client, call->deadline, call->idempotent, call->attempts + 1);
    uint64_t now = rpc_loop_now(call->client->loop);

    if (limit == NEVER)
        return 0;
    return limit > now ? (limit - now) / NS_PER_MS + 1 : 1;
}

static int64_t send_on(struct lane *lane, struct async_call *call)
{
    const struct rpc_call request = {.method = call->method,
                                     .text = call->params.length ? call->params.data : NULL,
                                     .text_length = call->params.length,
                                     .raw = call->raw,
                                     .timeout_ms = attempt_ms(call),
                                     .fds = call->fds,
                                     .fds_count = call->fds_count,
                                     .done = on_outcome,
                                     .progress = call->progress ? on_progress : NULL,
                                     .data = call};

    if (call->fds_count && !lane->endpoint->address.transport->passes_fds)
        return -E2BIG;
    int64_t number = rpc_channel_call(lane->channel, &request);
    if (number < 0)
        return number;
    call->state = CALL_SENT;
    call->lane = lane;
    call->number = number;
    call->attempts++;
    lane->in_flight++;
    rpc_loop_clear_timer(call->client->loop, &call->timer);
    return number;
}

static struct endpoint *choose(struct cloche_client *client, bool *ret_all_out)
{
    bool none;

    client_lock(client);
    struct endpoint *endpoint = endpoint_choose(client, false, &none);
    if (endpoint) {
        endpoint->busy++;
        endpoint->calls++;
    }
    *ret_all_out = none;
    for (size_t i = 0; none && i < client->endpoints_count; i++)
        *ret_all_out = *ret_all_out && client->endpoints[i].state == CLOCHE_ENDPOINT_OUT;
    client_unlock(client);
    return endpoint;
}

/* 0: it is on its way, or at its end, or waits; 1: another endpoint is to be tried. */
static int start_at(struct endpoint *endpoint, struct async_call *call)
{
    struct cloche_client *client = call->client;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct lane *lane;

    int64_t r = lane_get(endpoint, &lane, &err);
    if (r == 0)
        r = send_on(lane, call);
    if (r >= 0)
        return 0;
    endpoint_ended(endpoint, false, false);
    if (r == -ECONNREFUSED)
        return 1;
    if (is_exhaustion((int)r) || r == -ENOTCONN) {
        wait(call);
        rpc_loop_set_timer(client->loop, &client->again,
                           rpc_loop_update_now(client->loop) + EXHAUSTED_MS * NS_PER_MS);
    } else {
        fail(call, (int)r, r == -EFBIG ? "the request is too long" : "it cannot be sent",
             err.message);
    }
    return 0;
}

static void start(struct async_call *call)
{
    struct cloche_client *client = call->client;
    struct endpoint *endpoint;
    bool all_out;

    if (rpc_loop_now(client->loop) >= call->deadline) {
        fail_in_time(call);
        return;
    }
    do {
        endpoint = choose(client, &all_out);
        if (!endpoint && all_out && client->settings.fail_fast) {
            fail(call, -ECONNREFUSED, "no endpoint answers", client->endpoints[0].why);
            return;
        }
        if (!endpoint) {
            wait(call);
            return;
        }
    } while (start_at(endpoint, call) > 0);
}

static void on_start(struct rpc_task *task)
{
    struct cloche_client *client =
        (struct cloche_client *)((char *)task - offsetof(struct cloche_client, start_task));
    struct call_list ready = client->ready;

    client->ready = (struct call_list){0};
    while (ready.first) {
        struct async_call *call = ready.first;
        list_remove(&ready, call);
        call->state = CALL_LOOSE;
        start(call);
    }
}

/* ---- and back ---- */

/* The connection is gone, or was not to be waited for any longer. */
static bool may_move(const struct async_call *call, const struct rpc_outcome *outcome)
{
    const struct cloche_client *client = call->client;

    return (outcome->unsent || call->idempotent) &&
           !__atomic_load_n(&client->stopping, __ATOMIC_RELAXED) && !call->cancelled &&
           call->attempts < client->settings.attempts;
}

static void move_on(struct async_call *call)
{
    call->moving = false;
    rpc_metrics_add(&call->client->metrics.retries, 1);
    make_ready(call);
}

static void on_outcome(void *data, const struct rpc_outcome *outcome)
{
    struct async_call *call = data;
    struct cloche_client *client = call->client;
    struct lane *lane = steal_ptr(call->lane);
    struct endpoint *endpoint = lane->endpoint;
    bool answered = outcome->code == 0 || outcome->fault;
    bool timed_out = is_timeout(outcome);
    bool lost = !answered && !timed_out && outcome->code != -ECANCELED &&
                !rpc_channel_is_open(lane->channel);
    /* An attempt that was given up leaves time for another. */
    bool moving = lost || (call->moving && !answered) ||
                  (timed_out && call->idempotent && monotonic_now() < call->deadline);

    call->state = CALL_LOOSE;
    if (lost)
        endpoint_break(endpoint, false, error_message(outcome->error));
    endpoint_ended(endpoint, answered, timed_out);
    lane_release(lane);
    if (moving && may_move(call, outcome))
        move_on(call);
    else if (call->moving && outcome->code == -ECANCELED && !call->cancelled)
        fail(call, -ECONNRESET, "the endpoint does not answer", NULL);
    else
        finish(call, outcome);
    go_on_one(client);
}

/* ---- time, and the caller's own end */

static void on_deadline(struct rpc_timer *timer)
{
    struct async_call *call =
        (struct async_call *)((char *)timer - offsetof(struct async_call, timer));

    leave_list(call);
    fail_in_time(call);
}

static void cancel(struct async_call *call)
{
    if (call->state == CALL_SENT) {
        rpc_channel_cancel(call->lane->channel, call->number);
        return;
    }
    leave_list(call);
    fail(call, -ECANCELED, "cancelled", NULL);
}

/* The next call after *slot that is on one of the endpoint's lanes; NULL: no more. */
static struct async_call *next_sent(const struct endpoint *endpoint, size_t *slot)
{
    struct cloche_client *client = endpoint->client;
    struct async_call *found = NULL;

    client_lock(client);
    while (!found && *slot < client->calls_count) {
        struct async_call *call = client->calls[(*slot)++];
        if (call->state == CALL_SENT && call->lane->endpoint == endpoint)
            found = call;
    }
    client_unlock(client);
    return found;
}

/* Calls that an endpoint which has gone silent keeps, and another can do: those that may be done
 * twice. What is not sent yet will be, unless the connection is closed for good. */
static void abandon(struct endpoint *endpoint)
{
    struct cloche_client *client = endpoint->client;
    struct async_call *call;
    bool waits = false;

    for (size_t slot = 0; (call = next_sent(endpoint, &slot));) {
        call->moving =
            call->idempotent && !call->cancelled && call->attempts < client->settings.attempts;
        if (call->moving)
            rpc_channel_cancel(call->lane->channel, call->number);
        else
            waits = waits || !rpc_channel_is_unsent(call->lane->channel, call->number);
    }
    for (size_t slot = 0; !waits && (call = next_sent(endpoint, &slot));)
        call->moving = true;
    if (waits)
        lanes_retire(endpoint);
    else
        lanes_drop(endpoint);
}

/* ---- the loop's thread is woken ---- */

static void admit(struct async_call *call)
{
    call->timer = (struct rpc_timer){.callback = on_deadline};
    make_ready(call);
}

static void see_to_endpoints(struct cloche_client *client)
{
    bool any = false;

    for (size_t i = 0; i < client->endpoints_count; i++) {
        struct endpoint *endpoint = &client->endpoints[i];
        client_lock(client);
        bool silent = endpoint->abandon;
        endpoint->abandon = false;
        any = any || endpoint->state == CLOCHE_ENDPOINT_IN;
        client_unlock(client);
        if (silent)
            abandon(endpoint);
    }
    probes_arm(client);
    if (any || client->settings.fail_fast)
        async_go_on(client);
}

/* One that was handed in meanwhile, and cancelled, too, is for the next round. */
static struct async_call *next_cancelled(struct cloche_client *client)
{
    client_lock(client);
    struct async_call *call = client->cancels;
    if (call && call->state == CALL_HANDED_IN)
        call = NULL;
    if (call) {
        client->cancels = call->next_cancel;
        call->cancel_queued = false;
    }
    client_unlock(client);
    return call;
}

void async_take(struct cloche_client *client)
{
    struct async_call *call;

    client_lock(client);
    struct call_list handed_in = client->handed_in;
    client->handed_in = (struct call_list){0};
    for (call = handed_in.first; call; call = call->next)
        call->state = CALL_LOOSE;
    client_unlock(client);
    while ((call = handed_in.first)) {
        list_remove(&handed_in, call);
        admit(call);
    }
    while ((call = next_cancelled(client))) {
        if (call->cancelled && call->state != CALL_FREE)
            cancel(call);
    }
    see_to_endpoints(client);
}

/* ---- from any thread ---- */

static int copy_fds(struct async_call *call, const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        call->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (call->fds[i] < 0)
            return -errno;
        call->fds_count++;
    }
    return 0;
}

static int fill(struct async_call *call, const struct async_request *request, uint64_t now)
{
    const struct cloche_call_options *options = request->options;

    call->method = request->method ? request->method : &call->own_method;
    if (!request->method && !text_equal(call->own_name, request->name)) {
        free(call->own_name);
        call->own_name = xstrdup(request->name);
    }
    if (!request->method)
        call->own_method = (struct json_method){.name = call->own_name};
    buffer_clear(&call->params);
    if (request->text)
        buffer_append_text(&call->params, request->text);
    else if (request->params && call->method->params)
        json_write(call->method->params, request->params, &call->params);
    call->raw = request->raw;
    call->idempotent = call->method->idempotent || (options && options->idempotent);
    call->progress = options ? options->progress : NULL;
    call->progress_data = options ? options->progress_data : NULL;
    call->target = request->target;
    call->target.method = request->method;
    call->begun = now;
    call->deadline =
        deadline_after(call->begun, client_timeout(call->client, call->method, options));
    if (call->params.length > RPC_MESSAGE_MAX)
        return -EFBIG;
    return options ? copy_fds(call, options->fds, options->fds_count) : 0;
}

/* Under the lock. */
static int hand_in(struct cloche_client *client, struct async_call *call)
{
    if (client_in_loop(client)) {
        admit(call);
        return 0;
    }
    int r = client_wake(client);
    if (r == 0)
        list_append(&client->handed_in, call);
    return r;
}

int64_t async_call(struct cloche_client *client, const struct async_request *request)
{
    client_lock(client);
    bool stopping = client->stopping, in_loop = client_in_loop(client);
    struct async_call *call = stopping ? NULL : new_call(client);
    client_unlock(client);
    if (!call)
        return stopping ? -ECANCELED : -ENOBUFS;
    int64_t number = number_of(call);
    int r = fill(call, request, in_loop ? rpc_loop_now(client->loop) : monotonic_now());
    if (r == 0) {
        rpc_metrics_begin(&client->metrics);
        client_lock(client);
        r = hand_in(client, call);
        client_unlock(client);
        if (r < 0)
            rpc_metrics_end(&client->metrics, RPC_ENDED_LOST, 0, 0);
    }
    if (r < 0)
        free_call(call);
    return r < 0 ? r : number;
}

bool async_cancel(struct cloche_client *client, int64_t number)
{
    client_lock(client);
    struct async_call *call = find_call(client, number);
    bool first = call && !call->cancelled;
    if (first)
        call->cancelled = true;
    if (first && !call->cancel_queued) {
        call->cancel_queued = true;
        call->next_cancel = client->cancels;
        client->cancels = call;
        client_wake(client);
    }
    client_unlock(client);
    return first;
}

void async_init(struct cloche_client *client)
{
    client->again.callback = on_again;
    client->start_task.callback = on_start;
}

static void free_all(struct cloche_client *client)
{
    for (size_t i = 0; i < client->calls_count; i++) {
        buffer_finish(&client->calls[i]->params);
        free(client->calls[i]->own_name);
        free(client->calls[i]);
    }
    free(client->calls);
}

void async_finish(struct cloche_client *client)
{
    for (size_t i = 0; i < client->endpoints_count; i++)
        lanes_close(&client->endpoints[i]);
    for (size_t i = 0; i < client->calls_count; i++) {
        if (client->calls[i]->state != CALL_FREE)
            fail(client->calls[i], -ECANCELED, "the client was closed", NULL);
    }
    rpc_loop_clear_timer(client->loop, &client->again);
    rpc_loop_unqueue(client->loop, &client->start_task);
    free_all(client);
}
