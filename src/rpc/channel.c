#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <schema/rpc.h>

#include "channel_internal.h"

#define NS_PER_MS UINT64_C(1000000)

static void close_fds(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close_fd(fds[i]);
}

void channel_hold(struct rpc_channel *channel)
{
    channel->references++;
}

void channel_release(struct rpc_channel *channel)
{
    if (--channel->references)
        return;
    while (channel->spare) {
        struct pending *pending = channel->spare;
        channel->spare = pending->next;
        free(pending);
    }
    output_finish(&channel->out);
    buffer_finish(&channel->in);
    free(channel->table);
    free(channel);
}

void channel_finish(struct pending *pending, const struct rpc_outcome *outcome)
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
    return pending->held || pending->end > output_sent(&pending->channel->out);
}

static void fail_pending(struct pending *pending, const struct channel_end *why, bool unsent)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_outcome outcome = {.code = why->code, .unsent = unsent, .error = &err};

    if (why->fault && !unsent) {
        outcome.fault = why->fault;
        outcome.answered = true;
    }
    outcome.heard = pending->heard != pending->channel->heard;
    error_set(&err, why->code, "%s: %s", pending->method->name, why->what);
    if (why->hint)
        error_hint(&err, "%s", why->hint);
    channel_finish(pending, &outcome);
}

/* ---- what waits for the encoding ---- */

static void free_held(struct held *held)
{
    close_fds(held->fds, held->fds_count);
    buffer_finish(&held->text);
    free(held);
}

static void drop_held(struct rpc_channel *channel)
{
    while (channel->held) {
        struct held *held = channel->held;
        channel->held = held->next;
        free_held(held);
    }
    channel->last_held = &channel->held;
    channel->held_bytes = 0;
}

static void drop_held_call(struct rpc_channel *channel, int64_t number)
{
    struct held **at = &channel->held;

    while (*at && (*at)->number != number)
        at = &(*at)->next;
    struct held *held = *at;
    if (!held)
        return;
    *at = held->next;
    if (channel->last_held == &held->next)
        channel->last_held = at;
    channel->held_bytes -= held->text.length;
    free_held(held);
}

/* ---- the end of a call by our side ---- */

/* Nobody waits for it any more: nothing of it is sent, if nothing is yet. Else an answer is owed.
 * True: the server will not get it. */
static bool withdraw(struct rpc_channel *channel, const struct pending *pending)
{
    if (pending->held) {
        drop_held_call(channel, pending->number);
        return true;
    }
    if (pending->start >= output_sent(&channel->out)) {
        output_cut(&channel->out, pending->start, pending->end);
        return true;
    }
    if (channel->owed++ == 0)
        channel->owed_since = rpc_loop_now(channel->loop);
    return false;
}

static void on_timeout(struct rpc_timer *timer)
{
    static const struct channel_end why = {.code = -ETIMEDOUT, .what = "no answer in time"};
    struct pending *pending = (struct pending *)((char *)timer - offsetof(struct pending, timer));
    struct rpc_channel *channel = pending->channel;

    channel_hold(channel);
    channel->counts.timeouts++;
    channel_take_pending(channel, pending->number);
    fail_pending(pending, &why, withdraw(channel, pending));
    channel_release(channel);
}

static const struct json_method cancel_method = {.name = "rpc.cancel", .params = &rpc_cancel_type};

static void tell_cancelled(struct rpc_channel *channel, int64_t number)
{
    char id[24];

    snprintf(id, sizeof(id), "%lld", (long long)number);
    (void)rpc_channel_call(channel, &(struct rpc_call){.method = &cancel_method,
                                                       .params = &(struct rpc_cancel){.id = id}});
}

bool rpc_channel_cancel(struct rpc_channel *channel, int64_t number)
{
    static const struct channel_end why = {.code = -ECANCELED, .what = "cancelled"};
    struct pending *pending = channel_take_pending(channel, number);

    if (!pending)
        return false;
    channel_hold(channel);
    bool withdrawn = withdraw(channel, pending);
    if (!withdrawn)
        tell_cancelled(channel, number);
    fail_pending(pending, &why, withdrawn);
    channel_release(channel);
    return true;
}

/* ---- the end of the connection ---- */

static void fail_all(struct rpc_channel *channel, const struct channel_end *why)
{
    for (size_t i = 0; channel->table && i <= channel->mask; i++) {
        struct pending *pending;
        while ((pending = channel->table[i])) {
            channel_take_pending(channel, pending->number);
            fail_pending(pending, why, is_unsent(pending));
        }
    }
}

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
    output_drop(&channel->out);
    drop_held(channel);
}

void channel_end(struct rpc_channel *channel, const struct channel_end *why)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (channel->watch.fd < 0)
        return;
    channel->ended = why->code;
    let_go(channel);
    channel->counts.lost += channel->in_flight;
    fail_all(channel, why);
    if (channel->closed || !channel->events.ended)
        return;
    error_set(&err, why->code, "%s", why->what);
    if (why->hint)
        error_hint(&err, "%s", why->hint);
    channel->events.ended(channel->events.data, &err);
}

void rpc_channel_close(struct rpc_channel *channel)
{
    static const struct channel_end why = {.code = -ECANCELED,
                                           .what = "the connection was closed here"};

    if (!channel)
        return;
    channel->closed = true;
    let_go(channel);
    fail_all(channel, &why);
    channel_release(channel);
}

/* ---- out ---- */

static void update_watch(struct rpc_channel *channel)
{
    if (channel->watch.fd >= 0)
        rpc_loop_watch(channel->loop, &channel->watch,
                       EPOLLIN |
                           (output_length(&channel->out) && !channel->flush.queued ? EPOLLOUT : 0));
}

/* Too many descriptors of this user are on their way already (unix(7)): not the server's fault. */
static bool fail_first_fds(struct rpc_channel *channel)
{
    static const struct channel_end why = {.code = -ETOOMANYREFS,
                                           .what = "too many descriptors are on their way already"};
    struct pending *pending = channel_take_pending(channel, channel->out.beside[0].number);

    if (!pending)
        return false;
    output_cut(&channel->out, pending->start, pending->end);
    fail_pending(pending, &why, true);
    return true;
}

static void flush_or_end(struct rpc_channel *channel)
{
    static const struct channel_end broke = {.code = -ECONNRESET, .what = "the connection broke"};
    int r = 0;

    do {
        if (channel->watch.fd >= 0)
            r = output_flush(&channel->out, channel->watch.fd, channel->events.metrics);
    } while (r == -ETOOMANYREFS && channel->watch.fd >= 0 && fail_first_fds(channel));
    if (r < 0 && r != -EAGAIN)
        channel_end(channel, &broke);
    update_watch(channel);
}

static void on_flush(struct rpc_task *task)
{
    struct rpc_channel *channel =
        (struct rpc_channel *)((char *)task - offsetof(struct rpc_channel, flush));

    channel_hold(channel);
    flush_or_end(channel);
    channel_release(channel);
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
    struct output_queue *out = &channel->out;
    uint64_t at = output_end(out);
    size_t length = out->data.length, start = channel->codec->begin(&out->data);
    int fds[RPC_FDS_MAX];

    write_request(channel, channel->codec, call, &out->data);
    channel->codec->end(&out->data, start);
    int r = out->data.length - length > channel->message_max ? -EFBIG : duplicate_fds(call, fds);
    if (r < 0)
        out->data.length = length;
    else
        output_add_fds(out, at, call->done ? channel->last_number : 0, fds, call->fds_count);
    return r;
}

static void add_call(struct rpc_channel *channel, const struct rpc_call *call, uint64_t start)
{
    struct pending *pending = channel_add_pending(channel);

    pending->channel = channel;
    pending->method = call->method;
    pending->done = call->done;
    pending->progress = call->progress;
    pending->data = call->data;
    pending->raw = call->raw;
    pending->held = channel->negotiating;
    pending->start = start;
    pending->end = output_end(&channel->out);
    pending->heard = channel->heard;
    pending->timer = (struct rpc_timer){.callback = on_timeout};
    if (call->timeout_ms)
        rpc_loop_set_timer(channel->loop, &pending->timer,
                           rpc_loop_update_now(channel->loop) + call->timeout_ms * NS_PER_MS);
}

int64_t rpc_channel_call(struct rpc_channel *channel, const struct rpc_call *call)
{
    uint64_t start = output_end(&channel->out);

    if (channel->watch.fd < 0)
        return -ENOTCONN;
    if (call->fds_count > RPC_FDS_MAX)
        return -E2BIG;
    if (channel->in_flight >= RPC_CHANNEL_IN_FLIGHT_MAX ||
        output_length(&channel->out) + channel->held_bytes > RPC_CHANNEL_QUEUE_MAX)
        return -ENOBUFS;
    channel->last_number += call->done != NULL;
    int r = channel->negotiating ? hold_request(channel, call) : queue_request(channel, call);
    if (r < 0)
        return r;
    channel->counts.calls++;
    if (call->done)
        add_call(channel, call, start);
    rpc_loop_queue_later(channel->loop, &channel->flush);
    return call->done ? channel->last_number : 0;
}

/* ---- the encoding ---- */

/* In the encoding that was agreed on; the descriptors are the output's then. */
static void send_one_held(struct rpc_channel *channel, struct held *held)
{
    struct output_queue *out = &channel->out;
    struct pending *pending = channel_find_pending(channel, held->number);
    uint64_t at = output_end(out);
    size_t start = channel->codec->begin(&out->data);

    channel->codec->write_json(held->text.data, held->text.length, &out->data);
    channel->codec->end(&out->data, start);
    output_add_fds(out, at, held->number, held->fds, held->fds_count);
    held->fds_count = 0;
    if (!pending)
        return;
    pending->held = false;
    pending->start = at;
    pending->end = output_end(out);
}

static void send_held(struct rpc_channel *channel)
{
    for (struct held *held = channel->held; held; held = held->next)
        send_one_held(channel, held);
    drop_held(channel);
    if (output_length(&channel->out))
        rpc_loop_queue_later(channel->loop, &channel->flush);
}

static void take_welcome(struct rpc_channel *channel, const struct rpc_welcome *welcome)
{
    const struct rpc_codec *codec = rpc_codec_find(welcome->encoding);
    const struct rpc_bounds_of_peer *limits = welcome->limits;

    if (codec)
        channel->codec = codec;
    if (limits->message < channel->message_max)
        channel->message_max = (size_t)limits->message;
    channel->in_flight_max = limits->in_flight < RPC_CHANNEL_IN_FLIGHT_MAX
                                 ? (size_t)limits->in_flight
                                 : RPC_CHANNEL_IN_FLIGHT_MAX;
}

/* A server that has no room for the connection says so in place of the answer; one that does not
 * answer is not to be given anything. Any other answer is one. */
static void on_welcome(void *data, const struct rpc_outcome *outcome)
{
    struct rpc_channel *channel = data;
    bool refused = outcome->fault == RPC_TOO_MANY || outcome->fault == RPC_UNAVAILABLE;

    channel->negotiating = false;
    if (outcome->result)
        take_welcome(channel, outcome->result);
    json_free(&rpc_welcome_type, outcome->result);
    if (channel->watch.fd < 0)
        return;
    if (refused || !outcome->answered) {
        channel_end(channel, &(struct channel_end){.code = refused ? -ENOBUFS : -ETIMEDOUT,
                                                   .what = error_message(outcome->error),
                                                   .hint = outcome->error->hint});
        return;
    }
    send_held(channel);
    if (channel->events.ready)
        channel->events.ready(channel->events.data);
}

int rpc_channel_negotiate(struct rpc_channel *channel, const char *encoding, uint64_t timeout_ms)
{
    static const struct json_method hello_method = {
        .name = "rpc.hello", .params = &rpc_hello_type, .result = &rpc_welcome_type};
    const struct rpc_codec *wanted = rpc_codec_find(encoding);
    char *encodings[] = {(char *)(uintptr_t)encoding, (char *)(uintptr_t)rpc_codec_json.name, NULL};
    struct rpc_hello hello = {.encodings = encodings,
                              .encodings_count = wanted == &rpc_codec_json ? 1 : 2};

    if (!wanted)
        return -EINVAL;
    if (channel->last_number || channel->counts.calls)
        return -EBUSY;
    int64_t r = rpc_channel_call(channel, &(struct rpc_call){.method = &hello_method,
                                                             .params = &hello,
                                                             .timeout_ms = timeout_ms,
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

static void on_event(struct rpc_watch *watch, uint32_t events)
{
    struct rpc_channel *channel =
        (struct rpc_channel *)((char *)watch - offsetof(struct rpc_channel, watch));

    channel_hold(channel);
    if (events & EPOLLOUT) /* after the timers: what is too late by then is not sent */
        rpc_loop_queue_later(channel->loop, &channel->flush);
    if (channel->watch.fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        channel_read(channel);
    channel_release(channel);
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
    channel->message_max = RPC_MESSAGE_MAX;
    channel->in_flight_max = RPC_IN_FLIGHT_MAX;
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

int rpc_channel_ended(const struct rpc_channel *channel)
{
    return channel->ended;
}

bool rpc_channel_is_ready(const struct rpc_channel *channel)
{
    return channel->watch.fd >= 0 && !channel->negotiating;
}

/* One more is for rpc.cancel. */
size_t rpc_channel_width(const struct rpc_channel *channel)
{
    return channel->in_flight_max > 1 ? channel->in_flight_max - 1 : 1;
}

size_t rpc_channel_owed(const struct rpc_channel *channel)
{
    return channel->owed;
}

uint64_t rpc_channel_owed_since(const struct rpc_channel *channel)
{
    return channel->owed ? channel->owed_since : UINT64_MAX;
}

size_t rpc_channel_message_max(const struct rpc_channel *channel)
{
    return channel->message_max;
}

bool rpc_channel_is_unsent(struct rpc_channel *channel, int64_t number)
{
    const struct pending *pending = channel_find_pending(channel, number);

    return pending && (pending->held || pending->start >= output_sent(&channel->out));
}

struct rpc_channel_counts rpc_channel_counts(const struct rpc_channel *channel)
{
    struct rpc_channel_counts counts = channel->counts;

    counts.in_flight = channel->in_flight;
    counts.bytes_queued = output_length(&channel->out);
    return counts;
}
