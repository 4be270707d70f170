#include <stdio.h>

#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "session.h"

struct attach_options {
    bool no_stdin, sig_proxy;
    const char *detach_keys;
};

static const struct option attach_table[] = {
    {
        .name = "detach-keys",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct attach_options, detach_keys),
        .argument = "string",
        .help = "Keys that part from it (default \"" DETACH_KEYS_DEFAULT "\")",
    },
    {
        .name = "no-stdin",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct attach_options, no_stdin),
        .help = "Keep standard input to ourselves",
    },
    {
        .name = "sig-proxy",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct attach_options, sig_proxy),
        .help = "Pass signals on to its program (default true)",
    },
    {.name = NULL},
};

static const struct option_group attach_groups[] = {{.options = attach_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct attach_options *options = values;

    options->sig_proxy = true;
    options->detach_keys = DETACH_KEYS_DEFAULT;
}

static int check_state(const struct api_container_details *details, struct error *err)
{
    if (text_equal(details->state->status, "paused"))
        return error_set(err, -EBUSY, "You cannot attach to a paused container, unpause it first");
    if (!details->state->running)
        return error_set(err, -EBUSY, "You cannot attach to a stopped container, start it first");
    return 0;
}

static int begin(struct cli *cli, const struct attach_options *options,
                 const struct api_container_details *details, struct session *session,
                 struct stream *stream, struct error *err)
{
    _cleanup_api_attached_ struct api_attached *attached = NULL;
    bool with_stdin = !options->no_stdin && details->effective->open_stdin;
    const struct api_container_attach params = {
        .container = details->id,
        .stdin_ = with_stdin,
        .has_stdin = true,
        .stdout_ = true,
        .has_stdout = true,
        .stderr_ = true,
        .has_stderr = true,
        .detach_keys = (char *)(uintptr_t)options->detach_keys,
    };

    int r = check_state(details, err);
    if (r >= 0)
        r = session_check_terminal(with_stdin, details->effective->tty, err);
    if (r >= 0)
        r = session_begin(session, err);
    if (r >= 0)
        r = cli_call_for_fd(cli, "container.attach", &params, &attached, &stream->fd, err);
    if (r < 0)
        return r;
    stream->tty = attached->tty;
    stream->with_stdin = with_stdin;
    return 0;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct attach_options *options = values;
    _cleanup_api_container_details_ struct api_container_details *details = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int signals = stream_take_signals(&err), stream_fd = -1;
    const struct api_container_ref ref = {.container = operands[0]};
    struct session session = {.cli = cli, .condition = "not-running"};
    struct stream stream = {.fd = -1, .pass_signals = options->sig_proxy};
    enum stream_end end = STREAM_ENDED;

    int r =
        signals < 0 ? signals : detach_keys_parse(options->detach_keys, &stream.detach_keys, &err);
    if (r >= 0)
        r = cli_call(cli, "container.inspect", &ref, &details, &err);
    if (r >= 0) {
        session.container = details->id;
        r = begin(cli, options, details, &session, &stream, &err);
    }
    stream_fd = stream.fd;
    if (r >= 0)
        r = session_run(&session, &stream, signals, &end, &err);
    if (r < 0)
        return cli_fail(&err);
    return session_finish(&session, &stream, end, EXIT_FAILED);
}

const struct command attach_command = {
    .name = "attach",
    .usage = "[OPTIONS] CONTAINER",
    .summary = "Connect to the input and output of a running container",
    .options = attach_groups,
    .values_size = sizeof(struct attach_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
