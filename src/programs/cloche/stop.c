#include <schema/management.h>

#include "stop.h"

static const struct option stop_table[] = {
    {
        .name = "signal",
        .short_name = 's',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct stop_options, signal),
        .argument = "string",
        .help = "Signal to stop it with (default: the container's stop signal)",
        .complete = COMPLETE_SIGNALS,
    },
    {
        .name = "time",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct stop_options, timeout),
        .argument = "int",
        .help = "The same as --timeout",
        .minimum = -1,
        .maximum = INT32_MAX,
    },
    {
        .name = "timeout",
        .short_name = 't',
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct stop_options, timeout),
        .argument = "int",
        .help = "Seconds until SIGKILL (default: the container's, else 10; -1: never)",
        .minimum = -1,
        .maximum = INT32_MAX,
    },
    {.name = NULL},
};

const struct option_group stop_groups[] = {{.options = stop_table}, {.options = NULL}};

int stop_container(struct cli *cli, const char *container, const void *stop_options,
                   struct error *err)
{
    const struct stop_options *options = stop_options;
    const struct api_container_stop params = {
        .container = (char *)container,
        .timeout = (int32_t)options->timeout.value,
        .has_timeout = options->timeout.set,
        .signal = (char *)options->signal,
    };

    return cli_call(cli, "container.stop", &params, NULL, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, stop_container, true);
}

const struct command stop_command = {
    .name = "stop",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Stop running containers",
    .options = stop_groups,
    .values_size = sizeof(struct stop_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
