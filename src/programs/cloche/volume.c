/*
 * volume: create, ls, rm, prune. (inspect is in inspect.c.)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "listing.h"
#include "prune.h"
#include "volume.h"

/* ---- create */

struct create_options {
    const char *driver, *name;
    char **labels, **options;
};

static const struct option create_table[] = {
    {
        .name = "driver",
        .short_name = 'd',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct create_options, driver),
        .argument = "string",
        .help = "Driver: local, which is the only one",
    },
    {
        .name = "label",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, labels),
        .argument = "list",
        .help = "KEY=value to know it by",
    },
    {
        .name = "name",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct create_options, name),
        .argument = "string",
        .help = "Its name, as the operand says it",
    },
    {
        .name = "opt",
        .short_name = 'o',
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, options),
        .argument = "map",
        .help = "type=TYPE, device=DEVICE, o=OPTIONS: what is mounted there, as mount(8) has it",
    },
    {.name = NULL},
};

static const struct option_group create_groups[] = {{.options = create_table}, {.options = NULL}};

static struct json_string_map *map_of(char *const *words)
{
    struct json_string_map *map = NULL;

    for (; words && *words; words++) {
        size_t length = strcspn(*words, "=");
        _cleanup_free_ char *key = xstrndup(*words, length);
        json_string_map_set(&map, key, (*words)[length] ? *words + length + 1 : "");
    }
    return map;
}

static int run_create(struct cli *cli, const void *values, char *const *operands)
{
    const struct create_options *options = values;
    _cleanup_api_volume_ struct api_volume *volume = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (options->name && operands[0])
        return cli_fail_usage(cli, EXIT_FAILED, "the name is given twice: --name and %s",
                              operands[0]);
    struct api_volume_create params = {
        .name = operands[0] ? operands[0] : (char *)(uintptr_t)options->name,
        .driver = (char *)(uintptr_t)options->driver,
        .labels = map_of(options->labels),
        .options = map_of(options->options),
    };
    int r = cli_call(cli, "volume.create", &params, &volume, &err);
    json_string_map_free(params.labels);
    json_string_map_free(params.options);
    if (r < 0)
        return cli_fail(&err);
    printf("%s\n", volume->name);
    return EXIT_DONE;
}

const struct command volume_create_command = {
    .name = "create",
    .usage = "[OPTIONS] [VOLUME]",
    .summary = "Make a volume",
    .options = create_groups,
    .values_size = sizeof(struct create_options),
    .maximum_operands = 1,
    .run = run_create,
};

/* ---- ls */

struct ls_options {
    bool quiet;
    char **filters;
    const char *format;
};

static const struct option ls_table[] = {
    {
        .name = "filter",
        .short_name = 'f',
        .kind = OPTION_LIST,
        .offset = offsetof(struct ls_options, filters),
        .argument = "filter",
        .help = "Show only those with name=PART, driver=NAME, label=KEY[=value], dangling=BOOL",
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct ls_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ls_options, quiet),
        .help = "Show only names",
    },
    {.name = NULL},
};

static const struct option_group ls_groups[] = {{.options = ls_table}, {.options = NULL}};

static const struct listing_field fields[] = {
    {"Driver", "DRIVER"}, {"Name", "VOLUME NAME"}, {"Scope", "SCOPE"}, {"Mountpoint", "MOUNTPOINT"},
    {"Labels", "LABELS"}, {"Size", "SIZE"},        {"Links", "LINKS"}, {NULL, NULL},
};

#define FILTER(key, field)                                                                         \
    {                                                                                              \
        key, FILTER_TEXTS, offsetof(struct api_volume_filters, field),                             \
            offsetof(struct api_volume_filters, field##_count)                                     \
    }

static const struct filter_key filter_keys[] = {
    FILTER("name", name),
    FILTER("driver", driver),
    FILTER("label", label),
    FILTER("label!", label_not),
    {"dangling", FILTER_FLAG, offsetof(struct api_volume_filters, dangling),
     offsetof(struct api_volume_filters, has_dangling)},
    {.key = NULL},
};

static char *labels_of(const struct api_volume *volume)
{
    char **words = NULL;

    for (size_t i = 0; volume->labels && i < volume->labels->count; i++)
        strv_take(&words, xasprintf("%s=%s", volume->labels->keys[i], volume->labels->values[i]));
    char *text = strv_join(words, ",");
    strv_free(words);
    return text;
}

static char **row_of(const struct api_volume *volume)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));

    row[0] = xstrdup(volume->driver);
    row[1] = xstrdup(volume->name);
    row[2] = xstrdup("local");
    row[3] = xstrdup(volume->mountpoint);
    row[4] = labels_of(volume);
    row[5] = xstrdup("N/A");
    row[6] = xstrdup("N/A");
    return row;
}

static int run_ls(struct cli *cli, const void *values, char *const *operands)
{
    const struct ls_options *options = values;
    _cleanup_api_volume_filters_ struct api_volume_filters *filters =
        xnew(struct api_volume_filters);
    _cleanup_api_volumes_ struct api_volumes *list = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_volume_list params = {.filters = filters};

    int r = filters_parse(options->filters, filter_keys, filters, &err);
    if (r >= 0)
        r = cli_call(cli, "volume.list", &params, &list, &err);
    for (size_t i = 0; r >= 0 && i < list->volumes_count; i++)
        listing_add(listing, row_of(list->volumes[i]));
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.Name}}" : options->format,
                          "{{.Driver}}\t{{.Name}}", &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command volume_ls_command = {
    .name = "ls",
    .usage = "[OPTIONS]",
    .summary = "List volumes",
    .options = ls_groups,
    .values_size = sizeof(struct ls_options),
    .run = run_ls,
};

/* ---- rm */

struct rm_options {
    bool force;
};

static const struct option rm_table[] = {
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct rm_options, force),
        .help = "It is no failure when there is none of that name",
    },
    {.name = NULL},
};

static const struct option_group rm_groups[] = {{.options = rm_table}, {.options = NULL}};

static int remove_one(struct cli *cli, const char *name, const void *values, struct error *err)
{
    const struct rm_options *options = values;
    const struct api_volume_remove params = {
        .volume = (char *)(uintptr_t)name, .force = options->force, .has_force = true};

    return cli_call(cli, "volume.remove", &params, NULL, err);
}

static int run_rm(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, remove_one, true);
}

const struct command volume_rm_command = {
    .name = "rm",
    .usage = "[OPTIONS] VOLUME [VOLUME...]",
    .summary = "Remove volumes that no container has",
    .options = rm_groups,
    .values_size = sizeof(struct rm_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_VOLUMES,
    .run = run_rm,
};

/* ---- prune */

struct prune_options {
    bool all, force;
    char **filters;
};

static const struct option prune_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct prune_options, all),
        .help = "Remove all that no container has, not only anonymous ones",
    },
    {
        .name = "filter",
        .kind = OPTION_LIST,
        .offset = offsetof(struct prune_options, filters),
        .argument = "filter",
        .help = "Remove only those with label=KEY[=value] or label!=KEY[=value]",
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

int prune_volumes(struct cli *cli, bool all, char *const *texts, struct buffer *out,
                  uint64_t *space, struct error *err)
{
    _cleanup_api_volume_filters_ struct api_volume_filters *filters =
        xnew(struct api_volume_filters);
    _cleanup_api_volumes_pruned_ struct api_volumes_pruned *pruned = NULL;
    const struct api_volume_prune params = {.all = all, .has_all = true, .filters = filters};

    int r = filters_parse(texts, filter_keys, filters, err);
    if (r >= 0)
        r = cli_call(cli, "volume.prune", &params, &pruned, err);
    if (r < 0)
        return r;
    if (pruned->volumes_count)
        buffer_append_text(out, "Deleted Volumes:\n");
    for (size_t i = 0; i < pruned->volumes_count; i++)
        buffer_printf(out, "%s\n", pruned->volumes[i]);
    if (pruned->volumes_count)
        buffer_append_char(out, '\n');
    *space += pruned->space_reclaimed;
    return 0;
}

static int run_prune(struct cli *cli, const void *values, char *const *operands)
{
    const struct prune_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    uint64_t space = 0;

    if (!options->force &&
        !prune_confirmed(options->all
                             ? "This will remove all volumes not used by at least one container."
                             : "This will remove anonymous local volumes not used by at least one "
                               "container."))
        return EXIT_DONE;
    if (prune_volumes(cli, options->all, options->filters, &out, &space, &err) < 0)
        return cli_fail(&err);
    prune_show_reclaimed(space, &out);
    return cli_print(&out);
}

const struct command volume_prune_command = {
    .name = "prune",
    .usage = "[OPTIONS]",
    .summary = "Remove volumes that no container has",
    .options = prune_groups,
    .values_size = sizeof(struct prune_options),
    .run = run_prune,
};
