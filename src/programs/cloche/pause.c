#include <schema/management.h>

#include "cli.h"

static int pause_one(struct cli *cli, const char *container, const void *values, struct error *err)
{
    const struct api_container_pause params = {.container = (char *)container};

    return cli_call(cli, "container.pause", &params, NULL, err);
}

static int unpause_one(struct cli *cli, const char *container, const void *values,
                       struct error *err)
{
    const struct api_container_pause params = {.container = (char *)container};

    return cli_call(cli, "container.unpause", &params, NULL, err);
}

static int run_pause(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, pause_one, true);
}

static int run_unpause(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, unpause_one, true);
}

const struct command pause_command = {
    .name = "pause",
    .usage = "CONTAINER [CONTAINER...]",
    .summary = "Hold all processes of containers still",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run_pause,
};

const struct command unpause_command = {
    .name = "unpause",
    .usage = "CONTAINER [CONTAINER...]",
    .summary = "Let the processes of paused containers go on",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run_unpause,
};
