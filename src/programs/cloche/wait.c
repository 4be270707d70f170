#include <stdio.h>

#include <schema/management.h>

#include "cli.h"

static int wait_for_one(struct cli *cli, const char *container, const void *values,
                        struct error *err)
{
    _cleanup_api_container_waited_ struct api_container_waited *waited = NULL;
    const struct api_container_wait params = {.container = (char *)container};

    /* A container does not end with a daemon: the next one knows. The method itself may not be
     * asked twice, since another condition (next-exit) may have come true in between. */
    int r = cli_call(cli, "container.wait", &params, &waited, err);
    while (r < 0 && cli_daemon_is_gone(cli, r))
        r = cli_call(cli, "container.wait", &params, &waited, err);
    if (r >= 0)
        printf("%d\n", waited->exit_code);
    return r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, wait_for_one, false);
}

const struct command wait_command = {
    .name = "wait",
    .usage = "CONTAINER [CONTAINER...]",
    .summary = "Wait until containers have ended and print their exit codes",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
