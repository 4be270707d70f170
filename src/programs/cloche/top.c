/*
 * cloche top CONTAINER: its processes, as docker has it. Without one: what all containers use, live
 * (top_view.c).
 */
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "table.h"
#include "top_view.h"

static const char *const sort_names[] = {"cpu",      "memory", "network", "disk",
                                         "restarts", "name",   NULL};

static const struct option top_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct top_options, all),
        .help = "Show all containers (default: those that run)",
    },
    {
        .name = "interval",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct top_options, interval),
        .argument = "int",
        .help = "Seconds between two looks (default 2)",
        .minimum = 1,
        .maximum = 3600,
    },
    {
        .name = "sort",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct top_options, sort),
        .argument = "string",
        .help = "What comes first: the most cpu (default), memory, network, disk, restarts; or by "
                "name",
        .complete = COMPLETE_CHOICES,
        .choices = sort_names,
    },
    {.name = NULL},
};

static const struct option_group top_groups[] = {{.options = top_table}, {.options = NULL}};

static int show_processes(struct cli *cli, char *const *operands)
{
    _cleanup_api_processes_ struct api_processes *processes = NULL;
    struct api_container_top params = {.container = operands[0]};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_table_ struct table *table = table_create();
    _cleanup_error_ struct error err = ERROR_INIT;

    if (operands[1]) {
        params.arguments = (char **)(uintptr_t)(operands + 1);
        params.arguments_count = strv_length(operands + 1);
    }
    if (cli_call(cli, "container.top", &params, &processes, &err) < 0)
        return cli_fail(&err);
    _cleanup_free_ char *titles = strv_join(processes->titles, "\t");
    table_add(table, titles);
    for (size_t i = 0; i < processes->processes_count; i++) {
        _cleanup_free_ char *row = strv_join(processes->processes[i]->items, "\t");
        table_add(table, row);
    }
    table_write(table, &text);
    return cli_print(&text);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    return operands[0] ? show_processes(cli, operands) : top_view(cli, values);
}

const struct command top_command = {
    .name = "top",
    .usage = "[OPTIONS] [CONTAINER [ps OPTIONS]]",
    .summary = "Show the processes of a container, or what all containers use, live",
    .details = "Keys of the live view: c, m, n, d, r and a sort by CPU, memory, network, disk, "
               "restarts\nand name; s shows also containers that do not run; q ends it.",
    .options = top_groups,
    .values_size = sizeof(struct top_options),
    .maximum_operands = -1,
    .stop_at_operand = true,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
