#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "session.h"
#include "spec.h"

struct exec_options {
    bool detach, interactive, privileged, tty;
    const char *detach_keys, *user, *workdir;
    char **env, **env_file;
};

static const struct option exec_table[] = {
    {
        .name = "detach",
        .short_name = 'd',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct exec_options, detach),
        .help = "Leave it running in the background",
    },
    {
        .name = "detach-keys",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct exec_options, detach_keys),
        .argument = "string",
        .help = "Keys that part from it (default \"" DETACH_KEYS_DEFAULT "\")",
    },
    {
        .name = "env",
        .short_name = 'e',
        .kind = OPTION_LIST,
        .offset = offsetof(struct exec_options, env),
        .argument = "list",
        .help = "Set an environment variable: NAME=value, or NAME to pass ours on",
    },
    {
        .name = "env-file",
        .kind = OPTION_LIST,
        .offset = offsetof(struct exec_options, env_file),
        .argument = "list",
        .help = "Set environment variables from the lines of a file",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "interactive",
        .short_name = 'i',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct exec_options, interactive),
        .help = "Pass standard input on to it",
    },
    {
        .name = "privileged",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct exec_options, privileged),
        .help = "Give it all capabilities",
    },
    {
        .name = "tty",
        .short_name = 't',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct exec_options, tty),
        .help = "Give it a terminal",
    },
    {
        .name = "user",
        .short_name = 'u',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct exec_options, user),
        .argument = "string",
        .help = "User and group, names or numbers: USER[:GROUP]",
    },
    {
        .name = "workdir",
        .short_name = 'w',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct exec_options, workdir),
        .argument = "string",
        .help = "Working directory in the container",
    },
    {.name = NULL},
};

static const struct option_group exec_groups[] = {{.options = exec_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct exec_options *options = values;

    options->detach_keys = DETACH_KEYS_DEFAULT;
}

/* What is not set is left out: the document's defaults are the daemon's. */
static void describe(const struct exec_options *options, char *const *operands,
                     struct api_container_exec *params)
{
    params->container = operands[0];
    params->command = (char **)operands + 1;
    params->command_count = strv_length(operands + 1);
    params->tty = params->has_tty = options->tty;
    params->stdin_ = params->has_stdin = options->interactive;
    params->detach = params->has_detach = options->detach;
    params->privileged = params->has_privileged = options->privileged;
    params->user = (char *)options->user;
    params->working_dir = (char *)options->workdir;
    params->detach_keys = (char *)options->detach_keys;
    if (options->tty && !options->detach &&
        (terminal_size(STDIN_FILENO, &params->rows, &params->columns) >= 0 ||
         terminal_size(STDOUT_FILENO, &params->rows, &params->columns) >= 0))
        params->has_rows = params->has_columns = true;
}

/* Starts it; with a stream unless it is detached. */
static int begin(struct cli *cli, const struct exec_options *options, char *const *operands,
                 struct api_exec_started **ret, int *ret_fd, struct error *err)
{
    _cleanup_strv_ char **env = NULL;
    struct api_container_exec params = {0};
    int r = 0;

    for (char **path = options->env_file; r >= 0 && path && *path; path++)
        r = spec_add_env_file(&env, *path, err);
    if (r < 0)
        return r;
    for (char **text = options->env; text && *text; text++)
        spec_add_env(&env, *text);
    describe(options, operands, &params);
    params.env = env;
    params.env_count = strv_length(env);
    if (options->detach)
        return cli_call(cli, "container.exec", &params, ret, err);
    return cli_call_for_fd(cli, "container.exec", &params, ret, ret_fd, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct exec_options *options = values;
    _cleanup_api_exec_started_ struct api_exec_started *started = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int signals = -1, stream_fd = -1;
    struct session session = {.cli = cli, .container = operands[0]};
    struct stream stream = {.tty = options->tty, .with_stdin = options->interactive};
    enum stream_end end;

    if (!options->detach && session_check_terminal(options->interactive, options->tty, &err) < 0) {
        fprintf(stderr, "%s\n", error_message(&err));
        return EXIT_FAILED;
    }
    int r = detach_keys_parse(options->detach_keys, &stream.detach_keys, &err);
    if (r >= 0 && !options->detach)
        r = signals = stream_take_signals(&err);
    if (r >= 0)
        r = begin(cli, options, operands, &started, &stream_fd, &err);
    if (r < 0)
        return cli_fail_exec(cli, &err);
    if (options->detach)
        return EXIT_DONE;
    session.exec_id = started->exec_id;
    stream.fd = stream_fd;
    r = session_begin(&session, &err);
    if (r >= 0)
        r = session_run(&session, &stream, signals, &end, &err);
    return r < 0 ? cli_fail(&err) : session_finish(&session, &stream, end, EXIT_DONE);
}

const struct command exec_command = {
    .name = "exec",
    .usage = "[OPTIONS] CONTAINER COMMAND [ARG...]",
    .summary = "Run a further program in a running container",
    .options = exec_groups,
    .values_size = sizeof(struct exec_options),
    .set_defaults = set_defaults,
    .minimum_operands = 2,
    .maximum_operands = -1,
    .stop_at_operand = true,
    .common = true,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
