#include <stdio.h>

#include <schema/management.h>

#include "cli.h"

struct rmi_options {
    bool force, no_prune;
};

static const struct option rmi_table[] = {
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rmi_options, force),
        .help = "Also remove images with several names or with ended containers",
    },
    {
        .name = "no-prune",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rmi_options, no_prune),
        .help = "Keep the steps that a build made it by",
    },
    {.name = NULL},
};

static const struct option_group rmi_groups[] = {{.options = rmi_table}, {.options = NULL}};

static int remove_one(struct cli *cli, const char *image, const void *values, struct error *err)
{
    const struct rmi_options *options = values;
    _cleanup_api_image_removed_ struct api_image_removed *removed = NULL;
    const struct api_image_remove params = {
        .image = (char *)image,
        .force = options->force,
        .has_force = true,
        .no_prune = options->no_prune,
        .has_no_prune = true,
    };

    int r = cli_call(cli, "image.remove", &params, &removed, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < removed->untagged_count; i++)
        printf("Untagged: %s\n", removed->untagged[i]);
    for (size_t i = 0; i < removed->deleted_count; i++)
        printf("Deleted: %s\n", removed->deleted[i]);
    return 0;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, remove_one, false);
}

const struct command rmi_command = {
    .name = "rmi",
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Remove names of images, and images without names",
    .options = rmi_groups,
    .values_size = sizeof(struct rmi_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
