#include <stdio.h>

#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "progress.h"

struct commit_options {
    const char *author, *message;
    char **changes;
    bool pause;
};

static const struct option commit_table[] = {
    {
        .name = "author",
        .short_name = 'a',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct commit_options, author),
        .argument = "string",
        .help = "Who made it: Name <address>",
    },
    {
        .name = "change",
        .short_name = 'c',
        .kind = OPTION_LIST,
        .offset = offsetof(struct commit_options, changes),
        .argument = "list",
        .help = "Change its configuration with a Dockerfile instruction",
    },
    {
        .name = "message",
        .short_name = 'm',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct commit_options, message),
        .argument = "string",
        .help = "What is new in it",
    },
    {
        .name = "pause",
        .short_name = 'p',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct commit_options, pause),
        .help = "Hold the container meanwhile (default true)",
    },
    {.name = NULL},
};

static const struct option_group commit_groups[] = {{.options = commit_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct commit_options *options = values;

    options->pause = true;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct commit_options *options = values;
    _cleanup_api_image_id_ struct api_image_id *image = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_container_commit params = {
        .container = operands[0],
        .name = operands[1],
        .message = (char *)options->message,
        .author = (char *)options->author,
        .pause = options->pause,
        .has_pause = true,
        .changes = options->changes,
        .changes_count = strv_length(options->changes),
    };
    struct progress progress;

    progress_start(&progress, "Committing", -1, false);
    int r = cli_call_with_fd(cli, "container.commit", &params, &image, -1, progress_tick, &progress,
                             &err);
    progress_end(&progress);
    if (r < 0)
        return cli_fail(&err);
    printf("%s\n", image->id);
    return EXIT_DONE;
}

const struct command commit_command = {
    .name = "commit",
    .usage = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    .summary = "Make an image of what a container changed",
    .options = commit_groups,
    .values_size = sizeof(struct commit_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = 2,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
