#include <schema/management.h>

#include "cli.h"

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct api_container_rename params = {.container = operands[0], .name = operands[1]};
    _cleanup_error_ struct error err = ERROR_INIT;

    return cli_call(cli, "container.rename", &params, NULL, &err) < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command rename_command = {
    .name = "rename",
    .usage = "CONTAINER NEW_NAME",
    .summary = "Give a container another name",
    .minimum_operands = 2,
    .maximum_operands = 2,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
