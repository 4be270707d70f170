#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <schema/cbor.h>
#include <schema/rpc.h>

#include "channel_internal.h"
#include "fault.h"

enum { READ_SIZE = 64 * 1024, READ_ROUNDS = 4 };

#define NS_PER_MS UINT64_C(1000000)

static void close_fds(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close_fd(fds[i]);
}

static void hold(struct rpc_channel *channel)
{
    channel->references++;
}

static void release(struct rpc_channel *channel)
{
    if (--channel->references)
        return;
    while (channel->spare) {
        struct pending *pending = channel->spare;
        channel->spare = pending->next;
        free(pending);
    }
    buffer_finish(&channel->out);
    buffer_finish(&channel->in);
    free(channel->beside);
    free(channel->table);
    free(channel);
}

/* The callback, and the end of the call. Whoever comes here holds the channel. */
static void finish(struct pending *pending, const struct rpc_outcome *outcome)
{
    struct rpc_channel *channel = pending->channel;
    rpc_done done = pending->done;
    void *data = pending->data;

    pending->next = channel->spare;
    channel->spare = pending;
    done(data, outcome);
}

/* A server that has not got a whole request cannot have begun with it. */
static bool is_unsent(const struct pending *pending)
{
    return pending->end > pending->channel->sent_before + pending->channel->sent;
}

static void fail_pending(struct pending *pending, int code, const char *what)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *name = pending->method->name;

    error_set(&err, code, "%s: %s", name, what);
    finish(pending,
           &(struct rpc_outcome){.code = code, .unsent = is_unsent(pending), .error = &err});
}

static void drop_held(struct rpc_channel *channel)
{
    while (channel->held) {
        struct held *held = channel->held;
        channel->held = held->next;
        close_fds(held->fds, held->fds_count);
        buffer_finish(&held->text);
        free(held);
    }
    channel->last_held = &channel->held;
    channel->held_bytes = 0;
}

static void fail_all(struct rpc_channel *channel, int code, const char *what)
{
    for (size_t i = 0; channel->table && i <= channel->mask; i++) {
        while (channel->table[i])
            fail_pending(channel_take_pending(channel, channel->table[i]->number), code, what);
    }
}

static void on_timeout(struct rpc_timer *timer)
{
    struct pending *pending = (struct pending *)((char *)timer - offsetof(struct pending, timer));
    struct rpc_channel *channel = pending->channel;

    hold(channel);
    channel->counts.timeouts++;
    fail_pending(channel_take_pending(channel, pending->number), -ETIMEDOUT, "no answer in time");
    release(channel);
}

static const struct json_method cancel_method = {.name = "rpc.cancel", .params = &rpc_cancel_type};

bool rpc_channel_cancel(struct rpc_channel *channel, int64_t number)
{
    struct pending *pending = channel_take_pending(channel, number);
    char id[24];

    if (!pending)
        return false;
    hold(channel);
    snprintf(id, sizeof(id), "%lld", (long long)number);
    (void)rpc_channel_call(channel, &(struct rpc_call){.method = &cancel_method,
                                                       .params = &(struct rpc_cancel){.id = id}});
    fail_pending(pending, -ECANCELED, "cancelled");
    release(channel);
    return true;
}

/* ---- the end of the connection ---- */

static void let_go(struct rpc_channel *channel)
{
    if (channel->watch.fd < 0)
        return;
    rpc_loop_watch(channel->loop, &channel->watch, 0);
    rpc_loop_unqueue(channel->loop, &channel->flush);
    close(channel->watch.fd);
    channel->watch.fd = -1;
    close_fds(channel->fds, channel->fds_count);
    channel->fds_count = 0;
    for (size_t i = 0; i < channel->beside_count; i++)
        close_fds(channel->beside[i].fds, channel->beside[i].count);
    channel->beside_count = 0;
    drop_held(channel);
}

static void end(struct rpc_channel *channel, int code, const char *what)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (channel->watch.fd < 0)
        return;
    let_go(channel);
    channel->counts.lost += channel->in_flight;
    fail_all(channel, code, what);
    if (channel->closed || !channel->events.ended)
        return;
    error_set(&err, code, "%s", what);
    channel->events.ended(channel->events.data, &err);
}

void rpc_channel_close(struct rpc_channel *channel)
{
    if (!channel)
        return;
    channel->closed = true;
    let_go(channel);
    fail_all(channel, -ECANCELED, "the connection was closed here");
    release(channel);
}

/* ---- out ---- */

/* Up to where one send goes: descriptors belong to the first byte of theirs. */
static size_t next_stop(const struct rpc_channel *channel)
{
    for (size_t i = 0; i < channel->beside_count; i++) {
        if (channel->beside[i].at > channel->sent)
            return channel->beside[i].at;
    }
    return channel->out.length;
}

static void drop_beside(struct rpc_channel *channel)
{
    close_fds(channel->beside[0].fds, channel->beside[0].count);
    channel->beside_count--;
    memmove(channel->beside, channel->beside + 1, channel->beside_count * sizeof(struct beside));
}

/* 0: all is sent; -EAGAIN: the rest later; else the connection is broken. */
static int flush(struct rpc_channel *channel)
{
    while (channel->sent < channel->out.length) {
        const struct beside *beside =
            channel->beside_count && channel->beside[0].at == channel->sent ? &channel->beside[0]
                                                                            : NULL;
        ssize_t n = socket_send(channel->watch.fd, channel->out.data + channel->sent,
                                next_stop(channel) - channel->sent, beside ? beside->fds : NULL,
                                beside ? beside->count : 0);
        if (n < 0)
            return (int)n;
        if (beside)
            drop_beside(channel);
        channel->sent += (size_t)n;
        if (channel->events.metrics)
            rpc_metrics_add(&channel->events.metrics->bytes_out, (uint64_t)n);
    }
    channel->sent_before += channel->sent;
    buffer_clear(&channel->out);
    channel->sent = 0;
    return 0;
}

static void update_watch(struct rpc_channel *channel)
{
    if (channel->watch.fd >= 0)
        rpc_loop_watch(channel->loop, &channel->watch,
                       EPOLLIN | (channel->out.length && !channel->flush.queued ? EPOLLOUT : 0));
}

static void flush_or_end(struct rpc_channel *channel)
{
    int r = channel->watch.fd < 0 ? 0 : flush(channel);

    if (r < 0 && r != -EAGAIN)
        end(channel, -ECONNRESET, "the connection broke");
    update_watch(channel);
}

static void on_flush(struct rpc_task *task)
{
    struct rpc_channel *channel =
        (struct rpc_channel *)((char *)task - offsetof(struct rpc_channel, flush));

    hold(channel);
    flush_or_end(channel);
    release(channel);
}

static int duplicate_fds(const struct rpc_call *call, int *ret)
{
    for (size_t i = 0; i < call->fds_count; i++) {
        ret[i] = fcntl(call->fds[i], F_DUPFD_CLOEXEC, 0);
        if (ret[i] < 0) {
            int r = -errno;
            close_fds(ret, i);
            return r;
        }
    }
    return 0;
}

/* fds are taken over. */
static void add_beside(struct rpc_channel *channel, size_t at, const int *fds, size_t count)
{
    struct beside beside = {.at = at, .count = count};

    if (!count)
        return;
    memcpy(beside.fds, fds, count * sizeof(*fds));
    channel->beside =
        xrealloc(channel->beside, channel->beside_count + 1, sizeof(*channel->beside));
    channel->beside[channel->beside_count++] = beside;
}

static void write_request(struct rpc_channel *channel, const struct rpc_codec *codec,
                          const struct rpc_call *call, struct buffer *out)
{
    struct rpc_head head = {.number = call->done ? channel->last_number : 0,
                            .method = call->method->name,
                            .timeout_ms = call->timeout_ms ? call->timeout_ms : RPC_NO_TIMEOUT,
                            .progress = call->progress && call->done,
                            .params = call->text || (call->method->params && call->params),
                            .fds = call->fds_count};

    if (call->timeout_ms > RPC_TIMEOUT_MAX)
        head.timeout_ms = RPC_NO_TIMEOUT;
    codec->request_begin(out, &head);
    if (call->text)
        codec->write_json(call->text, call->text_length, out);
    else if (head.params)
        codec->write(call->method->params, call->params, out);
    codec->request_end(out, &head);
}

static int hold_request(struct rpc_channel *channel, const struct rpc_call *call)
{
    struct held *held = xnew(struct held);

    held->number = call->done ? channel->last_number : 0;
    held->fds_count = call->fds_count;
    write_request(channel, &rpc_codec_json, call, &held->text);
    int r = held->text.length > RPC_MESSAGE_MAX ? -EFBIG : duplicate_fds(call, held->fds);
    if (r < 0) {
        buffer_finish(&held->text);
        free(held);
        return r;
    }
    *channel->last_held = held;
    channel->last_held = &held->next;
    channel->held_bytes += held->text.length;
    return 0;
}

static int queue_request(struct rpc_channel *channel, const struct rpc_call *call)
{
    size_t start = channel->codec->begin(&channel->out);
    int fds[RPC_FDS_MAX];

    write_request(channel, channel->codec, call, &channel->out);
    channel->codec->end(&channel->out, start);
    int r = channel->out.length - start > RPC_MESSAGE_MAX ? -EFBIG : duplicate_fds(call, fds);
    if (r < 0)
        channel->out.length = start;
    else
        add_beside(channel, start, fds, call->fds_count);
    return r;
}

static void add_call(struct rpc_channel *channel, const struct rpc_call *call)
{
    struct pending *pending = channel_add_pending(channel);

    pending->channel = channel;
    pending->method = call->method;
    pending->done = call->done;
    pending->progress = call->progress;
    pending->data = call->data;
    pending->raw = call->raw;
    pending->end = channel->negotiating ? UINT64_MAX : channel->sent_before + channel->out.length;
    pending->timer = (struct rpc_timer){.callback = on_timeout};
    if (call->timeout_ms)
        rpc_loop_set_timer(channel->loop, &pending->timer,
                           rpc_loop_update_now(channel->loop) + call->timeout_ms * NS_PER_MS);
}

int64_t rpc_channel_call(struct rpc_channel *channel, const struct rpc_call *call)
{
    if (channel->watch.fd < 0)
        return -ENOTCONN;
    if (call->fds_count > RPC_FDS_MAX)
        return -E2BIG;
    if (channel->in_flight >= RPC_CHANNEL_IN_FLIGHT_MAX ||
        channel->out.length - channel->sent + channel->held_bytes > RPC_CHANNEL_QUEUE_MAX)
        return -ENOBUFS;
    channel->last_number += call->done != NULL;
    int r = channel->negotiating ? hold_request(channel, call) : queue_request(channel, call);
    if (r < 0)
        return r;
    channel->counts.calls++;
    if (call->done)
        add_call(channel, call);
    rpc_loop_queue_later(channel->loop, &channel->flush);
    return call->done ? channel->last_number : 0;
}

/* ---- the encoding ---- */

static void send_held(struct rpc_channel *channel)
{
    while (channel->held) {
        struct held *held = channel->held;
        channel->held = held->next;
        size_t start = channel->codec->begin(&channel->out);
        channel->codec->write_json(held->text.data, held->text.length, &channel->out);
        channel->codec->end(&channel->out, start);
        add_beside(channel, start, held->fds, held->fds_count);
        struct pending *pending = channel_find_pending(channel, held->number);
        if (pending)
            pending->end = channel->sent_before + channel->out.length;
        buffer_finish(&held->text);
        free(held);
    }
    drop_held(channel);
    if (channel->out.length)
        rpc_loop_queue_later(channel->loop, &channel->flush);
}

static void on_welcome(void *data, const struct rpc_outcome *outcome)
{
    const struct rpc_welcome *welcome = outcome->result;
    struct rpc_channel *channel = data;

    channel->negotiating = false;
    const struct rpc_codec *codec = welcome ? rpc_codec_find(welcome->encoding) : NULL;
    if (codec)
        channel->codec = codec;
    json_free(&rpc_welcome_type, outcome->result);
    if (channel->watch.fd >= 0)
        send_held(channel);
}

int rpc_channel_negotiate(struct rpc_channel *channel, const char *encoding)
{
    static const struct json_method hello_method = {
        .name = "rpc.hello", .params = &rpc_hello_type, .result = &rpc_welcome_type};
    char *encodings[] = {(char *)(uintptr_t)encoding, (char *)(uintptr_t)rpc_codec_json.name, NULL};
    struct rpc_hello hello = {.encodings = encodings, .encodings_count = 2};

    if (!rpc_codec_find(encoding))
        return -EINVAL;
    if (channel->last_number || channel->counts.calls)
        return -EBUSY;
    int64_t r = rpc_channel_call(channel, &(struct rpc_call){.method = &hello_method,
                                                             .params = &hello,
                                                             .done = on_welcome,
                                                             .data = channel});
    if (r < 0)
        return (int)r;
    channel->negotiating = true;
    return 0;
}

const char *rpc_channel_encoding(const struct rpc_channel *channel)
{
    return channel->codec->name;
}

/* ---- in ---- */

static void take_fault(struct rpc_channel *channel, struct pending *pending,
                       const struct rpc_message *message)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int fault;

    int code = fault_take(channel->codec, message->error.text, message->error.length, &fault, &err);
    channel->counts.faults++;
    finish(pending, &(struct rpc_outcome){.code = code, .fault = fault, .error = &err});
}

/* As JSON, whatever it came as. */
static void take_raw(struct rpc_channel *channel, struct rpc_part part, struct buffer *json,
                     struct rpc_outcome *outcome)
{
    if (channel->codec != &rpc_codec_json) {
        channel->codec->to_json(part, json);
        part = (struct rpc_part){.text = json->data, .length = json->length};
    }
    outcome->text = part.text;
    outcome->text_length = part.length;
}

static void take_result(struct rpc_channel *channel, struct pending *pending,
                        const struct rpc_message *message, int *fds)
{
    const struct json_type *type = pending->method->result;
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_outcome outcome = {.fds = fds, .fds_count = message->fds};

    if (pending->raw) {
        take_raw(channel, message->result, &json, &outcome);
    } else if (type && channel->codec->read(type, message->result.text, message->result.length,
                                            &outcome.result, &err) < 0) {
        error_context(&err, "%s: the answer", pending->method->name);
        outcome = (struct rpc_outcome){.code = -EPROTO, .error = &err};
    }
    channel->counts.answers++;
    finish(pending, &outcome);
}

static void count_late(struct rpc_channel *channel)
{
    channel->counts.late++;
    if (channel->events.metrics)
        rpc_metrics_add(&channel->events.metrics->late, 1);
}

static void take_answer(struct rpc_channel *channel, const struct rpc_message *message, int *fds)
{
    int64_t number = channel->codec->id_number(message->id);

    if (number <= 0 || number > channel->last_number) {
        end(channel, -EPROTO, "an answer came to nothing that was asked");
        return;
    }
    struct pending *pending = channel_take_pending(channel, number);
    if (!pending)
        count_late(channel);
    else if (message->error.text)
        take_fault(channel, pending, message);
    else
        take_result(channel, pending, message, fds);
}

static void take_progress(struct rpc_channel *channel, const struct rpc_message *message)
{
    struct rpc_progress *progress;
    void *value;

    if (channel->codec->read(&rpc_progress_type, message->params.text, message->params.length,
                             &value, NULL) < 0)
        return;
    progress = value;
    struct rpc_part id = {.text = progress->id, .length = strlen(progress->id)};
    const struct pending *pending = channel_find_pending(channel, rpc_codec_json.id_number(id));
    if (pending && pending->progress)
        pending->progress(pending->data, progress);
    rpc_progress_free(progress);
}

static bool is_progress(const struct rpc_message *message)
{
    return message->params.text && message->method.length == strlen("rpc.progress") &&
           memcmp(message->method.text, "rpc.progress", message->method.length) == 0;
}

static void take_notification(struct rpc_channel *channel, const struct rpc_message *message)
{
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;
    struct rpc_part params = message->params;

    if (is_progress(message)) {
        take_progress(channel, message);
        return;
    }
    if (!channel->events.notified)
        return;
    if (params.text && channel->codec != &rpc_codec_json) {
        if (cbor_to_json(params.text, params.length, &json, NULL) < 0) {
            end(channel, -EPROTO, "what came is not understood");
            return;
        }
        params = (struct rpc_part){.text = json.data, .length = json.length};
    }
    channel->events.notified(channel->events.data, message->method.text, message->method.length,
                             params.text, params.length);
}

static void take_message(struct rpc_channel *channel, const struct rpc_message *message)
{
    int fds[RPC_FDS_MAX];

    if (!message->valid || message->fds > channel->fds_count) {
        end(channel, -EPROTO, message->valid ? "descriptors are missing" : message->problem);
        return;
    }
    if (message->fds) {
        memcpy(fds, channel->fds, message->fds * sizeof(int));
        channel->fds_count -= message->fds;
        memmove(channel->fds, channel->fds + message->fds, channel->fds_count * sizeof(int));
    }
    if (!message->method.text)
        take_answer(channel, message, fds);
    else
        take_notification(channel, message);
    close_fds(fds, message->fds);
}

static void take_frame(struct rpc_channel *channel, const char *text, size_t length)
{
    static const struct rpc_bounds bounds = {.depth = RPC_DEPTH_MAX, .batch = RPC_BATCH_MAX};
    struct rpc_frame frame;

    if (channel->codec->parse(text, length, &bounds, &frame, NULL) < 0) {
        end(channel, -EPROTO, "what came is not understood");
        return;
    }
    for (size_t i = 0; i < frame.count && channel->watch.fd >= 0; i++)
        take_message(channel, &frame.messages[i]);
    rpc_frame_finish(&frame);
}

static void take_frames(struct rpc_channel *channel)
{
    struct buffer *in = &channel->in;
    size_t start = 0;

    while (channel->watch.fd >= 0 && start < in->length) {
        struct rpc_span span;
        int r = channel->codec->split(in->data + start, in->length - start, RPC_ANSWER_MAX,
                                      &channel->searched, &span);
        if (r < 0) {
            end(channel, -EPROTO, "an answer is too long");
            break;
        }
        if (r == 0)
            break;
        start += span.consumed;
        if (span.length)
            take_frame(channel, span.text, span.length);
    }
    buffer_consume(in, start);
}

/* Bytes read, 0: not now, negative: no more. */
static ssize_t read_some(struct rpc_channel *channel)
{
    size_t room = CHANNEL_FDS_MAX - channel->fds_count;
    struct buffer *in = &channel->in;

    if (room > SOCKET_FDS_MAX)
        room = SOCKET_FDS_MAX;
    buffer_reserve(in, READ_SIZE);
    ssize_t n = socket_receive(channel->watch.fd, in->data + in->length, READ_SIZE,
                               channel->fds + channel->fds_count, &room);
    if (n <= 0)
        return n == -EAGAIN ? 0 : n < 0 ? n : -ECONNRESET;
    channel->fds_count += room;
    if (channel->events.metrics)
        rpc_metrics_add(&channel->events.metrics->bytes_in, (uint64_t)n);
    in->length += (size_t)n;
    in->data[in->length] = '\0';
    return n;
}

static void on_readable(struct rpc_channel *channel)
{
    for (int round = 0; round < READ_ROUNDS && channel->watch.fd >= 0; round++) {
        ssize_t n = read_some(channel);
        if (n == 0)
            return;
        if (n < 0) {
            end(channel, -ECONNRESET, "the server ended the connection");
            return;
        }
        take_frames(channel);
        if (n < READ_SIZE)
            return;
    }
}

static void on_event(struct rpc_watch *watch, uint32_t events)
{
    struct rpc_channel *channel =
        (struct rpc_channel *)((char *)watch - offsetof(struct rpc_channel, watch));

    hold(channel);
    if (events & EPOLLOUT)
        flush_or_end(channel);
    if (channel->watch.fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        on_readable(channel);
    release(channel);
}

/* ---- */

int rpc_channel_open(struct rpc_loop *loop, int fd, const struct rpc_channel_events *events,
                     struct rpc_channel **ret, struct error *err)
{
    struct rpc_channel *channel = xnew(struct rpc_channel);

    channel->loop = loop;
    channel->references = 1;
    channel->codec = &rpc_codec_json;
    channel->last_held = &channel->held;
    channel->watch = (struct rpc_watch){.fd = fd, .callback = on_event};
    channel->flush.callback = on_flush;
    if (events)
        channel->events = *events;
    int r = socket_set_nonblocking(fd);
    if (r == 0)
        r = rpc_loop_watch(loop, &channel->watch, EPOLLIN);
    if (r < 0) {
        close(fd);
        free(channel);
        return error_errno(err, -r, "watch the connection");
    }
    *ret = channel;
    return 0;
}

bool rpc_channel_is_open(const struct rpc_channel *channel)
{
    return channel->watch.fd >= 0;
}

bool rpc_channel_is_unsent(struct rpc_channel *channel, int64_t number)
{
    const struct pending *pending = channel_find_pending(channel, number);

    return pending && is_unsent(pending);
}

struct rpc_channel_counts rpc_channel_counts(const struct rpc_channel *channel)
{
    struct rpc_channel_counts counts = channel->counts;

    counts.in_flight = channel->in_flight;
    counts.bytes_queued = channel->out.length - channel->sent;
    return counts;
}
