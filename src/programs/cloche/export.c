#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "output.h"
#include "progress.h"

struct export_options {
    const char *output;
};

static const struct option export_table[] = {
    {
        .name = "output",
        .short_name = 'o',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct export_options, output),
        .argument = "string",
        .help = "Write to this file instead of standard output",
        .complete = COMPLETE_FILES,
    },
    {.name = NULL},
};

static const struct option_group export_groups[] = {{.options = export_table}, {.options = NULL}};

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct export_options *options = values;
    const struct api_container_ref which = {.container = operands[0]};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct progress progress;
    struct output output;

    int r = output_open(options->output, "export", &output, &err);
    if (r >= 0) {
        progress_start(&progress, "Exporting", output.fd, false);
        progress.total = 0;
        r = cli_call_with_fd(cli, "container.export", &which, NULL, output.fd, progress_tick,
                             &progress, &err);
        progress_end(&progress);
    }
    r = output_close(&output, r, &err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command export_command = {
    .name = "export",
    .usage = "[OPTIONS] CONTAINER",
    .summary = "Write the root of a container to a tar, without its volumes",
    .options = export_groups,
    .values_size = sizeof(struct export_options),
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
