#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "server_internal.h"

/* ---- answers ---- */

/* Where an answer is to be written: among those of its batch, or on its way. fds are taken over. */
static struct buffer *begin_answer(struct connection *connection, struct batch *batch,
                                   const int *fds, size_t fds_count)
{
    if (!batch)
        return connection_begin(connection, fds, fds_count);
    buffer_append_char(&batch->text, batch->text.length ? ',' : '[');
    if (fds_count)
        memcpy(batch->fds + batch->fds_count, fds, fds_count * sizeof(*fds));
    batch->fds_count += fds_count;
    return &batch->text;
}

static void end_answer(struct connection *connection, struct batch *batch)
{
    if (!batch)
        connection_end(connection);
}

static void write_fault(struct connection *connection, struct batch *batch, struct rpc_part id,
                        int code, const char *message, const char *where, const char *hint)
{
    rpc_write_error(begin_answer(connection, batch, NULL, 0), id, code, message, where, hint);
    end_answer(connection, batch);
}

/* One call of a batch is done; the last sends all answers, in one line. */
static void batch_unref(struct batch *batch)
{
    if (--batch->outstanding)
        return;
    if (batch->connection && batch->text.length) {
        struct buffer *out = connection_begin(batch->connection, batch->fds, batch->fds_count);
        buffer_append(out, batch->text.data, batch->text.length);
        buffer_append_char(out, ']');
        connection_end(batch->connection);
    } else {
        close_fds(batch->fds, batch->fds_count);
    }
    buffer_finish(&batch->text);
    free(batch);
}

static void unlink_request(struct rpc_request *request)
{
    struct connection *connection = request->connection;

    if (request->previous)
        request->previous->next = request->next;
    else
        connection->requests = request->next;
    if (request->next)
        request->next->previous = request->previous;
    connection->in_flight--;
}

/* The end of a request: what was answered is on its way. */
static void release(struct rpc_request *request)
{
    struct rpc_server *server = request->server;

    if (request->connection)
        unlink_request(request);
    if (request->fds)
        close_fds(request->fds, request->fds_count);
    free(request->fds);
    if (request->method->type->params)
        json_free(request->method->type->params, request->params);
    if (request->batch)
        batch_unref(request->batch);
    free(request);
    server->in_flight--;
    server_unref(server);
}

static struct rpc_part id_of(const struct rpc_request *request)
{
    return (struct rpc_part){.text = request->id, .length = strlen(request->id)};
}

/* Around the answer, which may close the connection: NULL when it is gone already. */
static struct connection *begin_end(struct rpc_request *request)
{
    request->on_disconnect = NULL;
    if (request->connection)
        connection_hold(request->connection);
    return request->connection;
}

static void end_end(struct rpc_request *request, struct connection *connection)
{
    release(request);
    if (!connection)
        return;
    connection_update(connection);
    connection_release(connection);
}

static void send_result(struct rpc_request *request, const void *result, const int *fds,
                        size_t fds_count)
{
    const struct json_type *type = request->method->type->result;
    struct buffer *out = begin_answer(request->connection, request->batch, fds, fds_count);

    rpc_write_result_begin(out, id_of(request));
    if (type && result)
        json_write(type, result, out);
    else
        buffer_append_text(out, type ? "{}" : "null");
    rpc_write_result_end(out, fds_count);
    end_answer(request->connection, request->batch);
}

void rpc_reply(struct rpc_request *request, const void *result, const int *fds, size_t fds_count)
{
    size_t in_use = request->batch ? request->batch->fds_count : 0;
    struct connection *connection = begin_end(request);

    if (!connection || !request->id[0]) {
        close_fds(fds, fds_count);
    } else if (fds_count > RPC_FDS_MAX - in_use) {
        close_fds(fds, fds_count);
        write_fault(request->connection, request->batch, id_of(request), RPC_INTERNAL_ERROR,
                    "too many descriptors in one answer", request->method->type->name, NULL);
    } else {
        send_result(request, result, fds, fds_count);
    }
    end_end(request, connection);
}

void rpc_fail(struct rpc_request *request, int code, const struct error *err)
{
    struct connection *connection = begin_end(request);

    if (connection && request->id[0])
        write_fault(connection, request->batch, id_of(request), code, error_message(err),
                    request->method->type->name, err->hint);
    end_end(request, connection);
}

static int code_of_errno(int code)
{
    switch (-code) {
    case ENOENT:
        return RPC_NOT_FOUND;
    case EEXIST:
    case EBUSY:
    case EALREADY:
    case ESRCH:
        return RPC_CONFLICT;
    case EINVAL:
    case ERANGE:
    case E2BIG:
    case ENAMETOOLONG:
    case EPROTO:
    case EBADMSG:
    case EFBIG:
    case EILSEQ:
        return RPC_INVALID_ARGUMENT;
    case EPERM:
    case EACCES:
        return RPC_PERMISSION_DENIED;
    case EOPNOTSUPP:
    case ENOSYS:
        return RPC_NOT_SUPPORTED;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
        return RPC_UNAVAILABLE;
    default:
        return RPC_INTERNAL_ERROR;
    }
}

void rpc_fail_errno(struct rpc_request *request, const struct error *err)
{
    rpc_fail(request, code_of_errno(err->code), err);
}

void requests_orphan(struct connection *connection)
{
    while (connection->requests) {
        struct rpc_request *request = connection->requests;
        unlink_request(request);
        request->connection = NULL;
        request->next = request->previous = NULL;
        if (request->batch)
            request->batch->connection = NULL;
        rpc_disconnect callback = request->on_disconnect;
        request->on_disconnect = NULL;
        if (callback)
            callback(request, request->disconnect_data); /* may answer: request is gone then */
    }
}

/* ---- dispatch ---- */

/* Those that the message counts, owned; NULL: none. So many have come. */
static int *take_fds(struct connection *connection, size_t count)
{
    if (!count)
        return NULL;
    int *fds = xnew_array(int, count);
    memcpy(fds, connection->fds, count * sizeof(*fds));
    connection->fds_count -= count;
    memmove(connection->fds, connection->fds + count, connection->fds_count * sizeof(*fds));
    return fds;
}

struct refusal {
    int code;
    struct error error;
};

static int parse_params(const struct rpc_method *method, const struct rpc_message *message,
                        void **ret, struct error *err)
{
    const char *text = message->params.text ? message->params.text : "{}";
    size_t length = message->params.text ? message->params.length : 2;

    if (message->fds != method->type->param_fds)
        return error_set(err, -EINVAL, "%u descriptors are expected, %zu came",
                         method->type->param_fds, message->fds);
    if (!method->type->params)
        return 0;
    return json_parse(method->type->params, text, length, NULL, ret, err);
}

/* The method and its parameters, or why not. */
static const struct rpc_method *check_call(struct connection *connection,
                                           const struct rpc_message *message, void **ret_params,
                                           struct refusal *refusal)
{
    struct error *err = &refusal->error;

    refusal->code = RPC_INVALID_REQUEST;
    if (!message->valid || !message->method.text) {
        error_set(err, -EBADMSG, "%s", message->valid ? "an answer to nothing" : message->problem);
        return NULL;
    }
    const struct rpc_method *method =
        server_find_method(connection->server, message->method.text, message->method.length);
    if (!method) {
        refusal->code = RPC_METHOD_NOT_FOUND;
        error_set(err, -ENOSYS, "there is no method '%.*s'",
                  message->method.length < 64 ? (int)message->method.length : 64,
                  message->method.text);
        return NULL;
    }
    refusal->code = RPC_INVALID_PARAMS;
    return parse_params(method, message, ret_params, err) < 0 ? NULL : method;
}

/* A call that cannot be made is answered here, unless it is a proper notification. */
static void answer_refusal(struct connection *connection, struct batch *batch,
                           const struct rpc_message *message, const struct refusal *refusal)
{
    if (message->valid && !message->id.text)
        return;
    _cleanup_free_ char *where =
        message->method.text ? xstrndup(message->method.text, message->method.length) : NULL;
    write_fault(connection, batch, message->id, refusal->code, error_message(&refusal->error),
                where, refusal->error.hint);
}

static struct rpc_request *request_create(struct connection *connection, struct batch *batch,
                                          const struct rpc_message *message)
{
    struct rpc_request *request = xmalloc(sizeof(*request) + message->id.length + 1);

    *request = (struct rpc_request){.connection = connection,
                                    .server = connection->server,
                                    .batch = batch,
                                    .peer = connection->peer,
                                    .next = connection->requests};
    if (message->id.length)
        memcpy(request->id, message->id.text, message->id.length);
    request->id[message->id.length] = '\0';
    if (request->next)
        request->next->previous = request;
    connection->requests = request;
    connection->in_flight++;
    connection->server->in_flight++;
    connection->server->references++;
    if (batch)
        batch->outstanding++;
    return request;
}

static void dispatch(struct connection *connection, struct batch *batch,
                     const struct rpc_message *message)
{
    struct refusal refusal = {.error = ERROR_INIT};
    void *params = NULL;

    if (message->fds > connection->fds_count) {
        /* Whose are those that come next? Nobody can tell any more. */
        connection_close(connection);
        return;
    }
    int *fds = take_fds(connection, message->fds);
    const struct rpc_method *method = check_call(connection, message, &params, &refusal);
    if (!method) {
        close_fds(fds, message->fds);
        free(fds);
        answer_refusal(connection, batch, message, &refusal);
        error_finish(&refusal.error);
        return;
    }
    struct rpc_request *request = request_create(connection, batch, message);
    request->method = method;
    request->params = params;
    request->fds_count = message->fds;
    request->fds = fds;
    method->handler(request, params, connection->server->context);
}

static void dispatch_batch(struct connection *connection, const struct rpc_line *line)
{
    struct batch *batch = xnew(struct batch);

    batch->connection = connection;
    batch->outstanding = 1;
    for (size_t i = 0; i < line->count && !connection->closed; i++)
        dispatch(connection, batch, &line->messages[i]);
    if (connection->closed)
        batch->connection = NULL;
    batch_unref(batch);
}

static void send_error(struct connection *connection, int code, const char *message)
{
    write_fault(connection, NULL, (struct rpc_part){0}, code, message, NULL, NULL);
}

void requests_take_line(struct connection *connection, const char *text, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_line line;

    if (length > RPC_MESSAGE_MAX) {
        send_error(connection, RPC_INVALID_REQUEST, "the message is too long");
        return;
    }
    if (rpc_line_parse(text, length, &line, &err) < 0) {
        send_error(connection, RPC_PARSE_ERROR, error_message(&err));
        return;
    }
    if (line.batch && line.count == 0)
        send_error(connection, RPC_INVALID_REQUEST, "a batch without calls");
    else if (line.batch)
        dispatch_batch(connection, &line);
    else
        dispatch(connection, NULL, &line.messages[0]);
    rpc_line_finish(&line);
}

/* ---- what a handler may ask ---- */

size_t rpc_request_fds_count(const struct rpc_request *request)
{
    return request->fds_count;
}

int rpc_request_take_fd(struct rpc_request *request, size_t index)
{
    return index < request->fds_count ? steal_fd(&request->fds[index]) : -1;
}

const char *rpc_request_method(const struct rpc_request *request)
{
    return request->method->type->name;
}

uid_t rpc_request_uid(const struct rpc_request *request)
{
    return request->peer.uid;
}

gid_t rpc_request_gid(const struct rpc_request *request)
{
    return request->peer.gid;
}

pid_t rpc_request_pid(const struct rpc_request *request)
{
    return request->peer.pid;
}

void rpc_request_on_disconnect(struct rpc_request *request, rpc_disconnect callback, void *data)
{
    request->on_disconnect = callback;
    request->disconnect_data = data;
}
