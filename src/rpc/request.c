#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <schema/rpc.h>

#include "server_internal.h"

#define NS_PER_MS UINT64_C(1000000)

/* ---- answers ---- */

struct buffer *answer_begin(struct rpc_connection *connection, struct batch *batch, const int *fds,
                            size_t fds_count)
{
    if (!batch)
        return connection_begin(connection, fds, fds_count);
    batch->mark = batch->text.length;
    connection->codec->batch_next(&batch->text);
    if (fds_count)
        memcpy(batch->fds + batch->fds_count, fds, fds_count * sizeof(*fds));
    batch->fds_count += fds_count;
    return &batch->text;
}

void answer_end(struct rpc_connection *connection, struct batch *batch)
{
    struct rpc_server *server = connection->server;

    if (!batch) {
        connection_end(connection);
        return;
    }
    /* A batch that waits for its last call holds the answers to the others. */
    connection->batch_bytes += batch->text.length - batch->mark;
    if (!connection_charge(connection)) {
        server->overflowed++;
        rpc_connection_close(connection);
    }
}

/* Whether the answer that was begun is longer than a client takes, or than may wait in batches. */
static bool is_too_long(const struct rpc_connection *connection, const struct batch *batch,
                        const struct buffer *out)
{
    size_t limit = connection->server->options.limits.output;

    return batch ? connection->batch_bytes + out->length - batch->mark > limit
                 : out->length - connection->mark >= RPC_ANSWER_MAX;
}

/* Takes back what was written since answer_begin(). */
static void answer_undo(struct rpc_connection *connection, struct batch *batch, size_t fds_count)
{
    if (!batch) {
        connection_undo(connection, fds_count);
        return;
    }
    batch->fds_count -= fds_count;
    close_fds(batch->fds + batch->fds_count, fds_count);
    batch->text.length = batch->mark;
}

void batch_unref(struct batch *batch)
{
    struct rpc_connection *connection = batch->connection;

    if (--batch->outstanding)
        return;
    connection->batch_bytes -= batch->text.length;
    connection_charge(connection);
    if (!connection->closed && batch->text.length) {
        struct buffer *out = connection_begin(connection, batch->fds, batch->fds_count);
        buffer_append(out, batch->text.data, batch->text.length);
        connection->codec->batch_end(out);
        connection_end(connection);
    } else {
        close_fds(batch->fds, batch->fds_count);
    }
    buffer_finish(&batch->text);
    free(batch);
    rpc_connection_release(connection);
}

/* ---- the life of a request ---- */

static void on_deadline(struct rpc_timer *timer)
{
    struct rpc_request *request =
        (struct rpc_request *)((char *)timer - offsetof(struct rpc_request, deadline));

    request_end_early(request, RPC_TIME_IS_OVER);
}

struct rpc_request *request_create(struct rpc_connection *connection, struct batch *batch,
                                   struct method *method, const struct rpc_message *message,
                                   void *params, int *fds)
{
    struct rpc_request *request = xmalloc(sizeof(*request) + message->id.length);

    *request = (struct rpc_request){.connection = connection,
                                    .batch = batch,
                                    .method = method,
                                    .codec = connection->codec,
                                    .params = params,
                                    .fds = fds,
                                    .fds_count = message->fds,
                                    .progress = message->progress && message->id.length,
                                    .started = rpc_loop_now(connection->server->loop),
                                    .id_length = (uint16_t)message->id.length,
                                    .next = connection->requests,
                                    .at = &connection->requests};
    if (message->timeout_ms != RPC_NO_TIMEOUT)
        request->deadline.due = request->started + message->timeout_ms * NS_PER_MS;
    if (message->id.length)
        memcpy(request->id, message->id.text, message->id.length);
    if (request->next)
        request->next->at = &request->next;
    connection->requests = request;
    connection->in_flight++;
    connection->server->in_flight++;
    rpc_connection_hold(connection);
    if (batch)
        batch->outstanding++;
    return request;
}

/* Three characters of JSON ("",) can become 32 bytes and a pointer to them. */
enum { HELD_FACTOR = 16, HELD_BYTES = 1024 };

void request_hold_bytes(struct rpc_request *request, size_t bytes)
{
    /* At most RPC_MESSAGE_MAX of them. */
    request->held_bytes = (uint32_t)(HELD_BYTES + bytes * HELD_FACTOR);
    request->connection->held_bytes += request->held_bytes;
}

void request_set_deadline(struct rpc_request *request)
{
    request->deadline.callback = on_deadline;
    rpc_loop_set_timer(request->connection->server->loop, &request->deadline,
                       request->deadline.due);
}

static void unlink_request(struct rpc_request *request)
{
    if (!request->at)
        return;
    *request->at = request->next;
    if (request->next)
        request->next->at = request->at;
    request->at = NULL;
    request->connection->in_flight--;
}

/* The answer is on its way, or is none: for batch, time and counters. */
static void is_answered(struct rpc_request *request, enum rpc_ended how)
{
    struct batch *batch = request->batch;
    struct rpc_loop *loop = request->connection->server->loop;

    request->ended = true; /* what follows may end the connection, which asks */
    rpc_loop_clear_timer(loop, &request->deadline);
    rpc_metrics_end_alone(&request->method->metrics, how, request->fault,
                          rpc_loop_update_now(loop) - request->started);
    request->on_cancel = NULL;
    request->batch = NULL;
    if (batch)
        batch_unref(batch);
}

/* The end of a request. */
static void release(struct rpc_request *request)
{
    struct rpc_connection *connection = request->connection;

    if (request->gone)
        *request->gone = true;
    unlink_request(request);
    connection->held_bytes -= request->held_bytes;
    if (connection->closed)
        connection_charge(connection);
    if (request->fds)
        close_fds(request->fds, request->fds_count);
    free(request->fds);
    if (request->method->untyped)
        free(request->params);
    else if (request->method->type->params)
        json_free(request->method->type->params, request->params);
    connection->server->in_flight--;
    free(request);
    connection_update(connection);
    rpc_connection_release(connection);
}

static struct rpc_part id_of(const struct rpc_request *request)
{
    return (struct rpc_part){.text = request->id, .length = request->id_length};
}

static bool is_to_be_answered(const struct rpc_request *request)
{
    return request->wanted == RPC_STILL_WANTED && request->id_length &&
           !request->connection->closed;
}

static void write_fault(struct rpc_request *request, int code, const char *message,
                        const char *hint)
{
    struct rpc_connection *connection = request->connection;

    request->fault = code;
    if (!is_to_be_answered(request))
        return;
    rpc_write_error(connection->codec, answer_begin(connection, request->batch, NULL, 0),
                    id_of(request), code, message, request->method->type->name, hint);
    answer_end(connection, request->batch);
}

/* A handler has answered. */
static void finish(struct rpc_request *request)
{
    if (request->wanted == RPC_STILL_WANTED)
        is_answered(request, request->fault ? RPC_ENDED_FAULT : RPC_ENDED_ANSWERED);
    release(request);
}

static bool too_many_unread(const struct rpc_request *request, size_t more)
{
    const struct rpc_connection *connection = request->connection;

    return connection->count->fds_out + more > FDS_OUT_PER_PEER ||
           connection->server->fds_out + more > FDS_OUT_MAX;
}

/* Room for the answer, or NULL when there is to be none; fds are taken over. */
static struct buffer *begin_result(struct rpc_request *request, const int *fds, size_t fds_count)
{
    size_t in_use = request->batch ? request->batch->fds_count : 0;

    if (is_to_be_answered(request) && fds_count && too_many_unread(request, fds_count)) {
        close_fds(fds, fds_count);
        write_fault(request, RPC_TOO_MANY, "too many descriptors wait for their readers",
                    "read the answers to earlier calls");
        return NULL;
    }
    if (is_to_be_answered(request) && fds_count <= RPC_FDS_MAX - in_use) {
        struct buffer *out = answer_begin(request->connection, request->batch, fds, fds_count);
        request->codec->result_begin(out, id_of(request), fds_count);
        return out;
    }
    close_fds(fds, fds_count);
    if (is_to_be_answered(request))
        write_fault(request, RPC_INTERNAL_ERROR, "too many descriptors in one answer", NULL);
    return NULL;
}

static void end_result(struct rpc_request *request, struct buffer *out, size_t fds_count)
{
    struct rpc_connection *connection = request->connection;

    request->codec->result_end(out, fds_count);
    if (!is_too_long(connection, request->batch, out)) {
        answer_end(connection, request->batch);
        return;
    }
    bool alone = !request->batch;
    answer_undo(connection, request->batch, fds_count);
    write_fault(request, RPC_TOO_MANY, "the answer is too long",
                alone ? "ask for less" : "ask for less, or call it outside of a batch");
}

void rpc_reply(struct rpc_request *request, const void *result, const int *fds, size_t fds_count)
{
    const struct json_type *type = request->method->type->result;

    request->on_cancel = NULL; /* what is written may end the connection */
    struct buffer *out = begin_result(request, fds, fds_count);

    if (out && type && result)
        request->codec->write(type, result, out);
    else if (out && type)
        request->codec->write_json("{}", 2, out);
    else if (out)
        request->codec->write_json("null", 4, out);
    if (out)
        end_result(request, out, fds_count);
    finish(request);
}

void rpc_reply_json(struct rpc_request *request, const char *text, size_t length, const int *fds,
                    size_t fds_count)
{
    request->on_cancel = NULL;
    struct buffer *out = begin_result(request, fds, fds_count);
    if (out) {
        request->codec->write_json(text, length, out);
        end_result(request, out, fds_count);
    }
    finish(request);
}

void rpc_fail(struct rpc_request *request, int code, const struct error *err)
{
    request->on_cancel = NULL;
    if (request->wanted == RPC_STILL_WANTED)
        write_fault(request, code, error_message(err), err->hint);
    finish(request);
}

int rpc_code_of_errno(int code)
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
    case ETIMEDOUT:
        return RPC_DEADLINE_EXCEEDED;
    case ECANCELED:
        return RPC_CANCELLED;
    case ENOBUFS:
        return RPC_TOO_MANY;
    default:
        return RPC_INTERNAL_ERROR;
    }
}

void rpc_fail_errno(struct rpc_request *request, const struct error *err)
{
    rpc_fail(request, rpc_code_of_errno(err->code), err);
}

/* ---- when nobody waits any more ---- */

static void tell_handler(struct rpc_request *request, enum rpc_wanted why)
{
    rpc_on_cancel callback = request->on_cancel;
    void *data = request->cancel_data;
    enum rpc_ended how = why == RPC_TIME_IS_OVER ? RPC_ENDED_TIMEOUT
                         : why == RPC_CALL_ENDED ? RPC_ENDED_CANCELLED
                                                 : RPC_ENDED_LOST;

    is_answered(request, how);
    request->wanted = why;
    if (callback)
        callback(request, data); /* may answer: the request is gone then */
}

void request_end_early(struct rpc_request *request, enum rpc_wanted why)
{
    struct rpc_connection *connection = request->connection;

    rpc_connection_hold(connection);
    if (why == RPC_TIME_IS_OVER)
        write_fault(request, RPC_DEADLINE_EXCEEDED, "the deadline of the call is over",
                    "give it more time");
    else
        write_fault(request, RPC_CANCELLED, "cancelled", NULL);
    /* That may have ended the connection, which tells all handlers. */
    if (!connection->closed)
        tell_handler(request, why);
    rpc_connection_release(connection);
}

void requests_orphan(struct rpc_connection *connection)
{
    while (connection->requests) {
        struct rpc_request *request = connection->requests;
        unlink_request(request);
        if (request->wanted == RPC_STILL_WANTED && !request->ended)
            tell_handler(request, RPC_PEER_GONE);
    }
}

/* ---- what a handler may ask ---- */

void rpc_request_on_cancel(struct rpc_request *request, rpc_on_cancel callback, void *data)
{
    request->on_cancel = callback;
    request->cancel_data = data;
}

enum rpc_wanted rpc_request_wanted(const struct rpc_request *request)
{
    return request->wanted;
}

uint64_t rpc_request_deadline(const struct rpc_request *request)
{
    return request->deadline.due;
}

bool rpc_request_wants_progress(const struct rpc_request *request)
{
    return request->progress && is_to_be_answered(request);
}

void rpc_request_progress(struct rpc_request *request, uint64_t done, uint64_t total,
                          const char *unit, const char *text)
{
    _cleanup_buffer_ struct buffer id = BUFFER_INIT;

    if (!rpc_request_wants_progress(request))
        return;
    request->codec->to_json(id_of(request), &id);
    struct rpc_progress progress = {.id = id.data,
                                    .done = done,
                                    .total = total,
                                    .has_total = total != 0,
                                    .unit = (char *)(uintptr_t)unit,
                                    .text = (char *)(uintptr_t)text};
    /* What is refused is left out: the next one says more. */
    (void)rpc_connection_notify(request->connection, "rpc.progress", &rpc_progress_type, &progress);
}

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

bool rpc_request_is_alone(const struct rpc_request *request)
{
    return request->id_length && !request->batch;
}

const struct json_method *rpc_request_type(const struct rpc_request *request)
{
    return request->method->type;
}

struct rpc_connection *rpc_request_connection(const struct rpc_request *request)
{
    return request->connection;
}

uid_t rpc_request_uid(const struct rpc_request *request)
{
    return request->connection->peer.uid;
}

gid_t rpc_request_gid(const struct rpc_request *request)
{
    return request->connection->peer.gid;
}

pid_t rpc_request_pid(const struct rpc_request *request)
{
    return request->connection->peer.pid;
}
