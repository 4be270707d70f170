#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "credentials.h"
#include "human.h"
#include "listing.h"

enum { DESCRIPTION_WIDTH = 45, LIMIT_DEFAULT = 25 };

struct search_options {
    bool no_trunc;
    const char *format;
    char **filters;
    struct option_number limit;
};

static const struct option search_table[] = {
    {
        .name = "filter",
        .short_name = 'f',
        .kind = OPTION_LIST,
        .offset = offsetof(struct search_options, filters),
        .argument = "filter",
        .help = "Show only some: stars=N (at least), is-official=BOOL, is-automated=BOOL",
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct search_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "limit",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct search_options, limit),
        .argument = "int",
        .help = "Show at most so many (default 25)",
        .minimum = 1,
        .maximum = 100,
    },
    {
        .name = "no-trunc",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct search_options, no_trunc),
        .help = "Show descriptions in full",
    },
    {.name = NULL},
};

static const struct option_group search_groups[] = {{.options = search_table}, {.options = NULL}};

static const struct listing_field fields[] = {
    {"Name", "NAME"},           {"Description", "DESCRIPTION"}, {"StarCount", "STARS"},
    {"IsOfficial", "OFFICIAL"}, {"IsAutomated", "AUTOMATED"},   {NULL, NULL},
};

static const char default_template[] =
    "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}\t{{.IsAutomated}}";

struct filters {
    int64_t stars;
    int official, automated; /* -1: any */
};

static int parse_boolean(const char *text, int *ret)
{
    if (text_equal(text, "true") || text_equal(text, "1"))
        *ret = 1;
    else if (text_equal(text, "false") || text_equal(text, "0"))
        *ret = 0;
    else
        return -EINVAL;
    return 0;
}

static int parse_filter(const char *text, struct filters *filters, struct error *err)
{
    const char *equals = strchr(text, '=');
    int r = -EINVAL;

    if (!equals)
        return error_set(err, -EINVAL, "bad format of filter (expected name=value)");
    _cleanup_free_ char *name = xstrndup(text, (size_t)(equals - text));
    if (text_equal(name, "stars"))
        r = text_to_i64(equals + 1, 0, INT64_MAX, &filters->stars);
    else if (text_equal(name, "is-official"))
        r = parse_boolean(equals + 1, &filters->official);
    else if (text_equal(name, "is-automated"))
        r = parse_boolean(equals + 1, &filters->automated);
    else
        return error_set(err, -EINVAL, "invalid filter '%s'", name);
    return r < 0 ? error_set(err, -EINVAL, "invalid filter '%s'", text) : 0;
}

static bool is_wanted(const struct api_image_search_result *result, const struct filters *filters)
{
    return result->stars >= filters->stars &&
           (filters->official < 0 || filters->official == result->official) &&
           (filters->automated < 0 || filters->automated == result->automated);
}

/* Descriptions come from outside: a line, without what a terminal would obey. */
static char *one_line(const char *text, bool whole)
{
    _cleanup_free_ char *clean = text_make_harmless(xstrdup(text), "");

    return whole ? steal_ptr(clean) : human_shorten(clean, DESCRIPTION_WIDTH);
}

static char **row_of(const struct api_image_search_result *result, bool whole)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));

    row[0] = one_line(result->name, true);
    row[1] = one_line(result->description, whole);
    row[2] = xasprintf("%lld", (long long)result->stars);
    row[3] = xstrdup(result->official ? "[OK]" : "");
    row[4] = xstrdup(result->automated ? "[OK]" : "");
    return row;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct search_options *options = values;
    _cleanup_api_image_search_results_ struct api_image_search_results *found = NULL;
    _cleanup_api_credentials_ struct api_credentials *credentials = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_free_ char *registry = credentials_registry(operands[0]);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct filters filters = {.official = -1, .automated = -1};
    int r = credentials_find(registry, &credentials, &err);
    const struct api_image_search params = {
        .term = operands[0],
        .limit = options->limit.set ? (uint32_t)options->limit.value : LIMIT_DEFAULT,
        .has_limit = true,
        .credentials = credentials,
    };

    for (size_t i = 0; r == 0 && options->filters && options->filters[i]; i++)
        r = parse_filter(options->filters[i], &filters, &err);
    if (r == 0)
        r = cli_call(cli, "image.search", &params, &found, &err);
    for (size_t i = 0; r >= 0 && i < found->results_count; i++)
        if (is_wanted(found->results[i], &filters))
            listing_add(listing, row_of(found->results[i], options->no_trunc));
    if (r >= 0)
        r = listing_write(listing, options->format, default_template, &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command search_command = {
    .name = "search",
    .usage = "[OPTIONS] TERM",
    .summary = "Look for images on Docker Hub, or on the registry that TERM begins with",
    .options = search_groups,
    .values_size = sizeof(struct search_options),
    .minimum_operands = 1,
    .maximum_operands = 1,
    .common = true,
    .run = run,
};
