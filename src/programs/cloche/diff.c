#include <base/alloc.h>
#include <schema/management.h>

#include "cli.h"

static int run(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_api_container_changes_ struct api_container_changes *changes = NULL;
    const struct api_container_ref which = {.container = operands[0]};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (cli_call(cli, "container.changes", &which, &changes, &err) < 0)
        return cli_fail(&err);
    for (size_t i = 0; i < changes->changes_count; i++) {
        const struct api_file_change *change = changes->changes[i];
        const char letter = change->kind[0] == 'a' ? 'A' : change->kind[0] == 'd' ? 'D' : 'C';
        buffer_printf(&text, "%c %s\n", letter, change->path);
    }
    return cli_print(&text);
}

const struct command diff_command = {
    .name = "diff",
    .usage = "CONTAINER",
    .summary = "Show what a container has added (A), changed (C) and deleted (D) in its root",
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
