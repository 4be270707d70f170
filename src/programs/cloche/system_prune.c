/*
 * system prune: containers that do not run, then images that are free then, then what builds keep.
 */
#include <stdio.h>

#include <base/alloc.h>

#include "prune.h"
#include "volume.h"

struct system_prune_options {
    bool all, force, volumes;
    char **filters;
};

static const struct option system_prune_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct system_prune_options, all),
        .help = "Remove all images that no container uses, not only those without a name",
    },
    {
        .name = "filter",
        .kind = OPTION_LIST,
        .offset = offsetof(struct system_prune_options, filters),
        .argument = "filter",
        .help = "Remove only those with until=TIME, label=KEY[=value] or label!=KEY[=value]",
        .complete = COMPLETE_EXAMPLES,
        .choices = prune_filter_words,
    },
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct system_prune_options, force),
        .help = "Do not ask",
    },
    {
        .name = "volumes",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct system_prune_options, volumes),
        .help = "Remove anonymous volumes that no container has, too",
    },
    {.name = NULL},
};

static const struct option_group system_prune_groups[] = {{.options = system_prune_table},
                                                          {.options = NULL}};

static bool confirmed(const struct system_prune_options *options)
{
    _cleanup_free_ char *warning = xasprintf(
        "This will remove:\n  - all stopped containers\n%s  - %s\n  - unused build cache\n",
        options->volumes ? "  - all anonymous volumes not used by at least one container\n" : "",
        options->all ? "all images without at least one container associated to them"
                     : "all dangling images");

    return prune_confirmed(warning);
}

/* What builds keep has no labels. */
static bool by_label(const struct api_prune_filters *filters)
{
    return filters->label_count || filters->label_not_count;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct system_prune_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_api_prune_filters_ struct api_prune_filters *filters =
        prune_filters(options->filters, &err);
    uint64_t space = 0;

    if (!filters)
        return cli_fail(&err);
    if (!options->force && !confirmed(options))
        return EXIT_DONE;
    int r = prune_containers(cli, filters, &out, &space, &err);
    if (r >= 0)
        r = prune_images(cli, options->all, filters, &out, &space, &err);
    if (r >= 0 && !by_label(filters))
        r = prune_builds(cli, options->all, filters, &out, &space, &err);
    if (r >= 0 && options->volumes)
        r = prune_volumes(cli, false, NULL, &out, &space, &err);
    /* What went is told also when something did not. */
    if (r >= 0)
        prune_show_reclaimed(space, &out);
    int code = cli_print(&out);
    return r < 0 ? cli_fail(&err) : code;
}

const struct command system_prune_command = {
    .name = "prune",
    .usage = "[OPTIONS]",
    .summary = "Remove what nobody uses",
    .options = system_prune_groups,
    .values_size = sizeof(struct system_prune_options),
    .run = run,
};
