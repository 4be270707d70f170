#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "listing.h"
#include "network_filters.h"

struct ls_options {
    char **filters;
    const char *format;
    bool no_trunc, quiet;
};

static const struct option ls_table[] = {
    {
        .name = "filter",
        .short_name = 'f',
        .kind = OPTION_LIST,
        .offset = offsetof(struct ls_options, filters),
        .argument = "list",
        .help = "Show only some: dangling, driver, id, label, name, scope or type=VALUE",
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct ls_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "no-trunc",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ls_options, no_trunc),
        .help = "Show IDs in full",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ls_options, quiet),
        .help = "Show only IDs",
    },
    {.name = NULL},
};

static const struct option_group ls_groups[] = {{.options = ls_table}, {.options = NULL}};

static const struct listing_field fields[] = {
    {"ID", "NETWORK ID"}, {"Name", "NAME"},
    {"Driver", "DRIVER"}, {"Scope", "SCOPE"},
    {"IPv6", "IPV6"},     {"Internal", "INTERNAL"},
    {"Labels", "LABELS"}, {"CreatedAt", "CREATED AT"},
    {NULL, NULL},
};

static const char default_template[] = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";

/* ---- filters */

static int set_filter(struct api_network_filters *filters, const char *key, const char *value,
                      struct error *err)
{
    const struct {
        const char *key;
        char ***list;
        size_t *count;
    } lists[] = {
        {"driver", &filters->driver, &filters->driver_count},
        {"id", &filters->id, &filters->id_count},
        {"label", &filters->label, &filters->label_count},
        {"label!", &filters->label_not, &filters->label_not_count},
        {"name", &filters->name, &filters->name_count},
        {"scope", &filters->scope, &filters->scope_count},
        {"type", &filters->type, &filters->type_count},
    };

    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        if (!text_equal(lists[i].key, key))
            continue;
        strv_append(lists[i].list, value);
        (*lists[i].count)++;
        return 0;
    }
    if (text_equal(key, "dangling")) {
        filters->dangling = text_equal(value, "true") || text_equal(value, "1");
        filters->has_dangling = true;
        return 0;
    }
    if (text_equal(key, "until")) {
        _cleanup_free_ char *point = NULL;
        int64_t seconds = 0;
        int r = human_point_in_time(value, time(NULL), &point, err);

        if (r == 0)
            r = human_parse_time(point, &seconds, NULL);
        filters->until = seconds * 1000000000;
        filters->has_until = true;
        return r;
    }
    return error_set(err, -EINVAL, "invalid filter '%s'", key);
}

int network_filters(char *const *texts, struct api_network_filters **ret, struct error *err)
{
    _cleanup_api_network_filters_ struct api_network_filters *filters =
        xnew(struct api_network_filters);

    for (; texts && *texts; texts++) {
        const char *equals = strchr(*texts, '=');
        _cleanup_free_ char *key =
            xstrndup(*texts, equals ? (size_t)(equals - *texts) : strlen(*texts));

        if (!equals)
            return error_set(err, -EINVAL, "invalid filter '%s': want KEY=VALUE", *texts);
        int r = set_filter(filters, key, equals + 1, err);
        if (r < 0)
            return r;
    }
    *ret = steal_ptr(filters);
    return 0;
}

/* ---- rows */

static char *labels_text(const struct json_string_map *labels)
{
    struct buffer out = BUFFER_INIT;

    for (size_t i = 0; labels && i < labels->count; i++)
        buffer_printf(&out, "%s%s=%s", i > 0 ? "," : "", labels->keys[i], labels->values[i]);
    return buffer_steal(&out);
}

/* In the order of the fields. */
static char **row_of(const struct api_network_details *network, const struct ls_options *options)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));
    char **value = row;

    *value++ = human_id(network->id, options->no_trunc);
    *value++ = xstrdup(network->name);
    *value++ = xstrdup(network->driver);
    *value++ = xstrdup(network->scope);
    *value++ = xstrdup(network->enable_ipv6 ? "true" : "false");
    *value++ = xstrdup(network->internal ? "true" : "false");
    *value++ = labels_text(network->labels);
    *value++ = human_timestamp(network->created_at);
    return row;
}

static int by_name(const void *a, const void *b)
{
    const struct api_network_details *const *first = a, *const *second = b;

    return strcmp((*first)->name, (*second)->name);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct ls_options *options = values;
    _cleanup_api_networks_ struct api_networks *list = NULL;
    _cleanup_api_network_filters_ struct api_network_filters *filters = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = network_filters(options->filters, &filters, &err);
    const struct api_network_list params = {.filters = filters};
    if (r >= 0)
        r = cli_call(cli, "network.list", &params, &list, &err);
    if (r >= 0 && list->networks_count > 0)
        qsort(list->networks, list->networks_count, sizeof(*list->networks), by_name);
    for (size_t i = 0; r >= 0 && i < list->networks_count; i++)
        listing_add(listing, row_of(list->networks[i], options));
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.ID}}" : options->format, default_template,
                          &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command network_ls_command = {
    .name = "ls",
    .usage = "[OPTIONS]",
    .summary = "List networks",
    .options = ls_groups,
    .values_size = sizeof(struct ls_options),
    .run = run,
};
