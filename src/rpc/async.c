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

enum { BYTES_MAX = 256 << 20 }; /* of the parameters of all calls */

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
    call_free(call);
    target.done(&target, outcome);
}

static void fail(struct async_call *call, int code, const char *what, const char *why)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, code, "%s: %s%s%s", call->method->name, what, why ? ": " : "", why ? why : "");
    finish(call, &(struct rpc_outcome){.code = code, .error = &err});
}

/* With what is wrong with the first endpoint. */
static void fail_for_endpoints(struct async_call *call, int code)
{
    struct cloche_client *client = call->client;
    char why[sizeof(client->endpoints[0].why)];

    client_lock(client);
    bool out = client->endpoints[0].state != CLOCHE_ENDPOINT_IN;
    memcpy(why, client->endpoints[0].why, sizeof(why));
    client_unlock(client);
    if (code == -ECONNREFUSED)
        fail(call, code, "no endpoint answers", why);
    else
        fail(call, code, out ? "no connection in time" : "all connections are in use",
             out ? why : NULL);
}

/* ---- waiting, and going on ---- */

static void make_ready(struct async_call *call)
{
    call->state = CALL_READY;
    call_list_append(&call->client->ready, call);
    rpc_loop_queue_later(call->client->loop, &call->client->start_task);
}

/* Whoever came first is first, also when he has tried in vain in between. Those that try again do
 * it in their order: there are few to be looked at. */
static void wait(struct async_call *call)
{
    struct cloche_client *client = call->client;
    struct call_list *list = &client->waiting[call->kind];
    struct async_call *before = list->last;

    if (!call->turn)
        call->turn = ++client->last_turn;
    if (before && before->turn > call->turn) {
        before = NULL;
        for (struct async_call *at = list->first; at->turn < call->turn; at = at->next)
            before = at;
    }
    call->state = CALL_WAITING;
    call_list_insert(list, before, call);
    if (call->deadline != NEVER && !call->timer.place)
        rpc_loop_set_timer(client->loop, &call->timer, call->deadline);
}

void async_go_on(struct cloche_client *client, enum lane_kind kind, size_t most)
{
    struct async_call *call;

    while (most-- && (call = client->waiting[kind].first)) {
        call_list_remove(&client->waiting[kind], call);
        make_ready(call);
    }
}

static void all_go_on(struct cloche_client *client)
{
    for (int kind = 0; kind < LANE_KINDS; kind++)
        async_go_on(client, kind, SIZE_MAX);
}

static void on_again(struct rpc_timer *timer)
{
    struct cloche_client *client =
        (struct cloche_client *)((char *)timer - offsetof(struct cloche_client, again));

    for (size_t i = 0; i < client->endpoints_count; i++)
        memset(client->endpoints[i].full, 0, sizeof(client->endpoints[i].full));
    all_go_on(client);
}

/* Not later for those that wait already. */
void async_again(struct cloche_client *client)
{
    if (!client->again.place)
        rpc_loop_set_timer(client->loop, &client->again,
                           rpc_loop_update_now(client->loop) + EXHAUSTED_MS * NS_PER_MS);
}

static void leave_list(struct async_call *call)
{
    if (call->state == CALL_READY)
        call_list_remove(&call->client->ready, call);
    else if (call->state == CALL_WAITING)
        call_list_remove(&call->client->waiting[call->kind], call);
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

/* Which may take it; NULL: none just now, *ret_all_out: nor soon. */
static struct endpoint *choose(struct async_call *call, bool *ret_all_out)
{
    struct cloche_client *client = call->client;
    enum endpoint_want want = call->kind == LANE_LONG ? WANT_LONG_LANE : WANT_LANE;
    bool none;

    client_lock(client);
    struct endpoint *endpoint = endpoint_choose(client, want, call->avoid, &none);
    if (none && call->avoid) { /* those that did not refuse it are gone */
        call->avoid = 0;
        endpoint = endpoint_choose(client, want, 0, &none);
    }
    if (endpoint) {
        endpoint->busy++;
        endpoint->calls++;
    }
    *ret_all_out = none && endpoints_all_out(client);
    client_unlock(client);
    return endpoint;
}

static void not_sent(struct endpoint *endpoint)
{
    client_lock(endpoint->client);
    endpoint->busy--;
    endpoint->calls--;
    client_unlock(endpoint->client);
}

static void refuse(struct async_call *call, int code, const struct lane *lane, const char *why)
{
    _cleanup_free_ char *what = NULL;

    if (code == -EFBIG)
        what = xasprintf("the request is too long: the server takes %zu bytes",
                         rpc_channel_message_max(lane->channel));
    fail(call, code, what ? what : "it cannot be sent", why);
}

/* 0: it is on its way, or at its end, or waits; 1: another endpoint is to be tried. */
static int start_at(struct endpoint *endpoint, struct async_call *call)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct lane *lane = NULL;

    int64_t r = lane_get(endpoint, call->kind, &lane, &err);
    if (r == 0)
        r = send_on(lane, call);
    if (r >= 0)
        return 0;
    not_sent(endpoint);
    if (r == -ECONNREFUSED || r == -EAGAIN)
        return 1;
    if (is_exhaustion((int)r) || r == -ENOTCONN) {
        wait(call);
        async_again(call->client);
    } else {
        refuse(call, (int)r, lane, err.message);
    }
    return 0;
}

static void start(struct async_call *call)
{
    struct endpoint *endpoint;
    bool all_out;

    if (rpc_loop_now(call->client->loop) >= call->deadline) {
        fail_for_endpoints(call, -ETIMEDOUT);
        return;
    }
    do {
        endpoint = choose(call, &all_out);
        if (!endpoint && all_out && call->client->settings.fail_fast) {
            fail_for_endpoints(call, -ECONNREFUSED);
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
    rpc_loop_update_now(client->loop); /* callbacks may have taken their time */
    while (ready.first) {
        struct async_call *call = ready.first;
        call_list_remove(&ready, call);
        call->state = CALL_LOOSE;
        start(call);
    }
}

/* ---- and back ---- */

static bool is_cancelled(const struct async_call *call)
{
    return __atomic_load_n(&call->cancelled, __ATOMIC_RELAXED);
}

static bool may_go_on(const struct async_call *call)
{
    const struct cloche_client *client = call->client;

    return !__atomic_load_n(&client->stopping, __ATOMIC_RELAXED) && !is_cancelled(call) &&
           call->attempts < client->settings.attempts;
}

static void move_on(struct async_call *call)
{
    call->moving = false;
    rpc_metrics_add(&call->client->metrics.retries, 1);
    make_ready(call);
}

/* What became of an attempt. */
struct attempt {
    struct endpoint *endpoint;
    int ended; /* why the connection has; 0: it stands */
    bool timed_out;
    bool lost; /* with the connection */
};

/* Whether the call is to be tried again. It was not sent, or not understood by anybody, or may be
 * done twice; nonsense in place of an answer is likely to come again. */
static bool is_to_move(struct async_call *call, const struct attempt *attempt,
                       const struct rpc_outcome *outcome)
{
    if (!may_go_on(call))
        return false;
    if (outcome->answered)
        return !attempt->ended && endpoint_may_ask_another(call->client, attempt->endpoint,
                                                           outcome->fault, &call->avoid);
    bool given_up =
        attempt->lost || call->moving || (attempt->timed_out && monotonic_now() < call->deadline);
    return given_up && (outcome->unsent || (call->idempotent && attempt->ended != -EPROTO));
}

/* Descriptors of ours that the kernel did not take: nothing is wrong with the call. */
static bool is_to_wait(const struct async_call *call, const struct rpc_outcome *outcome)
{
    return outcome->code == -ETOOMANYREFS && outcome->unsent && may_go_on(call);
}

static void end_attempt(struct async_call *call, const struct attempt *attempt,
                        const struct rpc_outcome *outcome)
{
    if (is_to_wait(call, outcome)) {
        wait(call);
        async_again(call->client);
    } else if (is_to_move(call, attempt, outcome)) {
        move_on(call);
    } else if (call->moving && outcome->code == -ECANCELED && !is_cancelled(call)) {
        fail(call, -ECONNRESET, "the endpoint does not answer", NULL);
    } else {
        finish(call, outcome);
    }
}

static void on_outcome(void *data, const struct rpc_outcome *outcome)
{
    struct async_call *call = data;
    struct cloche_client *client = call->client;
    struct lane *lane = steal_ptr(call->lane);
    struct attempt attempt = {.endpoint = lane->endpoint,
                              .ended = rpc_channel_ended(lane->channel),
                              .timed_out = is_timeout(outcome)};
    enum lane_kind kind = call->kind;

    attempt.lost =
        !outcome->answered && !attempt.timed_out && outcome->code != -ECANCELED && attempt.ended;
    call->state = CALL_LOOSE;
    call->attempts -= outcome->unsent;
    if (attempt.lost && attempt.ended == -ECONNRESET)
        endpoint_break(attempt.endpoint, false, error_message(outcome->error));
    endpoint_ended(attempt.endpoint, outcome->answered, attempt.timed_out && !outcome->heard);
    lane_release(lane);
    end_attempt(call, &attempt, outcome);
    async_go_on(client, kind, 1);
}

/* ---- time, and the caller's own end */

static void on_deadline(struct rpc_timer *timer)
{
    struct async_call *call =
        (struct async_call *)((char *)timer - offsetof(struct async_call, timer));

    leave_list(call);
    fail_for_endpoints(call, -ETIMEDOUT);
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
    while (!found && *slot < client->slots_count) {
        struct async_call *call = client->slots[(*slot)++].call;
        if (call && call->state == CALL_SENT && call->lane->endpoint == endpoint)
            found = call;
    }
    client_unlock(client);
    return found;
}

/* Calls that an endpoint which has gone silent keeps, and another can do: those of which nothing is
 * sent, and those that may be done twice. The others stay, and their lanes with them. */
static void abandon(struct endpoint *endpoint)
{
    struct async_call *call;

    for (size_t slot = 0; (call = next_sent(endpoint, &slot));) {
        call->moving =
            may_go_on(call) &&
            (call->idempotent || rpc_channel_is_unsent(call->lane->channel, call->number));
        if (call->moving)
            rpc_channel_cancel(call->lane->channel, call->number);
    }
    lanes_retire(endpoint);
}

/* ---- the loop's thread is woken ---- */

static void admit(struct async_call *call)
{
    call->timer = (struct rpc_timer){.callback = on_deadline};
    if (call->client->waiting[call->kind].first)
        wait(call); /* they were first */
    else
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
        probe_doubted(endpoint);
    }
    probes_arm(client);
    if (any || client->settings.fail_fast)
        all_go_on(client);
}

void async_take(struct cloche_client *client)
{
    struct async_call *call;
    size_t at = 0;

    client_lock(client);
    struct call_list handed_in = client->handed_in;
    client->handed_in = (struct call_list){0};
    for (call = handed_in.first; call; call = call->next)
        call->state = CALL_LOOSE;
    client_unlock(client);
    while ((call = handed_in.first)) {
        call_list_remove(&handed_in, call);
        admit(call);
    }
    while ((call = call_next_cancelled(client, &at)))
        cancel(call);
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
    call->kind = call->deadline == NEVER ? LANE_LONG : LANE_SHORT;
    if (call->params.length > RPC_MESSAGE_MAX)
        return -EFBIG;
    return options ? copy_fds(call, options->fds, options->fds_count) : 0;
}

/* Under the lock. */
static int hand_in(struct cloche_client *client, struct async_call *call)
{
    if (client->bytes + call->params.length > BYTES_MAX)
        return -ENOBUFS;
    client->bytes += call->charged = call->params.length;
    if (client_in_loop(client)) {
        admit(call);
        return 0;
    }
    int r = client_wake(client);
    if (r == 0)
        call_list_append(&client->handed_in, call);
    return r;
}

int64_t async_call(struct cloche_client *client, const struct async_request *request)
{
    client_lock(client);
    bool stopping = client->stopping, in_loop = client_in_loop(client);
    struct async_call *call = stopping ? NULL : call_new(client);
    client_unlock(client);
    if (!call)
        return stopping ? -ECANCELED : -ENOBUFS;
    int64_t number = call->id;
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
        call_free(call);
    return r < 0 ? r : number;
}

bool async_cancel(struct cloche_client *client, int64_t number)
{
    client_lock(client);
    struct async_call *call = call_find(client, number);
    bool first = call && !is_cancelled(call);
    if (first) {
        __atomic_store_n(&call->cancelled, true, __ATOMIC_RELAXED);
        call_queue_cancel(client, number);
    }
    client_unlock(client);
    return first;
}

void async_init(struct cloche_client *client)
{
    client->again.callback = on_again;
    client->start_task.callback = on_start;
}

void async_finish(struct cloche_client *client)
{
    for (size_t i = 0; i < client->endpoints_count; i++)
        lanes_close(&client->endpoints[i]);
    for (size_t i = 0; i < client->slots_count; i++) {
        if (client->slots[i].call)
            fail(client->slots[i].call, -ECANCELED, "the client was closed", NULL);
    }
    rpc_loop_clear_timer(client->loop, &client->again);
    rpc_loop_unqueue(client->loop, &client->start_task);
    calls_finish(client);
}
