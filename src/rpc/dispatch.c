#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "server_internal.h"

enum { WHERE_MAX = 128 }; /* bytes of a name that is told back */

struct refusal {
    int code;
    struct error error;
};

/* Those that the message counts, owned; NULL: none. So many have come. */
static int *take_fds(struct rpc_connection *connection, size_t count)
{
    if (!count)
        return NULL;
    int *fds = xnew_array(int, count);
    memcpy(fds, connection->fds, count * sizeof(*fds));
    connection_count_fds(connection, -(ptrdiff_t)count);
    memmove(connection->fds, connection->fds + count, connection->fds_count * sizeof(*fds));
    return fds;
}

static char *params_text(const struct rpc_codec *codec, const struct rpc_message *message)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (message->params.text)
        codec->to_json(message->params, &text);
    else
        buffer_append_text(&text, "{}");
    return buffer_steal(&text);
}

static int read_params(const struct rpc_codec *codec, const struct method *method,
                       const struct rpc_message *message, void **ret, struct error *err)
{
    const struct json_type *params = method->type->params;
    const struct json_method *type = method->type;

    if (message->fds != type->param_fds)
        return error_set(err, -EINVAL, "%u descriptors are expected, %zu came", type->param_fds,
                         message->fds);
    if (method->untyped) {
        *ret = params_text(codec, message);
        return 0;
    }
    if (!params)
        return 0;
    if (!message->params.text)
        return json_parse(params, "{}", 2, NULL, ret, err);
    return (message->positional ? codec->read_positional : codec->read)(
        params, message->params.text, message->params.length, ret, err);
}

/* rpc.hello, rpc.ping and rpc.cancel say nothing of anybody else. */
static bool is_free(const struct json_method *type)
{
    return text_equal(type->name, "rpc.hello") || text_equal(type->name, "rpc.ping") ||
           text_equal(type->name, "rpc.cancel");
}

static bool is_allowed(struct rpc_connection *connection, const struct json_method *type,
                       struct refusal *refusal)
{
    const struct rpc_server_options *options = &connection->server->options;

    if (!options->authorise || is_free(type))
        return true;
    int r = options->authorise(connection, type, options->context, &refusal->error);
    if (r < 0)
        refusal->code = rpc_code_of_errno(r);
    return r == 0;
}

/* A user who holds too much already gets nothing more carried out. */
static bool has_budget(const struct rpc_connection *connection, const struct json_method *type,
                       struct refusal *refusal)
{
    const struct rpc_limits *limits = &connection->server->options.limits;

    if ((connection->count->bytes <= limits->peer_bytes &&
         connection->server->bytes <= limits->bytes) ||
        is_free(type))
        return true;
    refusal->code = RPC_TOO_MANY;
    error_set(&refusal->error, -ENOBUFS, "too much is on its way from this user");
    error_hint(&refusal->error, "wait for answers, and read them");
    return false;
}

/* The method and its parameters, or why not. */
static struct method *check_call(struct rpc_connection *connection,
                                 const struct rpc_message *message, void **ret_params,
                                 struct refusal *refusal)
{
    struct error *err = &refusal->error;

    refusal->code = RPC_INVALID_REQUEST;
    if (!message->valid) {
        connection->server->malformed++;
        error_set(err, -EBADMSG, "%s", message->problem);
        return NULL;
    }
    struct method *method =
        server_find_method(connection->server, message->method.text, message->method.length);
    if (!method) {
        connection->server->unknown++;
        refusal->code = RPC_METHOD_NOT_FOUND;
        error_set(err, -ENOSYS, "there is no method '%.*s'",
                  message->method.length < 64 ? (int)message->method.length : 64,
                  message->method.text);
        return NULL;
    }
    rpc_metrics_begin_alone(&method->metrics);
    refusal->code = RPC_INVALID_PARAMS;
    if (has_budget(connection, method->type, refusal) &&
        is_allowed(connection, method->type, refusal) && !connection->closed &&
        read_params(connection->codec, method, message, ret_params, err) == 0)
        return method;
    rpc_metrics_end_alone(&method->metrics, RPC_ENDED_FAULT, refusal->code, 0);
    return NULL;
}

/* A call that cannot be made is answered here, unless it is a proper notification. */
static void answer_refusal(struct rpc_connection *connection, struct batch *batch,
                           const struct rpc_message *message, const struct refusal *refusal)
{
    if (message->valid && !message->id.text)
        return;
    size_t length = message->method.length < WHERE_MAX ? message->method.length : WHERE_MAX;
    _cleanup_free_ char *where =
        message->method.text ? xstrndup(message->method.text, length) : NULL;
    rpc_write_error(connection->codec, answer_begin(connection, batch, NULL, 0), message->id,
                    refusal->code, error_message(&refusal->error), where, refusal->error.hint);
    answer_end(connection, batch);
}

/* Whether the call stays: its handler has not answered it. */
static bool handle(struct rpc_request *request)
{
    struct rpc_server *server = request->connection->server;
    const struct method *method = request->method;
    bool gone = false;

    request->gone = &gone;
    if (method->handler)
        method->handler(request, request->params, server->options.context);
    else
        method->type->call(method->handlers, request, request->params, server->options.context);
    if (!gone)
        request->gone = NULL;
    return !gone;
}

static void dispatch(struct rpc_connection *connection, struct batch *batch,
                     const struct rpc_message *message)
{
    struct refusal refusal = {.error = ERROR_INIT};
    void *params = NULL;

    if (message->fds > connection->fds_count) {
        /* Whose are those that come next? Nobody can tell any more. */
        rpc_connection_close(connection);
        return;
    }
    int *fds = take_fds(connection, message->fds);
    if (message->valid && !message->method.text) {
        /* An answer, to a question that nobody asked: there is no answer to answers. */
        connection->server->malformed++;
        close_fds(fds, message->fds);
        free(fds);
        return;
    }
    struct method *method = check_call(connection, message, &params, &refusal);
    if (!method) {
        close_fds(fds, message->fds);
        free(fds);
        if (!connection->closed) /* by those who were asked */
            answer_refusal(connection, batch, message, &refusal);
        error_finish(&refusal.error);
        return;
    }
    struct rpc_request *request = request_create(connection, batch, method, message, params, fds);
    if (message->timeout_ms == 0) {
        request_end_early(request, RPC_TIME_IS_OVER);
        rpc_reply(request, NULL, NULL, 0);
        return;
    }
    /* Most are answered at once, and need neither of these. */
    if (!handle(request))
        return;
    request_hold_bytes(request, message->params.length);
    if (message->timeout_ms != RPC_NO_TIMEOUT && rpc_request_wanted(request) == RPC_STILL_WANTED)
        request_set_deadline(request);
}

static void dispatch_batch(struct rpc_connection *connection, const struct rpc_frame *frame)
{
    struct batch *batch = xnew(struct batch);

    rpc_connection_hold(connection);
    batch->connection = connection;
    batch->outstanding = 1;
    for (size_t i = 0; i < frame->count && !connection->closed; i++)
        dispatch(connection, batch, &frame->messages[i]);
    batch_unref(batch);
}

void dispatch_refuse(struct rpc_connection *connection, int code, const char *message,
                     const char *hint)
{
    connection->server->malformed++;
    rpc_write_error(connection->codec, connection_begin(connection, NULL, 0), (struct rpc_part){0},
                    code, message, NULL, hint);
    connection_end(connection);
}

static void refuse_frame(struct rpc_connection *connection, const struct error *err)
{
    _cleanup_free_ char *hint = NULL;
    const struct rpc_bounds *bounds = &connection->server->bounds;

    if (err->code == -EFBIG)
        hint = xasprintf("at most %zu calls in a batch, and %zu objects and arrays in each other",
                         bounds->batch, bounds->depth);
    dispatch_refuse(connection, err->code == -EFBIG ? RPC_TOO_MANY : RPC_PARSE_ERROR,
                    error_message(err), hint);
}

void dispatch_frame(struct rpc_connection *connection, const char *text, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_frame frame;

    if (connection->codec->parse(text, length, &connection->server->bounds, &frame, &err) < 0) {
        refuse_frame(connection, &err);
        return;
    }
    if (frame.batch && frame.count == 0)
        dispatch_refuse(connection, RPC_INVALID_REQUEST, "a batch without calls", NULL);
    else if (frame.batch)
        dispatch_batch(connection, &frame);
    else
        dispatch(connection, NULL, &frame.messages[0]);
    rpc_frame_finish(&frame);
}
