#include <schema/management.h>

#include "cli.h"

struct kill_options {
    const char *signal;
};

static const struct option kill_table[] = {
    {
        .name = "signal",
        .short_name = 's',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct kill_options, signal),
        .argument = "string",
        .help = "Signal to send (default SIGKILL)",
        .complete = COMPLETE_SIGNALS,
    },
    {.name = NULL},
};

static const struct option_group kill_groups[] = {{.options = kill_table}, {.options = NULL}};

static int kill_one(struct cli *cli, const char *container, const void *values, struct error *err)
{
    const struct kill_options *options = values;
    const struct api_container_kill params = {
        .container = (char *)container,
        .signal = (char *)options->signal,
    };

    return cli_call(cli, "container.kill", &params, NULL, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, kill_one, true);
}

const struct command kill_command = {
    .name = "kill",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Send a signal to running containers",
    .options = kill_groups,
    .values_size = sizeof(struct kill_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
