#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <cloche/client.h>
#include <schema/json.h>

#include "rpc_params.h"
#include "template.h"

enum { SUBSCRIBE_MILLISECONDS = 30000 };

struct watch_options {
    const char *socket;
    const char *format;
    const char *topic;
    struct option_number count;
};

static const struct option watch_table[] = {
    {
        .name = "count",
        .short_name = 'n',
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct watch_options, count),
        .argument = "int",
        .help = "End after so many lines",
        .minimum = 1,
        .maximum = INT64_MAX,
    },
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct watch_options, format),
        .argument = "string",
        .help = "\"json\", or a template for each line (default \"json\")",
    },
    {
        .name = "socket",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct watch_options, socket),
        .argument = "path",
        .help = "Socket of another server than the instance's daemon",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "topic",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct watch_options, topic),
        .argument = "string",
        .help = "What to subscribe to (default \"events\")",
    },
    {.name = NULL},
};

static const struct option_group watch_groups[] = {{.options = watch_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct watch_options *options = values;

    options->topic = "events";
}

struct watch {
    const struct watch_options *options;
    int64_t lines;
    bool over;
    int code, fault; /* of the first thing that went wrong */
    struct error *err;
};

static bool has_all(const struct watch *watch)
{
    return watch->options->count.set && watch->lines >= watch->options->count.value;
}

static int write_line(const char *text, const char *format, struct buffer *out, struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    yajl_val document;
    int r = tree_parse(&arena, text, &document, err);

    if (r == 0 && format && !text_equal(format, "json"))
        r = template_render(format, document, &arena, out, err);
    else if (r == 0)
        tree_write(document, TREE_COMPACT, out);
    buffer_append_char(out, '\n');
    return r;
}

/* Each line at once: whoever reads them waits for it. */
static void print(struct watch *watch, const char *text)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    if (watch->over || has_all(watch))
        return;
    int r = write_line(text, watch->options->format, &line, watch->err);
    if (r == 0 && file_write_all(STDOUT_FILENO, line.data, line.length) < 0)
        r = error_errno(watch->err, errno, "write to standard output");
    watch->code = r;
    watch->over = r < 0;
    watch->lines++;
}

static void begin_line(struct json_writer *writer, struct buffer *line, const char *boot)
{
    json_writer_init(writer, line, JSON_COMPACT);
    json_writer_object_begin(writer);
    json_writer_key(writer, "boot");
    json_writer_string(writer, boot);
}

static void end_line(struct watch *watch, struct json_writer *writer, struct buffer *line)
{
    json_writer_object_end(writer);
    print(watch, buffer_text(line));
}

static void write_number(struct json_writer *writer, const char *name, uint64_t value)
{
    json_writer_key(writer, name);
    json_writer_unsigned(writer, value);
}

static void on_event(void *data, const struct cloche_subscription_event *event)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;

    begin_line(&writer, &line, event->boot);
    write_number(&writer, "sequence", event->sequence);
    json_writer_key(&writer, "event");
    json_writer_raw(&writer, event->event);
    end_line(data, &writer, &line);
}

static void on_lost(void *data, const struct cloche_subscription_lost *lost)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;

    begin_line(&writer, &line, lost->boot);
    write_number(&writer, "from", lost->from);
    write_number(&writer, "count", lost->count);
    json_writer_key(&writer, "reason");
    json_writer_string(&writer, lost->reason);
    end_line(data, &writer, &line);
}

static void on_changed(void *data, enum cloche_subscription_state state,
                       const struct cloche_error *why)
{
    struct watch *watch = data;

    if (state == CLOCHE_SUBSCRIPTION_CUT)
        fprintf(stderr, "cloche: %s; it is waited for\n", why->message);
    if (state != CLOCHE_SUBSCRIPTION_OVER)
        return;
    watch->over = true;
    watch->fault = why->fault;
    watch->code = error_set(watch->err, why->code, "%s", why->message);
    if (why->hint)
        error_hint(watch->err, "%s", why->hint);
}

/* The server is asked what it knows; this also tells at once when there is none. */
static int build_params(struct cli *cli, const char *socket, const char *method, char *const *words,
                        struct buffer *params, struct error *err)
{
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;

    int r = rpc_remote_open(cli, socket, false, NULL, NULL, &remote, err);
    if (r < 0 || !words[0])
        return r;
    r = rpc_document_fetch(remote, socket, SUBSCRIBE_MILLISECONDS, &document, err);
    if (r < 0)
        return r;
    return rpc_params_build(&document, rpc_document_method(&document, method), method, words,
                            params, err);
}

static int take_error(struct cloche_error *from, struct error *err)
{
    int r = error_set(err, from->code, "%s", from->message);

    cloche_error_finish(from);
    return r;
}

static int follow(struct cli *cli, struct watch *watch, const char *params)
{
    const char *socket = watch->options->socket ? watch->options->socket : cli->instance.socket;
    const char *const endpoints[] = {socket, NULL};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings), .endpoints = endpoints, .polled = true};
    const struct cloche_subscribe_options options = {
        .size = sizeof(options), .topic = watch->options->topic, .changed = on_changed};
    struct cloche_subscription *subscription;
    struct cloche_client *client;
    struct cloche_error error = {0};

    if (cloche_client_open(&settings, &client, &error) < 0)
        return take_error(&error, watch->err);
    if (cloche_client_subscribe(client, params, &options, on_event, on_lost, watch, &subscription,
                                &error) < 0)
        watch->code = take_error(&error, watch->err);
    while (watch->code >= 0 && !watch->over && !has_all(watch)) {
        struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};
        poll(&ready, 1, -1);
        cloche_client_dispatch(client);
    }
    cloche_client_close(client);
    return watch->code;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct watch_options *options = values;
    _cleanup_free_ char *method = xasprintf("%s.subscribe", options->topic);
    _cleanup_buffer_ struct buffer params = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct watch watch = {.options = options, .err = &err};

    int r = build_params(cli, options->socket, method, operands, &params, &err);
    if (r == 0)
        r = follow(cli, &watch, params.length ? buffer_text(&params) : NULL);
    return r < 0 ? rpc_remote_fail(&err, watch.fault, method, false) : EXIT_DONE;
}

const struct command rpc_watch_command = {
    .name = "watch",
    .usage = "[OPTIONS] [NAME=VALUE...]",
    .summary = "Subscribe, and print what comes as JSON, one a line",
    .details =
        "It goes on when the connection has ended and the server is there again, behind what\n"
        "was printed last. The parameters are those of the method\n"
        "TOPIC.subscribe ('cloche rpc methods events.subscribe'), written as for 'cloche rpc\n"
        "call'.",
    .options = watch_groups,
    .values_size = sizeof(struct watch_options),
    .set_defaults = set_defaults,
    .maximum_operands = -1,
    .complete = COMPLETE_SUBSCRIBE,
    .run = run,
};
