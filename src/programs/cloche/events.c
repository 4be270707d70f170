/*
 * cloche events. What lies behind is asked for with events.list, what comes with events.subscribe;
 * with an end in the future both: the subscription is ended then, and what it had not sent yet is
 * asked for from its number on.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>
#include <cloche/client.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <schema/management.h>
#include <schema/subscription.h>

#include "cli.h"
#include "event_lines.h"
#include "human.h"

struct events_options {
    const char *since, *until, *format;
    char **filters;
};

static const char *const filter_words[] = {
    "container=",   "daemon=",     "event=",         "image=",      "label=",
    "network=",     "scope=local", "type=container", "type=daemon", "type=image",
    "type=network", "type=volume", "volume=",        NULL,
};

static const struct option events_table[] = {
    {
        .name = "filter",
        .short_name = 'f',
        .kind = OPTION_LIST,
        .offset = offsetof(struct events_options, filters),
        .argument = "filter",
        .help = "Show only those with type=, event=, container=, image=, label=KEY[=value], "
                "network=, volume= or daemon=",
        .complete = COMPLETE_EXAMPLES,
        .choices = filter_words,
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct events_options, format),
        .argument = "string",
        .help = "\"text\", \"json\", or a template for each line",
    },
    {
        .name = "since",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct events_options, since),
        .argument = "string",
        .help = "Also what happened since a time (2026-11-20T10:00:00Z) or for so long (42m)",
    },
    {
        .name = "until",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct events_options, until),
        .argument = "string",
        .help = "Only what happens before a time, and end then",
    },
    {.name = NULL},
};

static const struct option_group events_groups[] = {{.options = events_table}, {.options = NULL}};

struct watching {
    struct rpc_loop *loop;
    struct rpc_channel *channel;
    struct rpc_timer end;
    const struct events_options *options;
    const struct api_event_filters *filters;
    int64_t since, until; /* 0: none */
    uint64_t subscription;
    bool done;
    struct error err;
};

/* ---- showing ---- */

static int show(const struct api_event *event, const char *format, struct error *err)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    int r = event_line(event, format, &line, err);
    if (r < 0)
        return r;
    r = file_write_all(STDOUT_FILENO, line.data, line.length);
    return r < 0 ? error_errno(err, -r, "write an event") : 0;
}

static void end(struct watching *watching)
{
    watching->done = true;
}

static void fail(struct watching *watching, const struct error *why)
{
    if (!watching->err.code)
        error_set(&watching->err, why->code ? why->code : -EPROTO, "%s", error_message(why));
    if (why->hint && !watching->err.hint)
        error_hint(&watching->err, "%s", why->hint);
    end(watching);
}

/* ---- what is over ---- */

static int show_page(const struct api_events_listed *page, const char *format, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < page->events_count; i++)
        r = show(page->events[i]->event, format, err);
    return r;
}

static int show_past(struct cli *cli, const struct watching *watching, uint64_t from,
                     struct error *err)
{
    struct api_events_list params = {
        .since = from,
        .has_since = from > 0,
        .since_time = watching->since,
        .has_since_time = watching->since > 0 && from == 0,
        .until_time = watching->until,
        .has_until_time = true,
        .filters = (struct api_event_filters *)(uintptr_t)watching->filters,
    };
    bool more = true;
    int r = 0;

    while (r >= 0 && more) {
        _cleanup_api_events_listed_ struct api_events_listed *page = NULL;
        r = cli_call(cli, "events.list", &params, &page, err);
        if (r < 0)
            return r;
        r = show_page(page, watching->options->format, err);
        more = page->more;
        params.since = page->next;
        params.has_since = true;
    }
    return r;
}

/* ---- what comes, until a time ---- */

static void show_text(struct watching *watching, const char *text)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_event *event = NULL;

    int r = api_event_parse(text, strlen(text), NULL, &event, &err);
    if (r >= 0 && (!watching->until || event->time < watching->until))
        r = show(event, watching->options->format, &err);
    if (r < 0)
        fail(watching, &err);
    api_event_free(event);
}

static void tell_lost(uint64_t count)
{
    fprintf(stderr, "cloche: %ju event%s lost: they came faster than they could be shown\n",
            (uintmax_t)count, count == 1 ? " is" : "s are");
}

static void on_event(struct watching *watching, const char *text, size_t length)
{
    struct subscription_event *notice = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (subscription_event_parse(text, length, NULL, &notice, &err) < 0)
        fail(watching, &err);
    else
        show_text(watching, notice->event);
    subscription_event_free(notice);
}

static void on_lost(const char *text, size_t length)
{
    struct subscription_lost *lost = NULL;

    if (subscription_lost_parse(text, length, NULL, &lost, NULL) < 0)
        return;
    tell_lost(lost->count);
    subscription_lost_free(lost);
}

static void on_notified(void *data, const char *method, size_t method_length, const char *params,
                        size_t params_length)
{
    _cleanup_free_ char *name = xstrndup(method, method_length);

    if (((struct watching *)data)->done)
        return;
    if (text_equal(name, "events.event"))
        on_event(data, params, params_length);
    else if (text_equal(name, "events.lost"))
        on_lost(params, params_length);
}

static void on_ended(void *data, const struct error *why)
{
    fail(data, why);
}

static const struct json_method *find_method(const char *name)
{
    for (size_t i = 0; i < management_methods_count; i++) {
        if (text_equal(management_methods[i].name, name))
            return &management_methods[i];
    }
    abort();
}

static void call(struct watching *watching, const char *method, const void *params, rpc_done done)
{
    struct rpc_call what = {
        .method = find_method(method), .params = params, .done = done, .data = watching};
    _cleanup_error_ struct error err = ERROR_INIT;

    int64_t r = rpc_channel_call(watching->channel, &what);
    if (r >= 0)
        return;
    error_errno(&err, (int)-r, "%s", method);
    fail(watching, &err);
}

/* Everything before this number has been shown. */
static void on_unsubscribed(void *data, const struct rpc_outcome *outcome)
{
    struct api_events_unsubscribed *unsubscribed = outcome->result;
    struct watching *watching = data;

    if (outcome->code < 0)
        fail(watching, outcome->error);
    else
        watching->subscription = unsubscribed->next;
    api_events_unsubscribed_free(unsubscribed);
    end(watching);
}

static void on_time(struct rpc_timer *timer)
{
    struct watching *watching = (struct watching *)((char *)timer - offsetof(struct watching, end));
    struct api_events_unsubscribe params = {.subscription = watching->subscription};

    call(watching, "events.unsubscribe", &params, on_unsubscribed);
}

static void on_subscribed(void *data, const struct rpc_outcome *outcome)
{
    struct api_events_subscribed *subscribed = outcome->result;
    struct watching *watching = data;

    if (outcome->code < 0) {
        fail(watching, outcome->error);
        return;
    }
    watching->subscription = subscribed->subscription;
    api_events_subscribed_free(subscribed);
    int64_t left = watching->until - clock_now();
    watching->end.callback = on_time;
    rpc_loop_set_timer(watching->loop, &watching->end,
                       rpc_loop_update_now(watching->loop) + (uint64_t)(left > 0 ? left : 0));
}

static void subscribe(struct watching *watching)
{
    struct api_events_subscribe params = {
        .since_time = watching->since,
        .has_since_time = watching->since > 0,
        .filters = (struct api_event_filters *)(uintptr_t)watching->filters,
    };

    call(watching, "events.subscribe", &params, on_subscribed);
}

/* On a connection of its own, beside the one for calls. */
static int watch(struct cli *cli, struct watching *watching, struct error *err)
{
    struct rpc_channel_events events = {
        .notified = on_notified, .ended = on_ended, .data = watching};
    int r = rpc_loop_create(&watching->loop, err);

    if (r < 0)
        return r;
    int fd = socket_connect_unix(cli->instance.socket, SOCK_STREAM | SOCK_NONBLOCK, err);
    r = fd < 0 ? fd : rpc_channel_open(watching->loop, fd, &events, &watching->channel, err);
    if (r >= 0) {
        subscribe(watching);
        while (!watching->done)
            rpc_loop_run_once(watching->loop, -1);
        rpc_loop_clear_timer(watching->loop, &watching->end);
        rpc_channel_close(watching->channel);
        r = error_move(err, &watching->err);
    }
    rpc_loop_destroy(watching->loop);
    return r;
}

/* ---- what comes, as long as it takes: also after a restart of the daemon ---- */

static void on_followed(void *data, const struct cloche_subscription_event *event)
{
    struct watching *watching = data;

    if (!watching->done)
        show_text(watching, event->event);
}

static void on_missed(void *data, const struct cloche_subscription_lost *lost)
{
    if (text_equal(lost->reason, "restarted"))
        fprintf(stderr, "cloche: the daemon was started again; what happened meanwhile may be "
                        "missing\n");
    else
        tell_lost(lost->count);
}

static void on_changed(void *data, enum cloche_subscription_state state,
                       const struct cloche_error *why)
{
    const struct error err = {why ? why->code : 0, why ? why->message : NULL,
                              why ? why->hint : NULL};

    if (state == CLOCHE_SUBSCRIPTION_CUT)
        fprintf(stderr, "cloche: %s; it is waited for\n", why->message);
    else if (state == CLOCHE_SUBSCRIPTION_OVER)
        fail(data, &err);
}

static void write_params(const struct watching *watching, struct buffer *out)
{
    const struct api_events_subscribe params = {
        .since_time = watching->since,
        .has_since_time = watching->since > 0,
        .filters = (struct api_event_filters *)(uintptr_t)watching->filters,
    };

    json_write(&api_events_subscribe_type, &params, out);
}

static int follow(struct cli *cli, struct watching *watching, struct error *err)
{
    const char *const endpoints[] = {cli->instance.socket, NULL};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings), .endpoints = endpoints, .polled = true};
    const struct cloche_subscribe_options options = {.size = sizeof(options),
                                                     .changed = on_changed};
    _cleanup_buffer_ struct buffer params = BUFFER_INIT;
    struct cloche_subscription *subscription;
    struct cloche_client *client;
    struct cloche_error error = {0};

    write_params(watching, &params);
    int r = cloche_client_open(&settings, &client, &error);
    if (r >= 0) {
        r = cloche_client_subscribe(client, buffer_text(&params), &options, on_followed, on_missed,
                                    watching, &subscription, &error);
        while (r >= 0 && !watching->done) {
            struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};
            poll(&ready, 1, -1);
            cloche_client_dispatch(client);
        }
        cloche_client_close(client);
    }
    if (r < 0)
        error_set(&watching->err, r, "%s", error.message);
    cloche_error_finish(&error);
    return error_move(err, &watching->err);
}

/* ---- the command ---- */

/* Durations reach back from this moment, not from the beginning of its second. */
static int parse_time(const char *text, const char *name, int64_t *ret, struct error *err)
{
    _cleanup_free_ char *point = NULL, *later = NULL;
    int64_t now = clock_now();

    if (!text)
        return 0;
    int r = human_point_in_time(text, now / CLOCK_SECOND, &point, err);
    if (r >= 0)
        r = human_point_in_time(text, now / CLOCK_SECOND + 1, &later, err);
    if (r < 0)
        return error_context(err, "invalid value for \"%s\"", name);
    if (clock_parse(point, ret) < 0)
        return error_set(err, -ERANGE, "invalid value for \"%s\": \"%s\" lies too far away", name,
                         text);
    if (!text_equal(point, later))
        *ret += now % CLOCK_SECOND;
    return 0;
}

/* Before anything happens, so that a slip of the pen is told at once. */
static int check_format(const char *format, struct error *err)
{
    _cleanup_json_string_map_ struct json_string_map *attributes = NULL;
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct api_event event = {.type = (char *)"", .action = (char *)"", .id = (char *)""};

    json_string_map_set(&attributes, "name", "");
    event.attributes = attributes;
    return event_line(&event, format, &line, err);
}

static int show_events(struct cli *cli, struct watching *watching, struct error *err)
{
    bool over = watching->until && watching->until <= clock_now();

    int r = cli_connect(cli, err);
    if (r < 0 || (over && !watching->since))
        return r;
    if (over)
        return show_past(cli, watching, 0, err);
    if (!watching->until)
        return follow(cli, watching, err);
    r = watch(cli, watching, err);
    return r >= 0 ? show_past(cli, watching, watching->subscription, err) : r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct events_options *options = values;
    struct api_event_filters *filters = xnew(struct api_event_filters);
    struct watching watching = {.options = options, .filters = filters};
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = parse_time(options->since, "since", &watching.since, &err);
    if (r >= 0)
        r = parse_time(options->until, "until", &watching.until, &err);
    for (char **filter = options->filters; r >= 0 && filter && *filter; filter++)
        r = event_filter_add(filters, *filter, &err);
    if (r >= 0)
        r = check_format(options->format, &err);
    if (r >= 0)
        r = show_events(cli, &watching, &err);
    api_event_filters_free(filters);
    error_finish(&watching.err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command events_command = {
    .name = "events",
    .usage = "[OPTIONS]",
    .summary = "Show what happens in the engine",
    .options = events_groups,
    .values_size = sizeof(struct events_options),
    .run = run,
};
