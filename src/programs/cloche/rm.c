#include <string.h>

#include <base/alloc.h>
#include <schema/management.h>

#include "cli.h"

struct rm_options {
    bool force, link, volumes;
};

static const struct option rm_table[] = {
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rm_options, force),
        .help = "Also remove those that run, with SIGKILL first",
    },
    {
        .name = "link",
        .short_name = 'l',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rm_options, link),
        .help = "Remove a link, CONTAINER/ALIAS, not the container",
    },
    {
        .name = "volumes",
        .short_name = 'v',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rm_options, volumes),
        .help = "Also remove their anonymous volumes",
    },
    {.name = NULL},
};

static const struct option_group rm_groups[] = {{.options = rm_table}, {.options = NULL}};

static int remove_one(struct cli *cli, const char *container, const void *values, struct error *err)
{
    const struct rm_options *options = values;
    const struct api_container_remove params = {
        .container = (char *)container,
        .force = options->force,
        .has_force = true,
        .volumes = options->volumes,
        .has_volumes = true,
    };

    int r = cli_call(cli, "container.remove", &params, NULL, err);
    if (r != -ENOENT || !options->force)
        return r;
    /* With --force what is not there is as good as removed: docker complains, and ends with 0. */
    cli_fail(err);
    return 1;
}

static int remove_link(struct cli *cli, const char *link, const void *values _unused_,
                       struct error *err)
{
    const size_t length = strcspn(link, "/");
    _cleanup_free_ char *container = xstrndup(link, length);
    const struct api_container_update params = {.container = container,
                                                .remove_link = (char *)link + length + 1};

    if (!link[length])
        return error_set(err, -EINVAL, "Conflict, cannot remove the default name of the container");
    return cli_call(cli, "container.update", &params, NULL, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct rm_options *options = values;

    return cli_for_each(cli, operands, values, options->link ? remove_link : remove_one, true);
}

const struct command rm_command = {
    .name = "rm",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Remove containers",
    .options = rm_groups,
    .values_size = sizeof(struct rm_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
