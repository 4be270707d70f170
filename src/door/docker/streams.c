/*
 * attach and logs: streams out of a container. What comes from its monitor is as docker frames it
 * already; what comes out of a log is made so here.
 */
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/detach_keys.h>
#include <base/text.h>
#include <schema/management.h>

#include "handlers.h"

enum {
    FRAME_HEAD = 8,
    TIME_LENGTH = 30,    /* 2026-11-20T10:00:00.123456789Z */
    ENTRY_HEAD = 40,     /* and " stdout F " */
    ENTRY_MAX = 1 << 20, /* a longer one is no entry of ours */
    UNTIL_LATE_MS = 200, /* for what was said until then to be in the log */
};

enum { STREAM_STDIN, STREAM_STDOUT, STREAM_STDERR, STREAM_SYSTEM };

/* ---- attach */

static void on_attached(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_attached *attached = outcome->result;

    if (outcome->fds_count != 1) {
        answer_fail(exchange, 500, "the daemon has given no stream");
        return;
    }
    answer_hijack(exchange, steal_fd(&outcome->fds[0]), attached->tty);
}

/* Clients of a WebSocket had all three streams without asking before 1.42. */
static bool wants(const struct exchange *exchange, const char *name)
{
    return (exchange->websocket && !exchange_since(exchange, 42)) ||
           target_flag(&exchange->target, name);
}

bool check_detach_keys(struct exchange *exchange, const char *text)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct detach_keys keys;

    if (detach_keys_parse(text, &keys, &err) == 0)
        return true;
    answer_error(exchange, 400, &err);
    return false;
}

void docker_container_attach(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    bool stream = target_flag(target, "stream");
    const char *keys = target_text(target, "detachKeys");
    const struct api_container_attach how = {
        .container = exchange->words[0],
        .stdin_ = stream && wants(exchange, "stdin"),
        .has_stdin = true,
        .stdout_ = wants(exchange, "stdout"),
        .has_stdout = true,
        .stderr_ = wants(exchange, "stderr"),
        .has_stderr = true,
        .logs = target_flag(target, "logs"),
        .has_logs = true,
        .detach_keys = (char *)(uintptr_t)(keys ? keys : DETACH_KEYS_DEFAULT),
    };

    if (!stream && how.logs) {
        docker_container_logs(exchange);
        return;
    }
    if (check_detach_keys(exchange, how.detach_keys))
        call(exchange, "container.attach", &how, on_attached, NULL);
}

void docker_container_attach_websocket(struct exchange *exchange)
{
    if (exchange_want_websocket(exchange))
        docker_container_attach(exchange);
}

/* ---- logs */

struct logs {
    bool tty;
    bool raw;  /* asked for by attach, whose streams have no chunks; */
    bool bare; /* in a WebSocket, whose frames are others */
    bool stdout_, stderr_, timestamps, details, follow;
    bool in_line[2];     /* the last entry of the stream was a part of a line */
    bool over;           /* an entry was behind `until`: so are all others */
    char *since, *until; /* times as entries have them; NULL: any */
    char *attributes;    /* owned; what stands before a line with details, or NULL */
    struct buffer rest;
    struct api_container_logs how;
};

static void logs_free(void *data)
{
    struct logs *logs = data;

    buffer_finish(&logs->rest);
    free(logs->since);
    free(logs->until);
    free(logs->attributes);
    free(logs->how.container);
    free(logs);
}

static bool is_entry(const char *line, size_t length)
{
    return length >= ENTRY_HEAD && line[TIME_LENGTH - 1] == 'Z' && line[TIME_LENGTH] == ' ' &&
           (memcmp(line + TIME_LENGTH + 1, "stdout ", 7) == 0 ||
            memcmp(line + TIME_LENGTH + 1, "stderr ", 7) == 0) &&
           (line[ENTRY_HEAD - 2] == 'F' || line[ENTRY_HEAD - 2] == 'P');
}

static void add_frame(const struct logs *logs, struct buffer *out, unsigned stream,
                      const struct buffer *text)
{
    const uint32_t length = (uint32_t)text->length;
    const char head[FRAME_HEAD] = {
        (char)stream,        0,           0, 0, (char)(length >> 24), (char)(length >> 16),
        (char)(length >> 8), (char)length};

    if (!logs->tty && !logs->bare)
        buffer_append(out, head, sizeof(head));
    buffer_append(out, text->data, text->length);
}

/* An entry of the log (cloche-log(5)), without its end of line. */
static void add_entry(struct logs *logs, const char *line, size_t length, struct buffer *out)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!is_entry(line, length))
        return;
    /* Times of one form compare as texts. */
    logs->over |= logs->until && strncmp(line, logs->until, TIME_LENGTH) > 0;
    if (logs->over || (logs->since && strncmp(line, logs->since, TIME_LENGTH) < 0))
        return;
    bool is_error = line[TIME_LENGTH + 4] == 'e', whole = line[ENTRY_HEAD - 2] == 'F';
    if (!(is_error ? logs->stderr_ : logs->stdout_))
        return;
    if (logs->timestamps && !logs->in_line[is_error]) {
        buffer_append(&text, line, TIME_LENGTH);
        buffer_append_char(&text, ' ');
    }
    /* Details stand before the line, and their blank also where there are none. */
    if (logs->details && !logs->in_line[is_error]) {
        buffer_append_text(&text, logs->attributes ? logs->attributes : "");
        buffer_append_char(&text, ' ');
    }
    buffer_append(&text, line + ENTRY_HEAD, length - ENTRY_HEAD);
    if (whole)
        buffer_append_char(&text, '\n');
    logs->in_line[is_error] = !whole;
    if (text.length)
        add_frame(logs, out, is_error ? STREAM_STDERR : STREAM_STDOUT, &text);
}

static void end_log(struct exchange *exchange)
{
    connection_close_stream(exchange->connection);
    answer_end(exchange);
}

/* Nothing may have been said since, or ever again. */
static void on_until(struct rpc_timer *timer)
{
    end_log((struct exchange *)((char *)timer - offsetof(struct exchange, timer)));
}

static void wait_until(struct exchange *exchange)
{
    const struct logs *logs = exchange->state;
    struct rpc_loop *loop = connection_loop(exchange->connection);
    int64_t until;

    if (!logs->follow || !logs->until || clock_parse(logs->until, &until) < 0)
        return;
    int64_t left = until - clock_now();
    exchange->timer.callback = on_until;
    rpc_loop_set_timer(loop, &exchange->timer,
                       rpc_loop_now(loop) + (uint64_t)(left > 0 ? left : 0) +
                           UNTIL_LATE_MS * 1000000);
}

static void on_log(struct exchange *exchange, const char *data, size_t length)
{
    struct logs *logs = exchange->state;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    size_t used = 0;

    buffer_append(&logs->rest, data, length);
    for (;;) {
        const char *line = logs->rest.data + used;
        const char *end = memchr(line, '\n', logs->rest.length - used);
        if (!end)
            break;
        add_entry(logs, line, (size_t)(end - line), &out);
        used += (size_t)(end - line) + 1;
    }
    buffer_consume(&logs->rest, used);
    if (logs->rest.length > ENTRY_MAX)
        buffer_clear(&logs->rest);
    answer_data(exchange, out.data, out.length);
    if (logs->over)
        end_log(exchange);
}

static void on_logs(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_attached *attached = outcome->result;
    struct logs *logs = exchange->state;

    if (outcome->fds_count != 1) {
        answer_fail(exchange, 500, "the daemon has given no log");
        return;
    }
    logs->tty = attached->tty;
    logs->attributes = xstrdup(attached->attributes);
    exchange->pumped = on_log;
    wait_until(exchange);
    if (logs->raw) {
        answer_raw(exchange, logs->tty);
        exchange_pump(exchange, steal_fd(&outcome->fds[0]));
        return;
    }
    answer_begin(exchange, 200,
                 logs->tty || !exchange_since(exchange, 42)
                     ? "application/vnd.docker.raw-stream"
                     : "application/vnd.docker.multiplexed-stream");
    exchange_pump(exchange, steal_fd(&outcome->fds[0]));
}

/* As entries have it, owned by the caller; NULL: any. */
static bool parse_time(const char *text, char **ret)
{
    int64_t time;

    *ret = NULL;
    if (text_empty(text) || text_equal(text, "0"))
        return true;
    if (!docker_time_parse(text, &time))
        return false;
    *ret = clock_format(time);
    return true;
}

void docker_container_logs(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    struct logs *logs = xnew(struct logs);

    exchange_set_state(exchange, logs, logs_free);
    logs->stdout_ = wants(exchange, "stdout");
    logs->stderr_ = wants(exchange, "stderr");
    logs->timestamps = target_flag(target, "timestamps");
    logs->details = target_flag(target, "details");
    logs->follow = target_flag(target, "follow");
    logs->bare = exchange->websocket;
    logs->raw = logs->bare || text_ends_with(exchange->route->pattern, "/attach");
    if (!logs->stdout_ && !logs->stderr_) {
        answer_fail(exchange, 400, "Bad parameters: you must choose at least one stream");
        return;
    }
    if (!parse_time(target_text(target, "since"), &logs->since) ||
        !parse_time(target_text(target, "until"), &logs->until)) {
        answer_fail(exchange, 400, "since and until are seconds since 1970, or times of RFC 3339");
        return;
    }
    logs->how = (struct api_container_logs){
        .container = xstrdup(exchange->words[0]),
        .follow = logs->follow,
        .has_follow = true,
        .since = logs->since,
        .until = logs->until,
        .tail = target_number(target, "tail", -1), /* "all" */
        .has_tail = true,
    };
    call(exchange, "container.logs", &logs->how, on_logs, NULL);
}
