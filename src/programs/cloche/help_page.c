#include <stdio.h>

#include "cli.h"
#include "help.h"

static int run(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!operands[0]) {
        help_overview(&text);
        return cli_print(&text);
    }
    const struct command_group *group = command_group_find(operands[0]);
    const struct spelling *spelling =
        command_find(group ? group->name : NULL, operands[group ? 1 : 0]);
    if (group && !operands[1]) {
        help_command_group(group, &text);
    } else if (spelling && !operands[group ? 2 : 1]) {
        help_command(spelling, &text);
    } else {
        fprintf(stderr, "cloche: there is no help on '%s%s%s'\nSee 'cloche --help'.\n", operands[0],
                operands[1] ? " " : "", operands[1] ? operands[1] : "");
        return EXIT_FAILED;
    }
    return cli_print(&text);
}

const struct command help_page_command = {
    .name = "help",
    .usage = "[COMMAND]",
    .summary = "Show how a command is used",
    .maximum_operands = 2,
    .complete = COMPLETE_COMMANDS,
    .run = run,
};
