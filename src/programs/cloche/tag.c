#include <schema/management.h>

#include "cli.h"

static int run(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_image_tag params = {.image = operands[0], .name = operands[1]};

    return cli_call(cli, "image.tag", &params, NULL, &err) < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command tag_command = {
    .name = "tag",
    .usage = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    .summary = "Give an image a further name",
    .minimum_operands = 2,
    .maximum_operands = 2,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
