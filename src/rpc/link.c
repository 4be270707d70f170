/*
 * A connection that one thread has for itself: it writes a request and reads until the answer has
 * come, two system calls in all when nothing is in the way, and a few more when answers come so
 * soon that they are watched for.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <schema/cbor.h>
#include <schema/rpc.h>

#include "codec.h"
#include "fault.h"
#include "pool.h"

enum {
    READ_SIZE = 16 * 1024,
    KEPT = 256 * 1024, /* a larger buffer is given back after the call */
    SPIN_NS = 25 * 1000,
    SPIN_STEP_MAX = 1024, /* calls */
};

static void close_fds(struct cloche_connection *link)
{
    for (size_t i = 0; i < link->fds_count; i++)
        close_fd(link->fds[i]);
    link->fds_count = 0;
}

/* Under the lock there is a descriptor or there is none: somebody may be about to shut it down. */
static void close_link(struct cloche_connection *link)
{
    client_lock(link->endpoint->client);
    int fd = steal_fd(&link->fd);
    client_unlock(link->endpoint->client);
    close_fd(fd);
}

static int break_link(struct cloche_connection *link, int code, struct error *err, const char *what)
{
    close_link(link);
    close_fds(link);
    return error_set(err, code, "%s: %s", link->endpoint->name, what);
}

void link_close(struct cloche_connection *link)
{
    if (!link)
        return;
    close_fd(link->fd);
    close_fds(link);
    buffer_finish(&link->in);
    buffer_finish(&link->out);
    free(link);
}

/* ---- out ---- */

/* 0: perhaps, -ETIMEDOUT, or -errno. */
static int wait_writable(struct cloche_connection *link, uint64_t deadline)
{
    struct pollfd ready = {.fd = link->fd, .events = POLLOUT};

    if (deadline != NEVER && deadline <= monotonic_now())
        return -ETIMEDOUT;
    return poll(&ready, 1, poll_ms(deadline)) < 0 && errno != EINTR ? -errno : 0;
}

/* Bytes sent, or -errno. Descriptors go with the first byte. */
static ssize_t send_some(struct cloche_connection *link, size_t at, const struct link_call *call)
{
    const char *data = link->out.data + at;
    size_t length = link->out.length - at;

    if (at == 0 && call->fds_count)
        return socket_send_now(link->fd, data, length, call->fds, call->fds_count);
    ssize_t n;
    do
        n = send(link->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* 0: it is on its way, or the server has ended the connection, and may have said why: what it said
 * is there to be read. */
static int send_request(struct cloche_connection *link, struct link_call *call, struct error *err)
{
    size_t at = 0;

    while (at < link->out.length) {
        ssize_t n = send_some(link, at, call);
        if (n >= 0) {
            at += (size_t)n;
            continue;
        }
        /* Too many descriptors of this user are in flight (unix(7)): it is us. */
        if (n == -ETOOMANYREFS || is_exhaustion((int)n))
            return break_link(link, (int)n, err, strerror((int)-n));
        int r = n == -EAGAIN ? wait_writable(link, call->deadline) : -ECONNRESET;
        if (r == -ETIMEDOUT)
            return break_link(link, r, err, "the request was not taken in time");
        if (r < 0)
            return 0;
    }
    call->unsent = false;
    rpc_metrics_add(&link->endpoint->client->metrics.bytes_out, at);
    return 0;
}

/* What is left of the deadline goes along. */
static uint64_t time_left(uint64_t deadline)
{
    uint64_t now = deadline == NEVER ? 0 : monotonic_now();

    if (deadline == NEVER)
        return RPC_NO_TIMEOUT;
    uint64_t ms = deadline > now ? (deadline - now) / NS_PER_MS + 1 : 1;
    return ms > RPC_TIMEOUT_MAX ? RPC_NO_TIMEOUT : ms;
}

static void write_request(struct cloche_connection *link, const struct link_call *call)
{
    const struct rpc_codec *codec = link->codec;
    struct buffer *out = &link->out;
    const struct rpc_head head = {.number = link->last_number,
                                  .method = call->method->name,
                                  .timeout_ms = time_left(call->deadline),
                                  .progress = call->progress != NULL,
                                  .params = call->text || (call->params && call->method->params),
                                  .fds = call->fds_count};

    buffer_clear(out);
    size_t mark = codec->begin(out);
    codec->request_begin(out, &head);
    if (call->text)
        codec->write_json(call->text, strlen(call->text), out);
    else if (head.params)
        codec->write(call->method->params, call->params, out);
    codec->request_end(out, &head);
    codec->end(out, mark);
}

/* ---- in ---- */

/* Rounded up before it is split: a second of microseconds would be none (socket(7), EDOM). */
struct timeval link_wait(uint64_t ns)
{
    uint64_t us = ns / 1000 + (ns % 1000 != 0);

    return (struct timeval){.tv_sec = (time_t)(us / 1000000),
                            .tv_usec = (suseconds_t)(us % 1000000)};
}

/* The receive time-out is the socket's, and costs a system call only when it has to be another: a
 * call that may wait for longer than the socket waits for takes several turns. It is set to a part
 * of what is left, so that the next call, with the same time-out and a little less of it left,
 * finds it short enough. */
static int set_wait(struct cloche_connection *link, uint64_t left, bool again)
{
    bool enough = left == NEVER ? link->wait_ns == 0 : link->wait_ns && link->wait_ns <= left;

    if (enough && !again)
        return 0;
    uint64_t wait = left == NEVER ? 0 : again ? left : left - left / 8;
    const struct timeval value = link_wait(wait);
    if (setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value)) < 0)
        return -errno;
    link->wait_ns = wait;
    return 0;
}

static int receive_failed(struct cloche_connection *link, ssize_t n, struct error *err)
{
    if (n == -EMFILE)
        return break_link(link, -EMFILE, err, "no descriptor is left for those of the answer");
    if (n == -EMSGSIZE)
        return break_link(link, -EPROTO, err, "too many descriptors came");
    return break_link(link, -ECONNRESET, err, "the server ended the connection");
}

/* Whether this call is one to spin for. */
static bool may_spin(struct cloche_connection *link)
{
    if (!link->endpoint->client->may_spin)
        return false;
    if (link->spin_pause == 0)
        return true;
    link->spin_pause--;
    return false;
}

/* An answer that comes within microseconds is not worth to be put to sleep and woken for, which
 * takes both sides longer than this. As soon as one did not come so soon, this is left out: for a
 * call, then for two, for four ... -EAGAIN: not yet. */
static ssize_t receive_soon(struct cloche_connection *link, size_t *room)
{
    struct buffer *in = &link->in;
    uint64_t until = monotonic_now() + SPIN_NS;
    const size_t most = *room;
    ssize_t n;

    do {
        *room = most;
        n = socket_receive_now(link->fd, in->data + in->length, READ_SIZE,
                               link->fds + link->fds_count, room);
    } while (n == -EAGAIN && monotonic_now() < until);
    if (n != -EAGAIN) {
        link->spin_step = 0;
        return n;
    }
    link->spin_step = link->spin_step ? 2 * link->spin_step : 1;
    if (link->spin_step > SPIN_STEP_MAX)
        link->spin_step = SPIN_STEP_MAX;
    link->spin_pause = link->spin_step;
    *room = most;
    return n;
}

static int take_bytes(struct cloche_connection *link, ssize_t n, size_t room, struct error *err)
{
    if (n <= 0)
        return receive_failed(link, n, err);
    link->fds_count += room;
    link->in.length += (size_t)n;
    link->in.data[link->in.length] = '\0';
    rpc_metrics_add(&link->endpoint->client->metrics.bytes_in, (uint64_t)n);
    return 0;
}

/* 0, -ETIMEDOUT (what was to be waited for is over), or what broke. */
static int receive_some(struct cloche_connection *link, uint64_t deadline, struct error *err)
{
    struct buffer *in = &link->in;
    size_t room = ARRAY_SIZE(link->fds) - link->fds_count;
    const size_t most = room < RPC_FDS_MAX ? room : RPC_FDS_MAX;

    buffer_reserve(in, READ_SIZE);
    room = most;
    ssize_t n = may_spin(link) ? receive_soon(link, &room) : -EAGAIN;
    for (bool again = false; n == -EAGAIN || n == -EINTR; again = true) {
        uint64_t left = NEVER;
        if (deadline != NEVER) {
            uint64_t now = monotonic_now();
            if (now >= deadline)
                return error_set(err, -ETIMEDOUT, "no answer in time");
            left = deadline - now;
        }
        if (set_wait(link, left, again) < 0)
            return break_link(link, -ECONNRESET, err, "the time to wait cannot be set");
        room = most;
        n = socket_receive_once(link->fd, in->data + in->length, READ_SIZE,
                                link->fds + link->fds_count, &room);
    }
    return take_bytes(link, n, room, err);
}

/* Not all that CBOR has can be said in JSON. */
static int take_raw(struct cloche_connection *link, struct rpc_part part, void **ret,
                    struct error *err)
{
    struct buffer json = BUFFER_INIT;

    if (link->codec == &rpc_codec_json) {
        *ret = xstrndup(part.text, part.length);
        return 0;
    }
    int r = cbor_to_json(part.text, part.length, &json, err);
    if (r == 0)
        *ret = buffer_steal(&json);
    else
        buffer_finish(&json);
    return r;
}

static int take_result(struct cloche_connection *link, const struct rpc_message *message,
                       struct link_call *call, struct error *err)
{
    size_t room = call->ret_fds ? *call->ret_fds_count : 0;
    int r = 0;

    if (message->fds > room)
        return error_set(err, -EPROTO, "%s: the answer brings %zu descriptors", call->method->name,
                         message->fds);
    if (call->result && call->raw)
        r = take_raw(link, message->result, call->result, err);
    else if (call->result && call->method->result)
        r = link->codec->read(call->method->result, message->result.text, message->result.length,
                              call->result, err);
    if (r < 0)
        return fault_misread(err, call->method->name);
    if (call->ret_fds) {
        memcpy(call->ret_fds, link->fds, message->fds * sizeof(int));
        *call->ret_fds_count = message->fds;
        for (size_t i = 0; i < message->fds; i++)
            link->fds[i] = -1;
    }
    return 0;
}

/* Of the call that is being made; other notifications are nobody's. */
static void take_progress(struct cloche_connection *link, const struct rpc_message *message,
                          const struct link_call *call)
{
    void *value;

    if (!call->progress || !message->params.text ||
        message->method.length != strlen("rpc.progress") ||
        memcmp(message->method.text, "rpc.progress", message->method.length) != 0 ||
        link->codec->read(&rpc_progress_type, message->params.text, message->params.length, &value,
                          NULL) < 0)
        return;
    const struct rpc_progress *progress = value;
    const struct rpc_part id = {.text = progress->id, .length = strlen(progress->id)};
    const struct cloche_progress shown = show_progress(progress);
    if (rpc_codec_json.id_number(id) == link->last_number)
        call->progress(call->progress_data, &shown);
    rpc_progress_free(value);
}

/* In either encoding. */
static bool is_null(struct rpc_part id)
{
    return (id.length == 4 && memcmp(id.text, "null", 4) == 0) ||
           (id.length == 1 && (unsigned char)id.text[0] == CBOR_NULL);
}

/* An error that names no request is about the only one that there is: it was too long, say, or the
 * connection is one too many. The server has not begun with it, and the connection goes. */
static bool is_refusal(const struct cloche_connection *link, const struct rpc_message *message)
{
    return message->error.text && link->owed == 0 && message->id.text && is_null(message->id);
}

static void drop_fds(struct cloche_connection *link, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close_fd(link->fds[i]);
    link->fds_count -= count;
    memmove(link->fds, link->fds + count, link->fds_count * sizeof(int));
}

static int take_fault(struct cloche_connection *link, const struct rpc_message *message,
                      struct link_call *call, struct error *err)
{
    return fault_take(link->codec, message->error.text, message->error.length, &call->fault,
                      &call->details, err);
}

/* 1: it was the answer (*ret is what came of it); 0: something else; -EPROTO. call NULL: none is
 * waited for. */
static int take_answer(struct cloche_connection *link, const struct rpc_message *message,
                       struct link_call *call, int *ret, struct error *err)
{
    int64_t number = link->codec->id_number(message->id);

    if (call && is_refusal(link, message)) {
        *ret = take_fault(link, message, call, err);
        call->answered = call->refused = call->unsent = true;
        break_link(link, 0, NULL, "");
        return 1;
    }
    if (number <= 0 || number > link->last_number)
        return break_link(link, -EPROTO, err, "an answer came to nothing that was asked");
    if (!call || number < link->last_number) {
        /* Its call did not wait for it, or has had one: there are servers that answer twice. */
        link->owed -= link->owed > 0;
        rpc_metrics_add(&link->endpoint->client->metrics.late, 1);
        return 0;
    }
    call->answered = true;
    *ret = message->error.text ? take_fault(link, message, call, err)
                               : take_result(link, message, call, err);
    return 1;
}

static int take_message(struct cloche_connection *link, const struct rpc_message *message,
                        struct link_call *call, int *ret, struct error *err)
{
    int done = 0;

    if (!message->valid || message->fds > link->fds_count)
        return break_link(link, -EPROTO, err,
                          message->valid ? "descriptors are missing" : message->problem);
    if (!message->method.text)
        done = take_answer(link, message, call, ret, err);
    else if (call)
        take_progress(link, message, call);
    if (link->fd >= 0)
        drop_fds(link, message->fds);
    return done;
}

static int take_frame(struct cloche_connection *link, const char *text, size_t length,
                      struct link_call *call, int *ret, struct error *err)
{
    static const struct rpc_bounds bounds = {.depth = RPC_DEPTH_MAX, .batch = RPC_BATCH_MAX};
    struct rpc_frame frame;
    int done = 0;
    size_t i;

    if (link->codec->parse(text, length, &bounds, &frame, NULL) < 0)
        return break_link(link, -EPROTO, err, "what came is not understood");
    for (i = 0; done == 0 && i < frame.count; i++)
        done = take_message(link, &frame.messages[i], call, ret, err);
    /* Nothing that was asked for comes behind the answer in the same piece. */
    if (done > 0 && i < frame.count && link->fd >= 0)
        break_link(link, 0, NULL, "");
    rpc_frame_finish(&frame);
    return done;
}

/* What has come so far, message by message, up to the answer: what is behind it is looked at before
 * the next call. 1: the answer was there, 0: more is needed; -EPROTO. */
static int take_frames(struct cloche_connection *link, struct link_call *call, int *ret,
                       struct error *err)
{
    struct buffer *in = &link->in;
    size_t start = 0;
    int done = 0;

    while (done == 0 && start < in->length) {
        struct rpc_span span;
        int r = link->codec->split(in->data + start, in->length - start, RPC_ANSWER_MAX,
                                   &link->searched, &span);
        if (r < 0)
            done = break_link(link, -EPROTO, err, "an answer is too long");
        if (r <= 0)
            break;
        start += span.consumed;
        if (span.length)
            done = take_frame(link, span.text, span.length, call, ret, err);
    }
    buffer_consume(in, start);
    return done;
}

static int receive_answer(struct cloche_connection *link, struct link_call *call, struct error *err)
{
    int answer = 0;

    for (;;) {
        int r = receive_some(link, call->deadline, err);
        if (r == 0)
            r = take_frames(link, call, &answer, err);
        if (r == -ETIMEDOUT && ++link->owed > OWED_MAX)
            break_link(link, 0, NULL, "too many answers are owed");
        if (r < 0)
            return r;
        if (r > 0)
            return answer;
    }
}

/* What came behind the last answer. */
static int take_rest(struct cloche_connection *link, struct error *err)
{
    if (link->in.length && take_frames(link, NULL, NULL, err) < 0)
        return -ECONNRESET;
    return 0;
}

bool link_is_stale(struct cloche_connection *link)
{
    char byte;

    if (link->fd < 0)
        return true;
    ssize_t n = recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

int link_call(struct cloche_connection *link, struct link_call *call, struct error *err)
{
    call->unsent = true;
    call->answered = call->refused = false;
    call->fault = 0;
    if (link->fd < 0)
        return error_set(err, -ECONNRESET, "%s: the connection is broken", link->endpoint->name);
    if (take_rest(link, err) < 0)
        return -ECONNRESET;
    if (call->fds_count > RPC_FDS_MAX ||
        (call->fds_count && !link->endpoint->address.transport->passes_fds))
        return error_set(err, -E2BIG, "%s: %zu descriptors cannot be sent to %s",
                         call->method->name, call->fds_count, link->endpoint->name);
    link->last_number++;
    write_request(link, call);
    if (link->out.length > RPC_MESSAGE_MAX)
        return error_set(err, -EFBIG, "%s: the request is longer than %d bytes", call->method->name,
                         RPC_MESSAGE_MAX);
    int r = send_request(link, call, err);
    if (r == 0)
        r = receive_answer(link, call, err);
    if (link->in.length == 0 && link->in.capacity > KEPT)
        buffer_finish(&link->in);
    if (link->out.capacity > KEPT)
        buffer_finish(&link->out);
    return r;
}

/* ---- making one ---- */

/* The encoding that the settings want; a server that does not know it is spoken to in JSON. */
static int negotiate(struct cloche_connection *link, const char *encoding, uint64_t deadline,
                     struct error *err)
{
    static const struct json_method hello_method = {
        .name = "rpc.hello", .params = &rpc_hello_type, .result = &rpc_welcome_type};
    char *encodings[] = {(char *)(uintptr_t)encoding, (char *)(uintptr_t)rpc_codec_json.name, NULL};
    struct rpc_hello hello = {.encodings = encodings, .encodings_count = 2};
    void *result = NULL;
    struct link_call call = {
        .method = &hello_method, .params = &hello, .deadline = deadline, .result = &result};

    int r = link_call(link, &call, err);
    fault_details_finish(&call.details);
    if (r < 0)
        return call.fault && link->fd >= 0 ? 0 : r;
    const struct rpc_welcome *welcome = result;
    const struct rpc_codec *codec = rpc_codec_find(welcome->encoding);
    if (codec)
        link->codec = codec;
    rpc_welcome_free(result);
    return 0;
}

int link_open(struct endpoint *endpoint, uint64_t deadline, struct cloche_connection **ret,
              struct error *err)
{
    const struct cloche_client_settings *settings = &endpoint->client->settings;
    uint64_t now = monotonic_now(), limit = settings->connect_timeout_ms;

    if (deadline != NEVER && deadline <= now)
        return error_set(err, -ETIMEDOUT, "no connection in time");
    if (deadline != NEVER && (deadline - now) / NS_PER_MS < limit)
        limit = (deadline - now) / NS_PER_MS + 1;
    int r = endpoint->address.transport->connect(&endpoint->address, limit, err);
    if (r < 0) {
        error_context(err, "%s", endpoint->name);
        return r;
    }
    struct cloche_connection *link = xnew(struct cloche_connection);
    link->endpoint = endpoint;
    link->codec = &rpc_codec_json;
    link->fd = r;
    r = settings->encoding == CLOCHE_ENCODING_CBOR
            ? negotiate(link, rpc_codec_cbor.name, deadline, err)
            : 0;
    if (r < 0) {
        link_close(link);
        return r;
    }
    link->fresh = true;
    *ret = link;
    return 0;
}
