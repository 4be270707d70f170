#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/client.h>
#include <rpc/server.h>
#include <schema/json.h>
#include <schema/rpc.h>

#include "codec.h"
#include "fault.h"

enum { READ_SIZE = 64 * 1024 };

/* An answer that has come and is waiting to be received. */
struct answer {
    struct answer *next;
    uint64_t id;
    bool is_error;
    char *text; /* owned; result or error */
    size_t length;
    int fds[RPC_FDS_MAX];
    size_t fds_count;
};

struct rpc_client {
    int fd; /* -1: broken */
    uint64_t last_id;
    int error_code;
    struct buffer in;
    size_t searched;          /* bytes of in that hold no line end */
    int fds[2 * RPC_FDS_MAX]; /* came, and belong to a line that is not complete yet */
    size_t fds_count;
    struct answer *answers;
    size_t answers_count;
    rpc_client_progress progress; /* NULL: not asked for */
    void *progress_data;
};

struct rpc_client *rpc_client_from_fd(int fd)
{
    struct rpc_client *client = xnew(struct rpc_client);

    client->fd = fd;
    return client;
}

int rpc_client_connect(const char *path, struct rpc_client **ret, struct error *err)
{
    int fd = socket_connect_unix(path, SOCK_STREAM, err);

    if (fd < 0)
        return fd;
    *ret = rpc_client_from_fd(fd);
    return 0;
}

static void close_fds(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close_fd(fds[i]);
}

static void answer_free(struct answer *answer)
{
    close_fds(answer->fds, answer->fds_count);
    free(answer->text);
    free(answer);
}

void rpc_client_destroy(struct rpc_client *client)
{
    if (!client)
        return;
    close_fd(client->fd);
    close_fds(client->fds, client->fds_count);
    while (client->answers) {
        struct answer *answer = client->answers;
        client->answers = answer->next;
        answer_free(answer);
    }
    buffer_finish(&client->in);
    free(client);
}

int rpc_client_fd(const struct rpc_client *client)
{
    return client->fd;
}

int rpc_client_error_code(const struct rpc_client *client)
{
    return client->error_code;
}

/* From here on every call fails. */
static void break_connection(struct rpc_client *client)
{
    close_fd(steal_fd(&client->fd));
    close_fds(client->fds, client->fds_count);
    client->fds_count = 0;
}

/* ---- sending ---- */

static int send_line(struct rpc_client *client, struct buffer *line, const int *fds,
                     size_t fds_count, struct error *err)
{
    size_t at = 0;

    while (at < line->length) {
        ssize_t n =
            socket_send(client->fd, line->data + at, line->length - at, fds, at ? 0 : fds_count);
        if (n == -EAGAIN) {
            struct pollfd ready = {.fd = client->fd, .events = POLLOUT};
            poll(&ready, 1, -1);
            continue;
        }
        if (n < 0) {
            break_connection(client);
            return error_errno(err, (int)-n, "send a request to the daemon");
        }
        at += (size_t)n;
    }
    return 0;
}

int rpc_client_send(struct rpc_client *client, const char *method,
                    const struct json_type *params_type, const void *params, const int *fds,
                    size_t fds_count, uint64_t *ret_id, struct error *err)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    client->error_code = 0;
    if (client->fd < 0)
        return error_set(err, -ENOTCONN, "the connection to the daemon is broken");
    if (fds_count > RPC_FDS_MAX)
        return error_set(err, -E2BIG, "%s: more than %d descriptors", method, RPC_FDS_MAX);
    uint64_t id = client->last_id + 1;
    buffer_printf(&line, "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"method\":", (unsigned long long)id);
    json_quote(&line, method, strlen(method));
    if (params_type) {
        buffer_append_text(&line, ",\"params\":");
        json_write(params_type, params, &line);
    }
    if (fds_count)
        buffer_printf(&line, ",\"fds\":%zu", fds_count);
    if (client->progress)
        buffer_append_text(&line, ",\"progress\":true");
    buffer_append_text(&line, "}\n");
    if (line.length > RPC_MESSAGE_MAX)
        return error_set(err, -EFBIG, "%s: the request is longer than %d bytes", method,
                         RPC_MESSAGE_MAX);
    int r = send_line(client, &line, fds, fds_count, err);
    if (r < 0)
        return r;
    client->last_id = id;
    *ret_id = id;
    return 0;
}

/* ---- receiving ---- */

static int protocol_error(struct rpc_client *client, struct error *err, const char *what)
{
    break_connection(client);
    return error_set(err, -EPROTO, "the daemon's answer is not understood: %s", what);
}

void rpc_client_on_progress(struct rpc_client *client, rpc_client_progress handler, void *data)
{
    client->progress = handler;
    client->progress_data = data;
}

static bool is_progress(const struct rpc_client *client, const struct rpc_message *message)
{
    static const char method[] = "rpc.progress";

    return client->progress && message->valid && message->params.text &&
           message->method.length == strlen(method) &&
           memcmp(message->method.text, method, strlen(method)) == 0;
}

static int take_progress(struct rpc_client *client, const struct rpc_message *message,
                         struct error *err)
{
    _cleanup_rpc_progress_ struct rpc_progress *progress = NULL;
    int r = rpc_progress_parse(message->params.text, message->params.length, NULL, &progress, err);

    if (r < 0)
        return protocol_error(client, err, "progress");
    client->progress(progress, client->progress_data);
    return 0;
}

/* Moves a message of the line, with the descriptors it counts, to the answers. */
static int keep_answer(struct rpc_client *client, const struct rpc_message *message,
                       struct error *err)
{
    uint64_t id;

    if (!message->valid)
        return protocol_error(client, err, message->problem);
    if (message->fds > client->fds_count)
        return protocol_error(client, err, "descriptors are missing");
    if (client->answers_count >= RPC_CLIENT_PENDING_MAX)
        return protocol_error(client, err, "too many answers");
    bool is_error = message->error.text != NULL;
    _cleanup_free_ char *number =
        message->id.text ? xstrndup(message->id.text, message->id.length) : xstrdup("");
    if (message->method.text || text_to_u64(number, 1, client->last_id, &id) < 0)
        return protocol_error(client, err, "to nothing that was asked");
    const struct rpc_part *part = is_error ? &message->error : &message->result;
    struct answer *answer = xnew(struct answer);
    *answer = (struct answer){.next = client->answers,
                              .id = id,
                              .is_error = is_error,
                              .text = xstrndup(part->text, part->length),
                              .length = part->length,
                              .fds_count = message->fds};
    memcpy(answer->fds, client->fds, message->fds * sizeof(int));
    client->fds_count -= message->fds;
    memmove(client->fds, client->fds + message->fds, client->fds_count * sizeof(int));
    client->answers = answer;
    client->answers_count++;
    return 0;
}

static int take_line(struct rpc_client *client, const char *text, size_t length, struct error *err)
{
    _cleanup_error_ struct error problem = ERROR_INIT;
    static const struct rpc_bounds bounds = {.depth = RPC_DEPTH_MAX, .batch = RPC_BATCH_MAX};
    struct rpc_frame frame;
    int r = 0;

    if (rpc_codec_json.parse(text, length, &bounds, &frame, &problem) < 0)
        return protocol_error(client, err, error_message(&problem));
    for (size_t i = 0; r == 0 && i < frame.count; i++)
        r = is_progress(client, &frame.messages[i]) ? take_progress(client, &frame.messages[i], err)
                                                    : keep_answer(client, &frame.messages[i], err);
    rpc_frame_finish(&frame);
    return r;
}

static int take_lines(struct rpc_client *client, struct error *err)
{
    struct buffer *in = &client->in;
    size_t start = 0;
    int r = 0;

    while (r == 0 && client->fd >= 0) {
        size_t from = client->searched > start ? client->searched : start;
        char *newline = memchr(in->data + from, '\n', in->length - from);
        if (!newline)
            break;
        size_t end = (size_t)(newline - in->data);
        if (end > start)
            r = take_line(client, in->data + start, end - start, err);
        start = end + 1;
    }
    buffer_consume(in, start);
    client->searched = in->length;
    if (r == 0 && in->length > RPC_ANSWER_MAX)
        r = protocol_error(client, err, "too long");
    return r;
}

/* One recvmsg. 1: something came; 0: nothing now (only with MSG_DONTWAIT). */
static int read_some(struct rpc_client *client, bool wait, struct error *err)
{
    size_t room = ARRAY_SIZE(client->fds) - client->fds_count;
    struct pollfd ready = {.fd = client->fd, .events = POLLIN};

    int polled = poll(&ready, 1, wait ? -1 : 0);
    if (polled <= 0)
        return polled < 0 && errno != EINTR ? error_errno(err, errno, "wait for the daemon") : 0;
    buffer_reserve(&client->in, READ_SIZE);
    ssize_t n = socket_receive(client->fd, client->in.data + client->in.length, READ_SIZE,
                               client->fds + client->fds_count, &room);
    if (n == -EAGAIN)
        return 0;
    if (n <= 0) {
        break_connection(client);
        return n < 0 ? error_errno(err, (int)-n, "read the daemon's answer")
                     : error_set(err, -ECONNRESET, "the daemon ended the connection");
    }
    client->fds_count += room;
    client->in.length += (size_t)n;
    client->in.data[client->in.length] = '\0';
    int r = take_lines(client, err);
    return r < 0 ? r : 1;
}

static struct answer **find_answer(struct rpc_client *client, uint64_t id)
{
    struct answer **at = &client->answers;

    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

int rpc_client_ready(struct rpc_client *client, uint64_t id, struct error *err)
{
    while (!*find_answer(client, id)) {
        if (client->fd < 0)
            return error_set(err, -ENOTCONN, "the connection to the daemon is broken");
        int r = read_some(client, false, err);
        if (r <= 0)
            return r;
    }
    return 1;
}

static int take_result(struct answer *answer, const struct json_type *type, void **ret_result,
                       int *ret_fds, size_t *ret_fds_count, struct error *err)
{
    size_t room = ret_fds ? *ret_fds_count : 0;
    void *result = NULL;

    if (answer->fds_count > room)
        return error_set(err, -EPROTO, "the daemon's answer brings %zu descriptors",
                         answer->fds_count);
    if (type) {
        int r = json_parse(type, answer->text, answer->length, NULL, &result, err);
        if (r < 0) {
            error_context(err, "the daemon's answer");
            return -EPROTO;
        }
    }
    if (ret_fds) {
        memcpy(ret_fds, answer->fds, answer->fds_count * sizeof(int));
        *ret_fds_count = answer->fds_count;
        answer->fds_count = 0;
    }
    if (type && ret_result)
        *ret_result = result;
    else if (type)
        json_free(type, result);
    return 0;
}

int rpc_client_receive(struct rpc_client *client, uint64_t id, const struct json_type *result_type,
                       void **ret_result, int *ret_fds, size_t *ret_fds_count, struct error *err)
{
    client->error_code = 0;
    if (id == 0 || id > client->last_id)
        return error_set(err, -EINVAL, "request %llu was not sent", (unsigned long long)id);
    while (!*find_answer(client, id)) {
        if (client->fd < 0)
            return error_set(err, -ENOTCONN, "the connection to the daemon is broken");
        int r = read_some(client, true, err);
        if (r < 0)
            return r;
    }
    struct answer **at = find_answer(client, id), *answer = *at;
    *at = answer->next;
    client->answers_count--;
    int r = answer->is_error
                ? fault_take(&rpc_codec_json, answer->text, answer->length, &client->error_code,
                             NULL, err)
                : take_result(answer, result_type, ret_result, ret_fds, ret_fds_count, err);
    answer_free(answer);
    return r;
}

int rpc_client_call(struct rpc_client *client, const char *method,
                    const struct json_type *params_type, const void *params,
                    const struct json_type *result_type, void **ret_result, const int *fds,
                    size_t fds_count, int *ret_fds, size_t *ret_fds_count, struct error *err)
{
    uint64_t id;

    int r = rpc_client_send(client, method, params_type, params, fds, fds_count, &id, err);
    if (r < 0)
        return r;
    return rpc_client_receive(client, id, result_type, ret_result, ret_fds, ret_fds_count, err);
}
