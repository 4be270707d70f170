#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/text.h>
#include <rpc/client.h>
#include <rpc/server.h>
#include <schema/management.h>

#include "cid_file.h"
#include "cli.h"
#include "session.h"
#include "terminal.h"
#include "spec.h"
#include "transfer.h"

struct run_options {
    struct spec_options spec;
    bool detach, sig_proxy;
    const char *detach_keys;
    const char *pull;
    bool quiet;
};

static const struct option run_table[] = {
    {
        .name = "detach",
        .short_name = 'd',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct run_options, detach),
        .help = "Leave it running in the background and print its ID",
    },
    {
        .name = "detach-keys",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct run_options, detach_keys),
        .argument = "string",
        .help = "Keys that part from it (default \"" DETACH_KEYS_DEFAULT "\")",
    },
    {
        .name = "sig-proxy",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct run_options, sig_proxy),
        .help = "Pass signals on to its program (default true)",
    },
    {.name = NULL},
};

static const char *const pull_words[] = {"always", "missing", "never", NULL};

static const struct option pull_table[] = {
    {
        .name = "pull",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct run_options, pull),
        .argument = "string",
        .help = "Get the image before: always, never, or when it is missing (default missing)",
        .complete = COMPLETE_CHOICES,
        .choices = pull_words,
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct run_options, quiet),
        .help = "Do not show how far getting the image is",
    },
    {.name = NULL},
};

static const struct option_group run_groups[] = {
    SPEC_OPTION_GROUPS(struct run_options, spec),
    {.options = run_table},
    {.options = pull_table},
    {.options = NULL},
};

static void set_defaults(void *values)
{
    struct run_options *options = values;

    options->sig_proxy = true;
    options->detach_keys = DETACH_KEYS_DEFAULT;
}

/* As the CLI of docker does: what was created for this run goes when it could not be started. */
static void remove_unstarted(struct cli *cli, const struct run_options *options, char *id)
{
    const struct api_container_remove params = {.container = id, .force = true, .has_force = true};

    if (options->spec.remove && cli->client)
        cli_call(cli, "container.remove", &params, NULL, NULL);
}

static int start(struct cli *cli, const struct run_options *options, char *id)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_container_ref params = {.container = id};

    if (cli_call(cli, "container.start", &params, NULL, &err) >= 0)
        return EXIT_DONE;
    int code = cli_fail_run(cli, &err);
    remove_unstarted(cli, options, id);
    return code;
}

static int attach(struct cli *cli, const struct run_options *options, char *id,
                  struct session *session, struct stream *stream, struct error *err)
{
    _cleanup_api_attached_ struct api_attached *attached = NULL;
    const struct api_container_attach params = {
        .container = id,
        .stdin_ = spec_attaches(&options->spec, "stdin"),
        .has_stdin = true,
        .stdout_ = spec_attaches(&options->spec, "stdout"),
        .has_stdout = true,
        .stderr_ = spec_attaches(&options->spec, "stderr"),
        .has_stderr = true,
        .detach_keys = (char *)(uintptr_t)options->detach_keys,
    };

    int r = cli_call_for_fd(cli, "container.attach", &params, &attached, &stream->fd, err);
    if (r < 0)
        return r;
    stream->tty = attached->tty;
    return session_begin(session, err);
}

static int run_attached(struct cli *cli, const struct run_options *options, char *id,
                        const struct detach_keys *keys)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int signals = stream_take_signals(&err), stream_fd = -1;
    struct session session = {
        .cli = cli,
        .container = id,
        .condition = options->spec.remove ? "removed" : "next-exit",
    };
    struct stream stream = {
        .fd = -1,
        .with_stdin = spec_attaches(&options->spec, "stdin"),
        .pass_signals = options->sig_proxy,
        .detach_keys = *keys,
    };
    enum stream_end end;

    int r = signals < 0 ? signals : attach(cli, options, id, &session, &stream, &err);
    stream_fd = stream.fd;
    if (r < 0) {
        remove_unstarted(cli, options, id);
        return cli_fail_run(cli, &err);
    }
    int code = start(cli, options, id);
    if (code != EXIT_DONE)
        return code;
    r = session_run(&session, &stream, signals, &end, &err);
    if (r < 0 && r != -EPIPE)
        return cli_fail_run(cli, &err);
    return r < 0 ? EXIT_FAILED : session_finish(&session, &stream, end, EXIT_DONE);
}

static void note_attached(const struct spec_options *options, struct api_container_spec *spec)
{
    spec->attach_stdin = spec->has_attach_stdin = spec_attaches(options, "stdin");
    spec->attach_stdout = spec->has_attach_stdout = spec_attaches(options, "stdout");
    spec->attach_stderr = spec->has_attach_stderr = spec_attaches(options, "stderr");
    spec->stdin_once = spec->has_stdin_once = spec->open_stdin && spec->attach_stdin;
}

/* A program that asks at once finds it: it does not wait for us to resize it. */
static void note_size(struct api_container_spec *spec)
{
    if (spec->tty && (terminal_size(STDIN_FILENO, &spec->rows, &spec->columns) >= 0 ||
                      terminal_size(STDOUT_FILENO, &spec->rows, &spec->columns) >= 0))
        spec->has_rows = spec->has_columns = true;
}

static bool is_missing(const struct cli *cli)
{
    return cli->client && rpc_client_error_code(cli->client) == RPC_NO_SUCH_IMAGE;
}

static int pull(struct cli *cli, const struct run_options *options,
                const struct api_container_spec *spec, struct error *err)
{
    return transfer_pull_missing(cli, spec->image, spec->platform, options->quiet, err);
}

/* docker's --pull: what is missing is fetched, unless nothing shall be. */
static int create_with_image(struct cli *cli, const struct run_options *options,
                             const struct api_container_spec *spec,
                             struct api_container_created **ret, struct error *err)
{
    _cleanup_error_ struct error reason = ERROR_INIT;
    int r = text_equal(options->pull, "always") ? pull(cli, options, spec, err) : 0;

    if (r < 0)
        return r;
    r = cli_call(cli, "container.create", spec, ret, &reason);
    if (r >= 0)
        return r;
    if (!is_missing(cli) || text_equal(options->pull, "never"))
        return error_move(err, &reason);
    if (!options->quiet)
        fprintf(stderr, "Unable to find image '%s%s' locally\n", spec->image,
                strpbrk(strrchr(spec->image, '/') ? strrchr(spec->image, '/') : spec->image, ":@")
                    ? ""
                    : ":latest");
    r = pull(cli, options, spec, err);
    return r < 0 ? r : cli_call(cli, "container.create", spec, ret, err);
}

static int create(struct cli *cli, const struct run_options *options, char *const *operands,
                  struct api_container_created **ret, struct error *err)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = NULL;

    int r = spec_build(&options->spec, operands, &spec, err);
    if (r < 0)
        return r;
    if (!options->detach)
        note_attached(&options->spec, spec);
    note_size(spec);
    struct cid_file cid_file = {.path = options->spec.cidfile, .fd = -1};
    r = cid_file_open(&cid_file, err);
    if (r < 0)
        return r;
    r = create_with_image(cli, options, spec, ret, err);
    for (size_t i = 0; r >= 0 && i < (*ret)->warnings_count; i++)
        fprintf(stderr, "WARNING: %s\n", (*ret)->warnings[i]);
    return cid_file_finish(&cid_file, r >= 0 ? (*ret)->id : NULL, r, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct run_options *options = values;
    _cleanup_api_container_created_ struct api_container_created *created = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct detach_keys keys;

    if (options->detach && options->spec.attach) {
        error_set(&err, -EINVAL, "conflicting options: cannot specify both --attach and --detach");
        return cli_fail_run(cli, &err);
    }
    if (!options->detach && session_check_terminal(spec_attaches(&options->spec, "stdin"),
                                                   options->spec.tty, &err) < 0) {
        fprintf(stderr, "%s\n", error_message(&err));
        return EXIT_FAILED;
    }
    if (detach_keys_parse(options->detach_keys, &keys, &err) < 0 ||
        create(cli, options, operands, &created, &err) < 0)
        return cli_fail_run(cli, &err);
    if (!options->detach)
        return run_attached(cli, options, created->id, &keys);
    int code = start(cli, options, created->id);
    if (code == EXIT_DONE)
        printf("%s\n", created->id);
    return code;
}

const struct command run_command = {
    .name = "run",
    .usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    .summary = "Create a container from an image and run it",
    .options = run_groups,
    .values_size = sizeof(struct run_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = -1,
    .stop_at_operand = true,
    .common = true,
    .complete = COMPLETE_IMAGES,
    .run = run,
};

/* ---- create: the same request, and no start */

static const struct option_group create_groups[] = {
    SPEC_OPTION_GROUPS(struct run_options, spec),
    {.options = pull_table},
    {.options = NULL},
};

static int run_create(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_api_container_created_ struct api_container_created *created = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (create(cli, values, operands, &created, &err) < 0)
        return cli_fail_run(cli, &err);
    printf("%s\n", created->id);
    return EXIT_DONE;
}

const struct command create_command = {
    .name = "create",
    .usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    .summary = "Create a container from an image, without starting it",
    .options = create_groups,
    .values_size = sizeof(struct run_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .stop_at_operand = true,
    .complete = COMPLETE_IMAGES,
    .run = run_create,
};
