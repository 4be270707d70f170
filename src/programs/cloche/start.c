#include <schema/management.h>
#include <stdio.h>

#include "cli.h"
#include "session.h"

struct start_options {
    bool attach, interactive, sig_proxy;
    const char *detach_keys, *checkpoint, *checkpoint_dir;
};

static const struct option start_table[] = {
    {
        .name = "attach",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct start_options, attach),
        .help = "Show its output, pass signals on, and end with its exit code",
    },
    {
        .name = "checkpoint",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct start_options, checkpoint),
        .argument = "string",
        .help = "Go on from a checkpoint (refused: the engine makes none)",
    },
    {
        .name = "checkpoint-dir",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct start_options, checkpoint_dir),
        .argument = "string",
        .help = "Where checkpoints are (refused)",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "detach-keys",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct start_options, detach_keys),
        .argument = "string",
        .help = "Keys that part from it (default \"" DETACH_KEYS_DEFAULT "\")",
    },
    {
        .name = "interactive",
        .short_name = 'i',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct start_options, interactive),
        .help = "Pass standard input on to it",
    },
    {
        .name = "sig-proxy",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct start_options, sig_proxy),
        .help = "Pass signals on to its program (default true)",
    },
    {.name = NULL},
};

static const struct option_group start_groups[] = {{.options = start_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct start_options *options = values;

    options->sig_proxy = true;
    options->detach_keys = DETACH_KEYS_DEFAULT;
}

static int start_one(struct cli *cli, const char *container, const void *values, struct error *err)
{
    const struct api_container_ref params = {.container = (char *)container};

    return cli_call(cli, "container.start", &params, NULL, err);
}

/* Attaches, asks for the end, starts: in this order nothing is missed. */
static int begin(struct cli *cli, const struct start_options *options,
                 const struct api_container_details *details, struct session *session,
                 struct stream *stream, struct error *err)
{
    _cleanup_api_attached_ struct api_attached *attached = NULL;
    const struct api_container_attach params = {
        .container = details->id,
        .stdin_ = options->interactive,
        .has_stdin = true,
        .stdout_ = true,
        .has_stdout = true,
        .stderr_ = true,
        .has_stderr = true,
        .detach_keys = (char *)(uintptr_t)options->detach_keys,
    };
    bool tty = details->effective->tty;

    int r = session_check_terminal(options->interactive, tty, err);
    if (r >= 0)
        r = cli_call_for_fd(cli, "container.attach", &params, &attached, &stream->fd, err);
    if (r >= 0)
        r = session_begin(session, err);
    if (r < 0)
        return r;
    stream->tty = attached->tty;
    return start_one(cli, details->id, NULL, err);
}

static int run_attached(struct cli *cli, const struct start_options *options, char *container)
{
    _cleanup_api_container_details_ struct api_container_details *details = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int signals = stream_take_signals(&err), stream_fd = -1;
    const struct api_container_ref ref = {.container = container};
    struct session session = {.cli = cli};
    struct stream stream = {
        .fd = -1,
        .with_stdin = options->interactive,
        .pass_signals = options->sig_proxy,
    };
    enum stream_end end = STREAM_ENDED;

    int r =
        signals < 0 ? signals : detach_keys_parse(options->detach_keys, &stream.detach_keys, &err);
    if (r >= 0)
        r = cli_call(cli, "container.inspect", &ref, &details, &err);
    if (r >= 0) {
        session.container = details->id;
        session.condition = details->effective->auto_remove ? "removed" : "next-exit";
        r = begin(cli, options, details, &session, &stream, &err);
    }
    stream_fd = stream.fd;
    if (r >= 0)
        r = session_run(&session, &stream, signals, &end, &err);
    if (r < 0)
        return cli_fail(&err);
    return session_finish(&session, &stream, end, EXIT_DONE);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct start_options *options = values;

    if (options->checkpoint || options->checkpoint_dir)
        return cli_fail_usage(cli, EXIT_FAILED,
                              "the engine makes no checkpoints of containers; cloche-runtime(8) "
                              "does");
    if (!options->attach && !options->interactive)
        return cli_for_each(cli, operands, values, start_one, true);
    if (operands[1]) {
        fprintf(stderr, "cloche: you cannot start and attach multiple containers at once\n");
        return EXIT_FAILED;
    }
    return run_attached(cli, options, operands[0]);
}

const struct command start_command = {
    .name = "start",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Start containers that were created or have ended",
    .options = start_groups,
    .values_size = sizeof(struct start_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_STOPPED,
    .run = run,
};
