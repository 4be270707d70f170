#include <schema/management.h>

#include "stop.h"

static int restart_one(struct cli *cli, const char *container, const void *values,
                       struct error *err)
{
    const struct stop_options *options = values;
    const struct api_container_restart params = {
        .container = (char *)container,
        .timeout = (int32_t)options->timeout.value,
        .has_timeout = options->timeout.set,
        .signal = (char *)options->signal,
    };

    return cli_call(cli, "container.restart", &params, NULL, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, restart_one, true);
}

const struct command restart_command = {
    .name = "restart",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Stop containers and start them again",
    .options = stop_groups,
    .values_size = sizeof(struct stop_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
