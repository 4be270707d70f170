#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "prune.h"

struct builder_options {
    bool all, force;
    char **filters;
    uint64_t keep;
};

static int parse_bytes(const char *text, void *value, struct error *err)
{
    return text_to_size(text, value) < 0 ? error_set(err, -EINVAL, "invalid size: '%s'", text) : 0;
}

static const struct option builder_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct builder_options, all),
        .help = "Also forget the steps that images stand on",
    },
    {
        .name = "filter",
        .kind = OPTION_LIST,
        .offset = offsetof(struct builder_options, filters),
        .argument = "filter",
        .help = "Remove only those made before: until=TIME",
    },
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct builder_options, force),
        .help = "Do not ask",
    },
    {
        .name = "keep-storage",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct builder_options, keep),
        .argument = "bytes",
        .parse = parse_bytes,
        .help = "Leave this much of it, of what was used last",
    },
    {.name = NULL},
};

static const struct option_group builder_groups[] = {{.options = builder_table}, {.options = NULL}};

static int take_filters(char *const *filters, struct api_build_prune *params, struct error *err)
{
    for (size_t i = 0; filters && filters[i]; i++) {
        if (!text_starts_with(filters[i], "until="))
            return error_set(err, -EINVAL, "invalid filter '%s': only until=TIME is known",
                             filters[i]);
        free(steal_ptr(params->until));
        int r = human_point_in_time(filters[i] + 6, time(NULL), &params->until, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct builder_options *options = values;
    _cleanup_api_build_pruned_ struct api_build_pruned *pruned = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    struct api_build_prune params = {.all = options->all,
                                     .has_all = true,
                                     .keep_storage = options->keep,
                                     .has_keep_storage = options->keep != 0};

    if (!options->force &&
        !prune_confirmed(options->all ? "This will remove all build cache."
                                      : "This will remove all dangling build cache."))
        return EXIT_DONE;
    int r = take_filters(options->filters, &params, &err);
    if (r >= 0)
        r = cli_call(cli, "build.prune", &params, &pruned, &err);
    free(params.until);
    if (r < 0)
        return cli_fail(&err);
    if (pruned->deleted_count)
        buffer_append_text(&out, "Deleted build cache objects:\n");
    for (size_t i = 0; i < pruned->deleted_count; i++)
        buffer_printf(&out, "%s\n", pruned->deleted[i]);
    if (pruned->deleted_count)
        buffer_append_char(&out, '\n');
    prune_show_reclaimed(pruned->space_reclaimed, &out);
    return cli_print(&out);
}

const struct command builder_prune_command = {
    .name = "prune",
    .usage = "[OPTIONS]",
    .summary = "Remove results of build steps that no image needs",
    .options = builder_groups,
    .values_size = sizeof(struct builder_options),
    .run = run,
};
