/*
 * prune: containers, images.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "prune.h"

struct prune_options {
    bool all, force;
    char **filters;
};

const char *const prune_filter_words[] = {"label!=", "label=", "until=", NULL};

static const struct option all_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct prune_options, all),
        .help = "Remove all images that no container uses, not only those without a name",
    },
    {.name = NULL},
};

static const struct option prune_table[] = {
    {
        .name = "filter",
        .kind = OPTION_LIST,
        .offset = offsetof(struct prune_options, filters),
        .argument = "filter",
        .help = "Remove only those with until=TIME, label=KEY[=value] or label!=KEY[=value]",
        .complete = COMPLETE_EXAMPLES,
        .choices = prune_filter_words,
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

static const struct option_group container_groups[] = {{.options = prune_table}, {.options = NULL}};
static const struct option_group image_groups[] = {
    {.options = all_table}, {.options = prune_table}, {.options = NULL}};

bool prune_confirmed(const char *warning)
{
    char answer[16];

    printf("WARNING! %s\nAre you sure you want to continue? [y/N] ", warning);
    fflush(stdout);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

struct api_prune_filters *prune_filters(char *const *texts, struct error *err)
{
    struct api_prune_filters *filters = xnew(struct api_prune_filters);

    if (filters_parse(texts, prune_filter_keys, filters, err) >= 0)
        return filters;
    api_prune_filters_free(filters);
    return NULL;
}

void prune_show_reclaimed(uint64_t bytes, struct buffer *out)
{
    _cleanup_free_ char *size = text_from_size(bytes);

    buffer_printf(out, "Total reclaimed space: %s\n", size);
}

static void show_list(const char *title, const char *prefix, char *const *list, struct buffer *out)
{
    if (title && list && *list)
        buffer_printf(out, "%s\n", title);
    for (; list && *list; list++)
        buffer_printf(out, "%s%s\n", prefix, *list);
}

int prune_containers(struct cli *cli, struct api_prune_filters *filters, struct buffer *out,
                     uint64_t *space, struct error *err)
{
    _cleanup_api_container_pruned_ struct api_container_pruned *pruned = NULL;
    const struct api_container_prune params = {.filters = filters};

    int r = cli_call(cli, "container.prune", &params, &pruned, err);
    if (r < 0)
        return r;
    show_list("Deleted Containers:", "", pruned->deleted, out);
    if (pruned->deleted_count)
        buffer_append_char(out, '\n');
    *space += pruned->space_reclaimed;
    return 0;
}

int prune_images(struct cli *cli, bool all, struct api_prune_filters *filters, struct buffer *out,
                 uint64_t *space, struct error *err)
{
    _cleanup_api_image_pruned_ struct api_image_pruned *pruned = NULL;
    const struct api_image_prune params = {.all = all, .has_all = true, .filters = filters};

    int r = cli_call(cli, "image.prune", &params, &pruned, err);
    if (r < 0)
        return r;
    if (pruned->untagged_count || pruned->deleted_count)
        buffer_append_text(out, "Deleted Images:\n");
    show_list(NULL, "untagged: ", pruned->untagged, out);
    show_list(NULL, "deleted: ", pruned->deleted, out);
    if (pruned->untagged_count || pruned->deleted_count)
        buffer_append_char(out, '\n');
    *space += pruned->space_reclaimed;
    return 0;
}

int prune_builds(struct cli *cli, bool all, const struct api_prune_filters *filters,
                 struct buffer *out, uint64_t *space, struct error *err)
{
    _cleanup_free_ char *until = filters->has_until ? clock_format(filters->until) : NULL;
    _cleanup_api_build_pruned_ struct api_build_pruned *pruned = NULL;
    const struct api_build_prune params = {.all = all, .has_all = true, .until = until};

    int r = cli_call(cli, "build.prune", &params, &pruned, err);
    if (r < 0)
        return r;
    show_list("Deleted build cache objects:", "", pruned->deleted, out);
    if (pruned->deleted_count)
        buffer_append_char(out, '\n');
    *space += pruned->space_reclaimed;
    return 0;
}

static int run_containers(struct cli *cli, const void *values, char *const *operands)
{
    const struct prune_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_api_prune_filters_ struct api_prune_filters *filters =
        prune_filters(options->filters, &err);
    uint64_t space = 0;

    if (!filters)
        return cli_fail(&err);
    if (!options->force && !prune_confirmed("This will remove all stopped containers."))
        return EXIT_DONE;
    if (prune_containers(cli, filters, &out, &space, &err) < 0)
        return cli_fail(&err);
    prune_show_reclaimed(space, &out);
    return cli_print(&out);
}

static int run_images(struct cli *cli, const void *values, char *const *operands)
{
    const struct prune_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_api_prune_filters_ struct api_prune_filters *filters =
        prune_filters(options->filters, &err);
    const char *warning =
        options->all
            ? "This will remove all images without at least one container associated to them."
            : "This will remove all dangling images.";
    uint64_t space = 0;

    if (!filters)
        return cli_fail(&err);
    if (!options->force && !prune_confirmed(warning))
        return EXIT_DONE;
    if (prune_images(cli, options->all, filters, &out, &space, &err) < 0)
        return cli_fail(&err);
    prune_show_reclaimed(space, &out);
    return cli_print(&out);
}

const struct command container_prune_command = {
    .name = "prune",
    .usage = "[OPTIONS]",
    .summary = "Remove all containers that do not run",
    .options = container_groups,
    .values_size = sizeof(struct prune_options),
    .run = run_containers,
};

const struct command image_prune_command = {
    .name = "prune",
    .usage = "[OPTIONS]",
    .summary = "Remove images that nobody uses",
    .options = image_groups,
    .values_size = sizeof(struct prune_options),
    .run = run_images,
};
