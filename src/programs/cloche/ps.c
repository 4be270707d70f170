#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "listing.h"
#include "ports.h"

struct ps_options {
    bool all, latest, no_trunc, quiet;
    struct option_number last;
    const char *format;
    char **filters;
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
        .help = "Show only those with id=, name=, status=, label=KEY[=value], ancestor= or "
                "exited=CODE",
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
    {NULL, NULL},
};

static const char default_template[] =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

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
    return row;
}

/* ---- filters: those of one key are alternatives, those of different keys all count */

static bool has_label(const struct json_string_map *labels, const char *wanted)
{
    size_t length = strcspn(wanted, "=");
    _cleanup_free_ char *key = xstrndup(wanted, length);
    const char *value = json_string_map_get(labels, key);

    return value && (!wanted[length] || text_equal(value, wanted + length + 1));
}

static bool has_name(const struct api_container_summary *container, const char *part)
{
    for (size_t i = 0; i < container->names_count; i++) {
        if (strstr(container->names[i], part))
            return true;
    }
    return false;
}

static bool is_from(const struct api_container_summary *container, const char *image)
{
    _cleanup_free_ char *latest = xasprintf("%s:latest", image);
    _cleanup_free_ char *id = human_id(container->image_id, false);

    return text_equal(container->image, image) || text_equal(container->image, latest) ||
           text_starts_with(image, id) || text_equal(container->image_id, image);
}

static bool has_exit_code(const struct api_container_summary *container, const char *code)
{
    _cleanup_free_ char *ours = xasprintf("%d", container->exit_code);

    return text_equal(container->state, "exited") && text_equal(ours, code);
}

static bool has_id(const struct api_container_summary *container, const char *prefix)
{
    return text_starts_with(container->id, prefix);
}

static bool has_status(const struct api_container_summary *container, const char *state)
{
    return text_equal(container->state, state);
}

static bool is_labelled(const struct api_container_summary *container, const char *label)
{
    return has_label(container->labels, label);
}

static const struct filter {
    const char *key;
    bool (*matches)(const struct api_container_summary *container, const char *value);
} filters[] = {
    {"ancestor", is_from},  {"exited", has_exit_code}, {"id", has_id},
    {"label", is_labelled}, {"name", has_name},        {"status", has_status},
};

static int check_filters(char *const *given, struct error *err)
{
    for (; given && *given; given++) {
        size_t length = strcspn(*given, "="), i = 0;
        if (!(*given)[length])
            return error_set(err, -EINVAL,
                             "invalid argument \"%s\" for \"-f, --filter\" flag: "
                             "invalid filter '%s'",
                             *given, *given);
        while (i < ARRAY_SIZE(filters) &&
               (strncmp(filters[i].key, *given, length) != 0 || filters[i].key[length]))
            i++;
        if (i == ARRAY_SIZE(filters))
            return error_set(err, -EINVAL, "invalid filter '%.*s'", (int)length, *given);
    }
    return 0;
}

static bool passes(const struct api_container_summary *container, char *const *given)
{
    for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
        size_t length = strlen(filters[i].key);
        bool asked = false, matched = false;
        for (char *const *text = given; text && *text; text++) {
            if (strncmp(*text, filters[i].key, length) != 0 || (*text)[length] != '=')
                continue;
            asked = true;
            matched = matched || filters[i].matches(container, *text + length + 1);
        }
        if (asked && !matched)
            return false;
    }
    return true;
}

static bool asks_for_ended(char *const *given)
{
    for (; given && *given; given++) {
        if (text_starts_with(*given, "status=") || text_starts_with(*given, "exited="))
            return true;
    }
    return false;
}

static int fetch(struct cli *cli, const struct ps_options *options,
                 struct api_container_summaries **ret, struct error *err)
{
    struct api_container_list params = {
        .all = options->all || asks_for_ended(options->filters),
        .has_all = true,
    };

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

    int r = check_filters(options->filters, &err);
    if (r >= 0)
        r = fetch(cli, options, &list, &err);
    for (size_t i = 0; r >= 0 && i < list->containers_count; i++) {
        if (passes(list->containers[i], options->filters))
            listing_add(listing, row_of(list->containers[i], options->no_trunc, now));
    }
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.ID}}" : options->format, default_template,
                          &text, &err);
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
