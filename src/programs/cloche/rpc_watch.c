#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

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
    struct error *err;
    int code; /* of the first thing that went wrong */
};

static bool has_all(const struct watch *watch)
{
    return watch->options->count.set && watch->lines >= watch->options->count.value;
}

static int write_line(const char *params, const char *format, struct buffer *out, struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    yajl_val document;
    int r = tree_parse(&arena, params, &document, err);

    if (r == 0 && format && !text_equal(format, "json"))
        r = template_render(format, document, &arena, out, err);
    else if (r == 0)
        tree_write(document, TREE_COMPACT, out);
    buffer_append_char(out, '\n');
    return r;
}

/* Each line at once: whoever reads them waits for it. */
static void on_notified(void *data, const char *method, size_t method_length, const char *params,
                        size_t params_length)
{
    struct watch *watch = data;
    _cleanup_free_ char *text = xstrndup(params ? params : "{}", params ? params_length : 2);
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    size_t topic = strlen(watch->options->topic);

    if (watch->code < 0 || has_all(watch) || method_length <= topic || method[topic] != '.' ||
        strncmp(method, watch->options->topic, topic) != 0)
        return;
    int r = write_line(text, watch->options->format, &line, watch->err);
    if (r == 0 && file_write_all(STDOUT_FILENO, line.data, line.length) < 0)
        r = error_errno(watch->err, errno, "write to standard output");
    watch->code = r;
    watch->lines++;
}

static int subscribe(struct rpc_remote *remote, const char *socket, const char *method,
                     char *const *words, int *ret_fault, struct error *err)
{
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    _cleanup_rpc_remote_answer_ struct rpc_remote_answer answer = {0};
    _cleanup_buffer_ struct buffer params = BUFFER_INIT;

    int r =
        words[0] ? rpc_document_fetch(remote, socket, SUBSCRIBE_MILLISECONDS, &document, err) : 0;
    if (r == 0)
        r = rpc_params_build(&document, rpc_document_method(&document, method), method, words,
                             &params, err);
    if (r == 0) {
        const struct rpc_remote_call call = {.method = method,
                                             .params = buffer_text(&params),
                                             .timeout_ms = SUBSCRIBE_MILLISECONDS,
                                             .fd = -1};
        r = rpc_remote_call(remote, &call, &answer, err);
    }
    *ret_fault = answer.fault;
    return r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct watch_options *options = values;
    _cleanup_free_ char *method = xasprintf("%s.subscribe", options->topic);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct watch watch = {.options = options, .err = &err};
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;
    int fault = 0;

    int r = rpc_remote_open(cli, options->socket, false, on_notified, &watch, &remote, &err);
    if (r == 0)
        r = subscribe(remote, options->socket, method, operands, &fault, &err);
    while (r == 0 && !has_all(&watch)) {
        r = rpc_remote_wait(remote, &err);
        if (watch.code < 0)
            r = watch.code;
    }
    return r < 0 ? rpc_remote_fail(&err, fault, method, false) : EXIT_DONE;
}

const struct command rpc_watch_command = {
    .name = "watch",
    .usage = "[OPTIONS] [NAME=VALUE...]",
    .summary = "Subscribe, and print what comes as JSON, one a line",
    .details = "The parameters are those of the method TOPIC.subscribe ('cloche rpc methods\n"
               "events.subscribe'), written as for 'cloche rpc call'.",
    .options = watch_groups,
    .values_size = sizeof(struct watch_options),
    .set_defaults = set_defaults,
    .maximum_operands = -1,
    .complete = COMPLETE_SUBSCRIBE,
    .run = run,
};
