#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "output.h"
#include "transfer.h"

struct save_options {
    const char *output;
};

static const struct option save_table[] = {
    {
        .name = "output",
        .short_name = 'o',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct save_options, output),
        .argument = "string",
        .help = "Write to this file instead of standard output",
        .complete = COMPLETE_FILES,
    },
    {.name = NULL},
};

static const struct option_group save_groups[] = {{.options = save_table}, {.options = NULL}};

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct save_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_image_save params = {
        .names = (char **)operands,
        .names_count = strv_length(operands),
    };
    struct output target;

    int r = output_open(options->output, "save", &target, &err);
    if (r >= 0)
        r = transfer_call_with_fd(cli, "image.save", &params, NULL, target.fd, stderr, false, &err);
    r = output_close(&target, r, &err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command save_command = {
    .name = "save",
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Write images to an archive that other tools read",
    .options = save_groups,
    .values_size = sizeof(struct save_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
