#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <rpc/server.h>

#include "rpc_params.h"
#include "template.h"

enum { COPY_SIZE = 64 * 1024 };

struct call_options {
    const char *socket;
    const char *format;
    uint64_t timeout_ms;
    struct option_number fd;
};

static const struct option call_table[] = {
    {
        .name = "fd",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct call_options, fd),
        .argument = "int",
        .help = "Number of an open descriptor that goes with the call",
        .minimum = 0,
        .maximum = INT32_MAX,
    },
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct call_options, format),
        .argument = "string",
        .help = "Of the result: \"json\" for one line, or a template (default: indented JSON)",
    },
    {
        .name = "socket",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct call_options, socket),
        .argument = "path",
        .help = "Socket of another server than the instance's daemon",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "timeout",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct call_options, timeout_ms),
        .argument = "duration",
        .help = "How long the call may take: 500ms, 10s, 1m30s (default: as long as it takes)",
        .parse = rpc_parse_timeout,
    },
    {.name = NULL},
};

static const struct option_group call_groups[] = {{.options = call_table}, {.options = NULL}};

static int write_result(const char *result, const char *format, struct buffer *out,
                        struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    yajl_val document;
    int r = tree_parse(&arena, result, &document, err);

    if (r == 0 && format && !text_equal(format, "json"))
        r = template_render(format, document, &arena, out, err);
    else if (r == 0)
        tree_write(document, format ? TREE_COMPACT : TREE_PRETTY, out);
    buffer_append_char(out, '\n');
    return r;
}

/* What comes out of a descriptor that came with the answer. */
static int copy_stream(int fd, struct error *err)
{
    _cleanup_free_ char *data = xmalloc(COPY_SIZE);

    for (;;) {
        ssize_t n = read(fd, data, COPY_SIZE);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "read the stream that came with the answer");
        if (n > 0 && file_write_all(STDOUT_FILENO, data, (size_t)n) < 0)
            return error_errno(err, errno, "write to standard output");
    }
}

static int print_answer(const struct rpc_remote_answer *answer, const char *format,
                        struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = write_result(answer->result, format, &text, err);

    if (r == 0 && file_write_all(STDOUT_FILENO, text.data, text.length) < 0)
        r = error_errno(err, errno, "write to standard output");
    for (size_t i = 0; r == 0 && i < answer->fds_count; i++)
        r = copy_stream(answer->fds[i], err);
    return r;
}

static int unknown_method(const struct rpc_document *document, const char *name, struct error *err)
{
    const char *near = rpc_document_suggest(document, name);

    error_set(err, -EOPNOTSUPP, "there is no method '%s'", name);
    return near ? error_hint(err, "Did you mean '%s'?", near)
                : error_hint(err, "'cloche rpc methods' lists them.");
}

/* The description is only asked for where there is something to look up in it. */
static int build_params(struct rpc_remote *remote, const struct call_options *options,
                        char *const *operands, struct buffer *params, struct error *err)
{
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    const char *name = operands[0];
    yajl_val method = NULL;

    if (operands[1]) {
        int r = rpc_document_fetch(remote, options->socket, options->timeout_ms, &document, err);
        if (r < 0)
            return r;
        method = rpc_document_method(&document, name);
        if (document.root && !method)
            return unknown_method(&document, name, err);
    }
    return rpc_params_build(&document, method, name, operands + 1, params, err);
}

/* What the server does not say itself when a call of a wrong name or with wrong parameters fails.
 */
static void add_hint(struct rpc_remote *remote, const struct call_options *options,
                     const char *method, int fault, struct error *err)
{
    _cleanup_rpc_document_ struct rpc_document document = RPC_DOCUMENT_INIT;
    _cleanup_error_ struct error ignored = ERROR_INIT;

    if (err->hint)
        return;
    if (fault == RPC_INVALID_PARAMS)
        error_hint(err, "'cloche rpc methods %s%s%s%s' describes them.",
                   options->socket ? "--socket " : "", options->socket ? options->socket : "",
                   options->socket ? " " : "", method);
    if (fault != RPC_METHOD_NOT_FOUND ||
        rpc_document_fetch(remote, options->socket, options->timeout_ms, &document, &ignored) < 0)
        return;
    const char *near = rpc_document_suggest(&document, method);
    if (near)
        error_hint(err, "Did you mean '%s'?", near);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct call_options *options = values;
    _cleanup_rpc_remote_answer_ struct rpc_remote_answer answer = {0};
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;
    _cleanup_buffer_ struct buffer params = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = rpc_remote_open(cli, options->socket, false, NULL, NULL, &remote, &err);
    if (r == 0)
        r = build_params(remote, options, operands, &params, &err);
    if (r == 0) {
        const struct rpc_remote_call call = {.method = operands[0],
                                             .params = buffer_text(&params),
                                             .timeout_ms = options->timeout_ms,
                                             .fd = options->fd.set ? (int)options->fd.value : -1};
        r = rpc_remote_call(remote, &call, &answer, &err);
        if (r < 0)
            add_hint(remote, options, operands[0], answer.fault, &err);
    }
    if (r == 0)
        r = print_answer(&answer, options->format, &err);
    return r < 0 ? rpc_remote_fail(&err, answer.fault, operands[0],
                                   text_equal(options->format, "json"))
                 : EXIT_DONE;
}

const struct command rpc_call_command = {
    .name = "call",
    .usage = "[OPTIONS] METHOD [NAME=VALUE...]",
    .summary = "Call a method of the management socket and print its result",
    .details = "A value is what the method's description says: a number, true or false, or text.\n"
               "  name=web a.b=x        a parameter; a member of an object\n"
               "  command[]=sh          a further element of an array\n"
               "  memory:=1048576       JSON\n"
               "  config=@file          the text of a file (:=@file: JSON; @-: standard input)\n"
               "  -                     an object on standard input",
    .options = call_groups,
    .values_size = sizeof(struct call_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_METHOD_CALL,
    .run = run,
};
