#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "filters.h"
#include "human.h"
#include "listing.h"
#include "ports.h"

struct ps_options {
    bool all, latest, no_trunc, quiet, size;
    struct option_number last;
    const char *format;
    char **filters;
};

static const char *const filter_words[] = {
    "ancestor=",
    "before=",
    "exited=",
    "expose=",
    "health=healthy",
    "health=none",
    "health=starting",
    "health=unhealthy",
    "id=",
    "label=",
    "name=",
    "network=",
    "publish=",
    "since=",
    "status=created",
    "status=dead",
    "status=exited",
    "status=paused",
    "status=removing",
    "status=restarting",
    "status=running",
    "volume=",
    NULL,
};

static const struct option ps_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ps_options, all),
        .help = "Show all containers (default: those that run)",
    },
    {
        .name = "filter",
        .short_name = 'f',
        .kind = OPTION_LIST,
        .offset = offsetof(struct ps_options, filters),
        .argument = "filter",
        .help = "Show only those with id=, name=, status=, label=KEY[=value], ancestor=IMAGE, "
                "before=, since=, exited=CODE, health=, network=, volume=, publish=PORT or "
                "expose=PORT",
        .complete = COMPLETE_EXAMPLES,
        .choices = filter_words,
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct ps_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "last",
        .short_name = 'n',
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct ps_options, last),
        .argument = "int",
        .help = "Show the N newest, running or not",
        .minimum = -1,
        .maximum = INT32_MAX,
    },
    {
        .name = "latest",
        .short_name = 'l',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ps_options, latest),
        .help = "Show the newest, running or not",
    },
    {
        .name = "no-trunc",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ps_options, no_trunc),
        .help = "Show IDs and commands in full",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ps_options, quiet),
        .help = "Show only IDs",
    },
    {
        .name = "size",
        .short_name = 's',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ps_options, size),
        .help = "Show what their files take",
    },
    {.name = NULL},
};

static const struct option_group ps_groups[] = {{.options = ps_table}, {.options = NULL}};

enum { COMMAND_WIDTH = 20 };

static const struct listing_field fields[] = {
    {"ID", "CONTAINER ID"},
    {"Image", "IMAGE"},
    {"Command", "COMMAND"},
    {"CreatedAt", "CREATED AT"},
    {"RunningFor", "CREATED"},
    {"Status", "STATUS"},
    {"State", "STATE"},
    {"Ports", "PORTS"},
    {"Names", "NAMES"},
    {"Labels", "LABELS"},
    {"Size", "SIZE"},
    {"Mounts", "MOUNTS"},
    {"LocalVolumes", "LOCAL VOLUMES"},
    {"Networks", "NETWORKS"},
    {NULL, NULL},
};

static const char default_template[] =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

static const char size_template[] = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t"
                                    "{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

/* docker's: the container's own bytes, and with those of its image. */
static char *size_text(const struct api_container_summary *container)
{
    _cleanup_free_ char *own = text_from_size((uint64_t)container->size_rw);
    _cleanup_free_ char *all = text_from_size((uint64_t)container->size_root_fs);

    if (!container->has_size_root_fs || container->size_root_fs <= 0)
        return xstrdup(own);
    return xasprintf("%s (virtual %s)", own, all);
}

static char *labels_text(const struct json_string_map *labels)
{
    _cleanup_strv_ char **pairs = NULL;

    for (size_t i = 0; labels && i < labels->count; i++)
        strv_take(&pairs, xasprintf("%s=%s", labels->keys[i], labels->values[i]));
    return strv_join(pairs, ",");
}

static char *command_text(const char *command, bool whole)
{
    _cleanup_free_ char *shown = whole ? xstrdup(command) : human_shorten(command, COMMAND_WIDTH);

    return human_quote(shown);
}

/* In the order of the fields. */
static char **row_of(const struct api_container_summary *container, bool whole, int64_t now)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));
    char **value = row;

    *value++ = human_id(container->id, whole);
    *value++ = whole || !text_starts_with(container->image, "sha256:")
                   ? xstrdup(text_empty(container->image) ? "<no image>" : container->image)
                   : human_id(container->image, false);
    *value++ = command_text(container->command, whole);
    *value++ = human_timestamp(container->created_at);
    *value++ = human_age(container->created_at, now);
    *value++ = xstrdup(container->status);
    *value++ = xstrdup(container->state);
    *value++ = ports_text(container->ports, container->ports_count);
    *value++ = strv_join(container->names, ",");
    *value++ = labels_text(container->labels);
    *value++ = size_text(container);
    *value++ = strv_join(container->mounts, ",");
    *value++ = xasprintf("%jd", (intmax_t)container->local_volumes);
    *value++ = strv_join(container->networks, ",");
    return row;
}

#define FILTER(key, field)                                                                         \
    {                                                                                              \
        key, FILTER_TEXTS, offsetof(struct api_container_filters, field),                          \
            offsetof(struct api_container_filters, field##_count)                                  \
    }

static const struct filter_key filter_keys[] = {
    FILTER("ancestor", ancestor),
    FILTER("before", before),
    FILTER("expose", expose),
    FILTER("health", health),
    FILTER("id", id),
    FILTER("label", label),
    FILTER("name", name),
    FILTER("network", network),
    FILTER("publish", publish),
    FILTER("since", since),
    FILTER("status", status),
    FILTER("volume", volume),
    {"exited", FILTER_NUMBERS, offsetof(struct api_container_filters, exited),
     offsetof(struct api_container_filters, exited_count)},
    {.key = NULL},
};

static int fetch(struct cli *cli, const struct ps_options *options,
                 struct api_container_summaries **ret, struct error *err)
{
    _cleanup_api_container_filters_ struct api_container_filters *filters =
        xnew(struct api_container_filters);
    struct api_container_list params = {
        .all = options->all,
        .has_all = true,
        .size = options->size,
        .has_size = true,
    };

    int r = filters_parse(options->filters, filter_keys, filters, err);
    if (r < 0)
        return r;
    if (options->filters && *options->filters)
        params.filters = filters;
    if (options->latest || (options->last.set && options->last.value > 0)) {
        params.limit = options->latest ? 1 : (int32_t)options->last.value;
        params.has_limit = true;
    }
    return cli_call(cli, "container.list", &params, ret, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct ps_options *options = values;
    _cleanup_api_container_summaries_ struct api_container_summaries *list = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    int64_t now = time(NULL);

    int r = fetch(cli, options, &list, &err);
    for (size_t i = 0; r >= 0 && i < list->containers_count; i++)
        listing_add(listing, row_of(list->containers[i], options->no_trunc, now));
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.ID}}" : options->format,
                          options->size ? size_template : default_template, &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command ps_command = {
    .name = "ps",
    .usage = "[OPTIONS]",
    .summary = "List containers",
    .options = ps_groups,
    .values_size = sizeof(struct ps_options),
    .common = true,
    .run = run,
};
