/*
 * What a channel receives: bytes, descriptors, messages; and whose they are.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <schema/cbor.h>
#include <schema/rpc.h>

#include "channel_internal.h"
#include "fault.h"

enum { READ_SIZE = 64 * 1024, READ_ROUNDS = 4 };

static void take_fault(struct rpc_channel *channel, struct pending *pending,
                       const struct rpc_message *message)
{
    _cleanup_fault_details_ struct fault_details details = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    int fault;

    int code = fault_take(channel->codec, message->error.text, message->error.length, &fault,
                          &details, &err);
    channel->counts.faults++;
    if (!fault)
        code = err.code = -EPROTO;
    channel_finish(pending, &(struct rpc_outcome){.code = code,
                                                  .fault = fault,
                                                  .what = details.what,
                                                  .where = details.where,
                                                  .answered = true,
                                                  .error = &err});
}

/* An error that names no call, since the server could not read which it was: too long, too deep. If
 * there is but one, it is that one's answer; else nobody knows whose, and all that the server has
 * end with its words. */
static void take_nobodys_fault(struct rpc_channel *channel, const struct rpc_message *message)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct pending *only =
        channel->in_flight == 1 && !channel->owed ? channel_any_pending(channel) : NULL;
    int fault;

    if (only) {
        take_fault(channel, channel_take_pending(channel, only->number), message);
        return;
    }
    int code =
        fault_take(channel->codec, message->error.text, message->error.length, &fault, NULL, &err);
    channel_end(channel, &(struct channel_end){.code = fault ? code : -EPROTO,
                                               .fault = fault,
                                               .what = error_message(&err),
                                               .hint = err.hint});
}

static void nonsense(struct rpc_channel *channel, const char *what)
{
    channel_end(channel, &(struct channel_end){.code = -EPROTO, .what = what});
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
    struct rpc_outcome outcome = {.fds = fds, .fds_count = message->fds, .answered = true};

    if (pending->raw) {
        take_raw(channel, message->result, &json, &outcome);
    } else if (type && channel->codec->read(type, message->result.text, message->result.length,
                                            &outcome.result, &err) < 0) {
        error_context(&err, "%s: the answer", pending->method->name);
        outcome = (struct rpc_outcome){.code = -EPROTO, .answered = true, .error = &err};
    }
    channel->counts.answers++;
    channel_finish(pending, &outcome);
}

static void count_late(struct rpc_channel *channel)
{
    channel->counts.late++;
    if (channel->events.metrics)
        rpc_metrics_add(&channel->events.metrics->late, 1);
    if (!channel->owed)
        return; /* the second to the same call */
    channel->owed--;
    channel->owed_since = rpc_loop_now(channel->loop);
    if (channel->events.has_room)
        channel->events.has_room(channel->events.data);
}

static bool names_no_call(const struct rpc_channel *channel, struct rpc_part id)
{
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;

    channel->codec->to_json(id, &json);
    return text_equal(buffer_text(&json), "null");
}

static void take_answer(struct rpc_channel *channel, const struct rpc_message *message, int *fds)
{
    int64_t number = channel->codec->id_number(message->id);

    if (number <= 0 && message->error.text && names_no_call(channel, message->id)) {
        take_nobodys_fault(channel, message);
        return;
    }
    if (number <= 0 || number > channel->last_number) {
        nonsense(channel, "an answer came to nothing that was asked");
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
            nonsense(channel, "what came is not understood");
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
        nonsense(channel, message->valid ? "descriptors are missing" : message->problem);
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
    for (size_t i = 0; i < message->fds; i++)
        close_fd(fds[i]);
}

static void take_frame(struct rpc_channel *channel, const char *text, size_t length)
{
    static const struct rpc_bounds bounds = {.depth = RPC_DEPTH_MAX, .batch = RPC_BATCH_MAX};
    struct rpc_frame frame;

    if (channel->codec->parse(text, length, &bounds, &frame, NULL) < 0) {
        nonsense(channel, "what came is not understood");
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
            nonsense(channel, "an answer is too long");
            break;
        }
        if (r == 0)
            break;
        start += span.consumed;
        if (span.length)
            take_frame(channel, span.text, span.length);
    }
    buffer_consume(in, start);
    if (!in->length && in->capacity > CHANNEL_KEPT)
        buffer_finish(in);
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
    channel->heard++;
    if (channel->events.metrics)
        rpc_metrics_add(&channel->events.metrics->bytes_in, (uint64_t)n);
    in->length += (size_t)n;
    in->data[in->length] = '\0';
    return n;
}

/* It is us, but what came is lost. */
static const struct channel_end no_descriptors = {
    .code = -EMFILE, .what = "no descriptors are left for those that came"};
static const struct channel_end ended_there = {.code = -ECONNRESET,
                                               .what = "the server ended the connection"};

void channel_read(struct rpc_channel *channel)
{
    for (int round = 0; round < READ_ROUNDS && channel->watch.fd >= 0; round++) {
        ssize_t n = read_some(channel);
        if (n == 0)
            return;
        if (n < 0) {
            channel_end(channel, n == -EMFILE ? &no_descriptors : &ended_there);
            return;
        }
        take_frames(channel);
        if (n < READ_SIZE)
            return;
    }
}
