#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/management.h>

#include "exchange.h"

struct call {
    struct call *next;
    struct exchange *exchange; /* NULL: nobody wants to know any more */
    const struct json_method *method;
    int64_t number;
    call_done done;
    bool errors;
    void (*progress)(struct exchange *exchange, const struct rpc_progress *progress);
};

/* ---- errors ---- */

unsigned call_status(const struct rpc_outcome *outcome)
{
    switch (outcome->fault) {
    case RPC_NOT_FOUND:
    case RPC_NO_SUCH_IMAGE:
        return 404;
    case RPC_CONFLICT:
        return 409;
    case RPC_INVALID_ARGUMENT:
    case RPC_INVALID_PARAMS:
    case RPC_PROGRAM_NOT_FOUND:
    case RPC_PROGRAM_NOT_EXECUTABLE:
        return 400;
    case RPC_PERMISSION_DENIED:
        return 403;
    case RPC_NOT_SUPPORTED:
    case RPC_METHOD_NOT_FOUND:
        return 501;
    case RPC_UNAVAILABLE:
    case RPC_TOO_MANY:
        return 503;
    default:
        return 500;
    }
}

void call_answer_error(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct error *err = outcome->error;

    if (err && err->hint && outcome->fault == RPC_NOT_SUPPORTED)
        answer_fail(exchange, call_status(outcome), "%s. %s", error_message(err), err->hint);
    else
        answer_fail(exchange, call_status(outcome), "%s", error_message(err));
}

/* ---- calls ---- */

static void forget(struct call *call)
{
    struct call **at = &call->exchange->calls;

    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
}

static void on_done(void *data, const struct rpc_outcome *outcome)
{
    struct call *call = data;
    struct exchange *exchange = call->exchange;

    if (exchange) {
        forget(call);
        if (outcome->code == 0 || call->errors)
            call->done(exchange, outcome);
        else
            call_answer_error(exchange, outcome);
        connection_touch(exchange->connection);
    }
    if (call->method->result)
        json_free(call->method->result, outcome->result);
    free(call);
}

static void on_progress(void *data, const struct rpc_progress *progress)
{
    struct call *call = data;

    if (call->exchange && !call->exchange->ended)
        call->progress(call->exchange, progress);
}

static const struct json_method *find_method(const char *name)
{
    for (size_t i = 0; i < management_methods_count; i++)
        if (text_equal(management_methods[i].name, name))
            return &management_methods[i];
    return NULL;
}

static void start(struct exchange *exchange, const struct json_method *method, const void *params,
                  call_done done, const struct call_options *options)
{
    static const struct call_options none;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_channel *channel = connection_channel(exchange->connection, &err);

    options = options ? options : &none;
    if (!channel) {
        answer_error(exchange, 503, &err);
        return;
    }
    struct call *call = xnew(struct call);
    *call = (struct call){.exchange = exchange,
                          .method = method,
                          .done = done,
                          .errors = options->errors,
                          .progress = options->progress};
    call->number = rpc_channel_call(
        channel, &(struct rpc_call){.method = call->method,
                                    .params = params,
                                    .fds = options->fds,
                                    .fds_count = options->fds_count,
                                    .done = on_done,
                                    .raw = options->raw,
                                    .data = call,
                                    .progress = options->progress ? on_progress : NULL});
    if (call->number < 0) {
        int r = (int)call->number;
        free(call);
        answer_fail(exchange, r == -EFBIG ? 413 : 503,
                    r == -EFBIG ? "the request is too long" : "the daemon does not take the call");
        return;
    }
    call->next = exchange->calls;
    exchange->calls = call;
}

void call(struct exchange *exchange, const char *method, const void *params, call_done done,
          const struct call_options *options)
{
    start(exchange, find_method(method), params, done, options);
}

void calls_cancel(struct exchange *exchange)
{
    while (exchange->calls) {
        struct call *call = exchange->calls;
        struct connection *connection = exchange->connection;
        exchange->calls = call->next;
        call->exchange = NULL;
        if (!connection->channel || !rpc_channel_cancel(connection->channel, call->number))
            continue; /* its callback has been, or comes with the channel's end */
    }
}

/* What is sent in one connection is done in order: an answer to what comes behind says that those
 * are ended. */
void calls_revoke(struct exchange *exchange, call_done done)
{
    static const struct json_method fence = {.name = "rpc.ping"};

    calls_cancel(exchange);
    start(exchange, &fence, NULL, done, &(struct call_options){.errors = true});
}

void call_done_empty(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    answer_empty(exchange, 204);
}

void call_done_nothing(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    answer_empty(exchange, 200);
}
