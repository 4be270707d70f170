#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "listing.h"

struct history_options {
    bool human, no_trunc, quiet;
    const char *format;
};

static void set_defaults(void *values)
{
    ((struct history_options *)values)->human = true;
}

static const struct option history_table[] = {
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct history_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "human",
        .short_name = 'H',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct history_options, human),
        .help = "Show sizes and times as people read them (default true)",
    },
    {
        .name = "no-trunc",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct history_options, no_trunc),
        .help = "Show IDs and commands in full",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct history_options, quiet),
        .help = "Show only IDs",
    },
    {.name = NULL},
};

static const struct option_group history_groups[] = {{.options = history_table}, {.options = NULL}};

enum { COMMAND_WIDTH = 45 };

static const struct listing_field fields[] = {
    {"ID", "IMAGE"},
    {"CreatedAt", "CREATED AT"},
    {"CreatedSince", "CREATED"},
    {"CreatedBy", "CREATED BY"},
    {"Size", "SIZE"},
    {"Comment", "COMMENT"},
    {NULL, NULL},
};

static const char human_template[] =
    "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
static const char plain_template[] =
    "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/* In the order of the fields. */
static char **row_of(const struct api_image_step *step, const struct history_options *options,
                     int64_t now)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));
    char **value = row;

    *value++ = step->id ? human_id(step->id, options->no_trunc) : xstrdup("<missing>");
    *value++ = xstrdup(step->created_at ? step->created_at : "");
    *value++ = step->created_at ? human_age(step->created_at, now) : xstrdup("N/A");
    *value++ = options->no_trunc ? xstrdup(step->created_by)
                                 : human_shorten(step->created_by, COMMAND_WIDTH);
    *value++ =
        options->human ? text_from_size(step->size) : xasprintf("%ju", (uintmax_t)step->size);
    *value++ = xstrdup(step->comment ? step->comment : "");
    return row;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct history_options *options = values;
    _cleanup_api_image_history_list_ struct api_image_history_list *list = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    const struct api_image_history params = {.image = operands[0]};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    int64_t now = time(NULL);

    int r = cli_call(cli, "image.history", &params, &list, &err);
    for (size_t i = 0; r >= 0 && i < list->steps_count; i++)
        listing_add(listing, row_of(list->steps[i], options, now));
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.ID}}" : options->format,
                          options->human ? human_template : plain_template, &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command history_command = {
    .name = "history",
    .usage = "[OPTIONS] IMAGE",
    .summary = "Show how an image was made",
    .options = history_groups,
    .values_size = sizeof(struct history_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
