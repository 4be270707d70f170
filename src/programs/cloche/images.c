#include <fnmatch.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "filters.h"
#include "human.h"
#include "listing.h"

struct images_options {
    bool all, digests, no_trunc, quiet;
    const char *format;
    char **filters;
};

static const char *const filter_words[] = {
    "before=", "dangling=false", "dangling=true", "label=", "reference=", "since=", "until=", NULL,
};

static const struct option images_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct images_options, all),
        .help = "Show all images, also those without a name that others are made of",
    },
    {
        .name = "digests",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct images_options, digests),
        .help = "Show digests",
    },
    {
        .name = "filter",
        .short_name = 'f',
        .kind = OPTION_LIST,
        .offset = offsetof(struct images_options, filters),
        .argument = "filter",
        .help = "Show only those with reference=, dangling=true|false, label=KEY[=value], "
                "before=IMAGE, since=IMAGE or until=TIME",
        .complete = COMPLETE_EXAMPLES,
        .choices = filter_words,
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct images_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "no-trunc",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct images_options, no_trunc),
        .help = "Show IDs in full",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct images_options, quiet),
        .help = "Show only IDs",
    },
    {.name = NULL},
};

static const struct option_group images_groups[] = {{.options = images_table}, {.options = NULL}};

static const struct listing_field fields[] = {
    {"Repository", "REPOSITORY"},
    {"Tag", "TAG"},
    {"Digest", "DIGEST"},
    {"ID", "IMAGE ID"},
    {"CreatedSince", "CREATED"},
    {"CreatedAt", "CREATED AT"},
    {"Size", "SIZE"},
    {"Containers", "CONTAINERS"},
    {NULL, NULL},
};

static const char default_template[] =
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
static const char digests_template[] =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/* "name@sha256:..." or "sha256:...": what is behind the @. */
static char *digest_of(const struct api_image_summary *image)
{
    if (!image->digests_count)
        return xstrdup("<none>");
    const char *at = strchr(image->digests[0], '@');
    return xstrdup(at ? at + 1 : image->digests[0]);
}

/* In the order of the fields. */
static char **row_of(const struct api_image_summary *image, const char *name,
                     const struct images_options *options, int64_t now)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));
    char **value = row + 2;

    human_split_name(name, &row[0], &row[1]);
    *value++ = digest_of(image);
    *value++ = human_id(image->id, options->no_trunc);
    *value++ = human_age(image->created_at, now);
    *value++ = human_timestamp(image->created_at);
    *value++ = text_from_size(image->size);
    *value++ =
        image->has_containers ? xasprintf("%lld", (long long)image->containers) : xstrdup("N/A");
    return row;
}

/* "shop" stands for each of its tags, "shop:1" for one; both may have wild cards. */
static bool is_asked_for(const char *name, const char *reference)
{
    _cleanup_free_ char *repository = NULL, *tag = NULL;

    if (!reference || fnmatch(reference, name, 0) == 0)
        return true;
    human_split_name(name, &repository, &tag);
    return fnmatch(reference, repository, 0) == 0;
}

/* An image with several names is shown once for each, as docker does. */
static void add_image(struct listing *listing, const struct api_image_summary *image,
                      const struct images_options *options, const char *reference, int64_t now)
{
    if (!image->names_count && !reference)
        listing_add(listing, row_of(image, "", options, now));
    for (size_t i = 0; i < image->names_count; i++) {
        if (is_asked_for(image->names[i], reference))
            listing_add(listing, row_of(image, image->names[i], options, now));
    }
}

#define FILTER(key, field)                                                                         \
    {                                                                                              \
        key, FILTER_TEXTS, offsetof(struct api_image_filters, field),                              \
            offsetof(struct api_image_filters, field##_count)                                      \
    }

static const struct filter_key filter_keys[] = {
    FILTER("before", before),
    FILTER("label", label),
    FILTER("reference", reference),
    FILTER("since", since),
    {"dangling", FILTER_FLAG, offsetof(struct api_image_filters, dangling),
     offsetof(struct api_image_filters, has_dangling)},
    {"until", FILTER_TIME, offsetof(struct api_image_filters, until),
     offsetof(struct api_image_filters, has_until)},
    {.key = NULL},
};

static int fetch(struct cli *cli, const struct images_options *options,
                 struct api_image_summaries **ret, struct error *err)
{
    _cleanup_api_image_filters_ struct api_image_filters *filters = xnew(struct api_image_filters);
    struct api_image_list params = {.all = options->all, .has_all = true};

    int r = filters_parse(options->filters, filter_keys, filters, err);
    if (r < 0)
        return r;
    if (options->filters && *options->filters)
        params.filters = filters;
    return cli_call(cli, "image.list", &params, ret, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct images_options *options = values;
    _cleanup_api_image_summaries_ struct api_image_summaries *list = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    int64_t now = time(NULL);

    int r = fetch(cli, options, &list, &err);
    for (size_t i = 0; r >= 0 && i < list->images_count; i++)
        add_image(listing, list->images[i], options, operands[0], now);
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.ID}}" : options->format,
                          options->digests ? digests_template : default_template, &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command images_command = {
    .name = "images",
    .usage = "[OPTIONS] [REPOSITORY[:TAG]]",
    .summary = "List images",
    .options = images_groups,
    .values_size = sizeof(struct images_options),
    .maximum_operands = 1,
    .common = true,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
