#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <schema/json.h>

#include "rpc_remote.h"

struct rpc_remote {
    struct rpc_loop *loop;
    struct rpc_channel *channel;
    rpc_remote_notified notified;
    void *data;
    bool ended;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- the connection ---- */

static int connect_remote(struct cli *cli, const char *socket, bool only_running, struct error *err)
{
    if (!socket && !only_running) {
        int r = cli_connect(cli, err); /* only for the start of the daemon */
        if (r < 0)
            return r;
    }
    int fd = socket_connect_unix(socket ? socket : cli->instance.socket, SOCK_STREAM | SOCK_CLOEXEC,
                                 err);
    if (fd < 0 && socket)
        error_hint(err, "Is a server listening on %s?", socket);
    else if (fd < 0)
        error_hint(err, "No daemon runs. Other commands, such as 'cloche ps', start one.");
    return fd;
}

static void on_notified(void *data, const char *method, size_t method_length, const char *params,
                        size_t params_length)
{
    const struct rpc_remote *remote = data;

    if (remote->notified)
        remote->notified(remote->data, method, method_length, params, params_length);
}

static void on_ended(void *data, const struct error *why _unused_)
{
    struct rpc_remote *remote = data;

    remote->ended = true;
}

int rpc_remote_open(struct cli *cli, const char *socket, bool only_running,
                    rpc_remote_notified notified, void *data, struct rpc_remote **ret,
                    struct error *err)
{
    int fd = connect_remote(cli, socket, only_running, err);
    if (fd < 0)
        return fd;

    struct rpc_remote *remote = xnew(struct rpc_remote);
    const struct rpc_channel_events events = {
        .notified = on_notified, .ended = on_ended, .data = remote};
    remote->notified = notified;
    remote->data = data;
    int r = rpc_loop_create(&remote->loop, err);
    if (r < 0)
        close_fd(fd);
    else
        r = rpc_channel_open(remote->loop, fd, &events, &remote->channel, err);
    if (r < 0)
        rpc_remote_close(remote);
    else
        *ret = remote;
    return r;
}

void rpc_remote_close(struct rpc_remote *remote)
{
    if (!remote)
        return;
    rpc_channel_close(remote->channel);
    rpc_loop_destroy(remote->loop);
    free(remote);
}

int rpc_remote_wait(struct rpc_remote *remote, struct error *err)
{
    if (!remote->ended)
        rpc_loop_run_once(remote->loop, -1);
    return remote->ended ? error_set(err, -ECONNRESET, "the server ended the connection") : 0;
}

/* ---- a call ---- */

struct wait {
    struct rpc_remote_answer *answer;
    struct error *err;
    int code;
    bool done;
};

static void on_done(void *data, const struct rpc_outcome *outcome)
{
    struct wait *wait = data;
    struct rpc_remote_answer *answer = wait->answer;

    wait->done = true;
    wait->code = outcome->code;
    answer->fault = outcome->fault;
    if (outcome->code < 0) {
        error_set(wait->err, outcome->code, "%s", error_message(outcome->error));
        if (outcome->error->hint)
            error_hint(wait->err, "%s", outcome->error->hint);
        return;
    }
    answer->result = xstrndup(outcome->text, outcome->text_length);
    for (size_t i = 0; i < outcome->fds_count && i < RPC_REMOTE_FDS_MAX; i++)
        answer->fds[answer->fds_count++] = steal_fd(&outcome->fds[i]);
}

/* It goes into a message as it is. */
static int check_name(const char *method, struct error *err)
{
    if (*method && method[strspn(method, "abcdefghijklmnopqrstuvwxyz"
                                         "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:$")] == '\0')
        return 0;
    return error_set(err, -EINVAL, "'%s' cannot be the name of a method", method);
}

int rpc_remote_call(struct rpc_remote *remote, const struct rpc_remote_call *call,
                    struct rpc_remote_answer *ret, struct error *err)
{
    const struct json_method method = {.name = call->method};
    struct wait wait = {.answer = ret, .err = err};
    uint64_t start = now_ns();

    *ret = (struct rpc_remote_answer){0};
    int r = check_name(call->method, err);
    if (r < 0)
        return r;
    int64_t number = rpc_channel_call(
        remote->channel, &(struct rpc_call){.method = &method,
                                            .text = call->params,
                                            .text_length = call->params ? strlen(call->params) : 0,
                                            .raw = true,
                                            .timeout_ms = call->timeout_ms,
                                            .fds = call->fd >= 0 ? &call->fd : NULL,
                                            .fds_count = call->fd >= 0,
                                            .done = on_done,
                                            .data = &wait});
    if (number < 0)
        return error_errno(err, (int)-number, "send the call");
    while (!wait.done)
        rpc_loop_run_once(remote->loop, -1);
    ret->took_ns = now_ns() - start;
    return wait.code;
}

void rpc_remote_answer_finish(struct rpc_remote_answer *answer)
{
    free(answer->result);
    for (size_t i = 0; i < answer->fds_count; i++)
        close_fd(answer->fds[i]);
}

/* ---- what went wrong ---- */

static void write_text(struct json_writer *writer, const char *key, const char *text)
{
    if (!text)
        return;
    json_writer_key(writer, key);
    json_writer_string(writer, text);
}

static void write_failure(const struct error *err, int fault, const char *method,
                          struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "error");
    json_writer_object_begin(&writer);
    if (fault) {
        json_writer_key(&writer, "code");
        json_writer_integer(&writer, fault);
    }
    write_text(&writer, "message", error_message(err));
    json_writer_key(&writer, "data");
    json_writer_object_begin(&writer);
    write_text(&writer, "where", method);
    write_text(&writer, "hint", err->hint);
    json_writer_object_end(&writer);
    json_writer_object_end(&writer);
    json_writer_object_end(&writer);
}

int rpc_remote_fail(const struct error *err, int fault, const char *method, bool json)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (json)
        write_failure(err, fault, method, &text);
    else if (fault)
        buffer_printf(&text, "Error: %s (%d in %s)", error_message(err), fault, method);
    else
        buffer_printf(&text, "Error: %s", error_message(err));
    if (!json && err->hint)
        buffer_printf(&text, "\n%s", err->hint);
    fprintf(stderr, "%s\n", text.data);
    return EXIT_FAILED;
}

/* ---- options ---- */

/* Milliseconds of a unit at text; 0: there is none. */
static double unit_at(const char **text)
{
    static const struct {
        const char *name;
        double milliseconds;
    } units[] = {{"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6}};

    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (text_starts_with(*text, units[i].name)) {
            *text += strlen(units[i].name);
            return units[i].milliseconds;
        }
    }
    return 0;
}

int rpc_parse_timeout(const char *text, void *value, struct error *err)
{
    static const double longest = 1e12;
    const char *at = text;
    double total = 0;

    while (*at >= '0' && *at <= '9') {
        char *end;
        double number = strtod(at, &end);
        bool first = at == text;
        at = end;
        double unit = unit_at(&at);
        if (unit == 0 && (*at || !first)) /* seconds may go without, alone */
            at = text;
        total += number * (unit > 0 ? unit : 1e3);
        if (unit == 0)
            break;
    }
    if (*at || total <= 0 || total > longest)
        return error_set(err, -EINVAL, "a time is wanted, such as 500ms, 10s or 1m30s");
    *(uint64_t *)value = total < 1 ? 1 : (uint64_t)total;
    return 0;
}
