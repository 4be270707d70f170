#include <stdio.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

#include "rpc_remote.h"

struct ping_options {
    const char *socket;
    const char *format;
    uint64_t timeout_ms;
    struct option_number count;
};

static const char *const ping_formats[] = {"json", "text", NULL};

static const struct option ping_table[] = {
    {
        .name = "count",
        .short_name = 'c',
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct ping_options, count),
        .argument = "int",
        .help = "How many times (default 1)",
        .minimum = 1,
        .maximum = 1000000,
    },
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct ping_options, format),
        .argument = "string",
        .help = "\"json\" or \"text\" (default \"text\")",
        .complete = COMPLETE_CHOICES,
        .choices = ping_formats,
    },
    {
        .name = "socket",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct ping_options, socket),
        .argument = "path",
        .help = "Socket of another server than the instance's daemon",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "timeout",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct ping_options, timeout_ms),
        .argument = "duration",
        .help = "How long an answer may take (default 10s)",
        .parse = rpc_parse_timeout,
    },
    {.name = NULL},
};

static const struct option_group ping_groups[] = {{.options = ping_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct ping_options *options = values;

    options->timeout_ms = 10000;
}

/* A ping says whether there is a server: it never starts one. */
static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct ping_options *options = values;
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    int64_t count = options->count.set ? options->count.value : 1;
    bool json = text_equal(options->format, "json");
    int fault = 0;

    int r = rpc_remote_open(cli, options->socket, true, NULL, NULL, &remote, &err);
    for (int64_t i = 1; r == 0 && i <= count; i++) {
        _cleanup_rpc_remote_answer_ struct rpc_remote_answer answer = {0};
        const struct rpc_remote_call call = {
            .method = "rpc.ping", .params = "{}", .timeout_ms = options->timeout_ms, .fd = -1};
        r = rpc_remote_call(remote, &call, &answer, &err);
        fault = answer.fault;
        if (r == 0)
            printf(json ? "{\"number\":%lld,\"microseconds\":%.1f}\n" : "%lld: %.1f us\n",
                   (long long)i, (double)answer.took_ns / 1e3);
        fflush(stdout);
    }
    return r < 0 ? rpc_remote_fail(&err, fault, "rpc.ping", json) : EXIT_DONE;
}

const struct command rpc_ping_command = {
    .name = "ping",
    .usage = "[OPTIONS]",
    .summary = "Ask the server for nothing and print how long the answer took",
    .options = ping_groups,
    .values_size = sizeof(struct ping_options),
    .set_defaults = set_defaults,
    .run = run,
};
