#include <stdio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "network_filters.h"

struct rm_options {
    bool force;
};

static const struct option rm_table[] = {
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rm_options, force),
        .help = "No error for a network that is not there",
    },
    {.name = NULL},
};

static const struct option_group rm_groups[] = {{.options = rm_table}, {.options = NULL}};

static int remove_one(struct cli *cli, const char *network, const void *values, struct error *err)
{
    const struct rm_options *options = values;
    const struct api_network_remove params = {
        .network = (char *)network, .force = options->force, .has_force = true};

    return cli_call(cli, "network.remove", &params, NULL, err);
}

static int run_rm(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, remove_one, true);
}

const struct command network_rm_command = {
    .name = "rm",
    .usage = "[OPTIONS] NETWORK [NETWORK...]",
    .summary = "Remove networks",
    .options = rm_groups,
    .values_size = sizeof(struct rm_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_NETWORKS,
    .run = run_rm,
};

/* ---- prune */

struct prune_options {
    char **filters;
    bool force;
};

static const struct option prune_table[] = {
    {
        .name = "filter",
        .kind = OPTION_LIST,
        .offset = offsetof(struct prune_options, filters),
        .argument = "list",
        .help = "Remove only some: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]",
    },
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct prune_options, force),
        .help = "Do not ask",
    },
    {.name = NULL},
};

static const struct option_group prune_groups[] = {{.options = prune_table}, {.options = NULL}};

static bool is_confirmed(void)
{
    char answer[8] = "";

    fputs("WARNING! This will remove all custom networks not used by at least one container.\n"
          "Are you sure you want to continue? [y/N] ",
          stdout);
    fflush(stdout);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* "label!=x" has its exclamation mark in the key. */
static int run_prune(struct cli *cli, const void *values, char *const *operands)
{
    const struct prune_options *options = values;
    _cleanup_api_network_filters_ struct api_network_filters *filters = NULL;
    _cleanup_api_network_pruned_ struct api_network_pruned *pruned = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!options->force && !is_confirmed())
        return EXIT_DONE;
    int r = network_filters(options->filters, &filters, &err);
    const struct api_network_prune params = {.filters = filters};
    if (r >= 0)
        r = cli_call(cli, "network.prune", &params, &pruned, &err);
    if (r < 0)
        return cli_fail(&err);
    if (pruned->networks_deleted_count > 0)
        buffer_append_text(&text, "Deleted Networks:\n");
    for (size_t i = 0; i < pruned->networks_deleted_count; i++)
        buffer_printf(&text, "%s\n", pruned->networks_deleted[i]);
    if (pruned->networks_deleted_count > 0)
        buffer_append_text(&text, "\n");
    return cli_print(&text);
}

const struct command network_prune_command = {
    .name = "prune",
    .usage = "[OPTIONS]",
    .summary = "Remove the networks that no container is on",
    .options = prune_groups,
    .values_size = sizeof(struct prune_options),
    .run = run_prune,
};
