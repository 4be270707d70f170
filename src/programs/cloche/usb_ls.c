/*
 * usb ls, usb inspect.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "listing.h"
#include "template.h"
#include "usb.h"

/* ---- ls */

struct ls_options {
    bool all, quiet;
    const char *format;
};

static const struct option ls_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct ls_options, all),
        .help = "Show devices that are no sticks, too",
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
        .help = "Show only IDs",
    },
    {.name = NULL},
};

static const struct option_group ls_groups[] = {{.options = ls_table}, {.options = NULL}};

static const struct listing_field fields[] = {
    {"ID", "ID"},       {"Device", "DEVICE"}, {"Serial", "SERIAL"},   {"Name", "NAME"},
    {"State", "STATE"}, {"Size", "SIZE"},     {"Volumes", "VOLUMES"}, {"Mounts", "MOUNTS"},
    {"Error", "ERROR"}, {"Url", "URL"},       {"Classes", "CLASSES"}, {"Speed", "SPEED"},
    {NULL, NULL},
};

/* "fat32 SHOP, exfat" */
static char *volumes_of(const struct api_usb_stick *stick)
{
    struct buffer text = BUFFER_INIT;

    for (size_t i = 0; i < stick->volumes_count; i++) {
        const struct api_usb_volume *volume = stick->volumes[i];
        buffer_printf(&text, "%s%s%s%s", i ? ", " : "", volume->kind,
                      text_empty(volume->label) ? "" : " ",
                      text_empty(volume->label) ? "" : volume->label);
    }
    return text_make_harmless(buffer_steal(&text), "");
}

static char *mounts_of(const struct api_usb_stick *stick)
{
    struct buffer text = BUFFER_INIT;

    for (size_t i = 0; i < stick->mounts_count; i++)
        buffer_printf(&text, "%s%.12s:%s%s", i ? ", " : "", stick->mounts[i]->container,
                      stick->mounts[i]->target, stick->mounts[i]->read_only ? ":ro" : "");
    return text_make_harmless(buffer_steal(&text), "");
}

static char *size_of(const struct api_usb_stick *stick)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < stick->volumes_count; i++)
        bytes += stick->volumes[i]->size;
    return stick->volumes_count ? text_from_size(bytes) : xstrdup("");
}

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static char **row_of(const struct api_usb_stick *stick)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));

    row[0] = xstrdup(stick->id);
    row[1] = text_empty(stick->vendor)
                 ? xstrdup("")
                 : xasprintf("%s:%s", stick->vendor, or_empty(stick->product));
    row[2] = xstrdup(or_empty(stick->serial));
    row[3] = xasprintf("%s%s%s", or_empty(stick->manufacturer),
                       text_empty(stick->manufacturer) ? "" : " ", or_empty(stick->model));
    row[4] = xstrdup(stick->state);
    row[5] = size_of(stick);
    row[6] = volumes_of(stick);
    row[7] = mounts_of(stick);
    row[8] = xstrdup(or_empty(stick->error));
    row[9] = xstrdup(or_empty(stick->url));
    row[10] = strv_join(stick->classes, ",");
    row[11] = xstrdup(or_empty(stick->speed));
    for (size_t i = 0; i < ARRAY_SIZE(fields) && row[i]; i++)
        text_make_harmless(row[i], "");
    return row;
}

static int run_ls(struct cli *cli, const void *values, char *const *operands)
{
    const struct ls_options *options = values;
    _cleanup_api_usb_sticks_ struct api_usb_sticks *list = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_usb_list params = {.all = options->all, .has_all = true};

    int r = cli_call(cli, "usb.list", &params, &list, &err);
    for (size_t i = 0; r >= 0 && i < list->sticks_count; i++)
        listing_add(listing, row_of(list->sticks[i]));
    if (r >= 0)
        r = listing_write(listing, options->quiet ? "{{.ID}}" : options->format,
                          "{{.ID}}\t{{.Device}}\t{{.Serial}}\t{{.Name}}\t{{.State}}\t{{.Size}}\t"
                          "{{.Volumes}}\t{{.Mounts}}",
                          &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command usb_ls_command = {
    .name = "ls",
    .usage = "[OPTIONS]",
    .summary = "List sticks and what became of them",
    .options = ls_groups,
    .values_size = sizeof(struct ls_options),
    .run = run_ls,
};

/* ---- inspect and stats: one document for each */

struct inspect_options {
    const char *format;
};

static const struct option inspect_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct inspect_options, format),
        .argument = "string",
        .help = "\"json\", or a template for each ({{.state}}, {{json .volumes}})",
    },
    {.name = NULL},
};

static const struct option_group inspect_groups[] = {{.options = inspect_table}, {.options = NULL}};

typedef int (*ask_one)(struct cli *cli, char *reference, struct buffer *json, struct error *err);

static int show_all(struct cli *cli, const struct inspect_options *options, ask_one ask,
                    char *const *operands)
{
    bool array = !options->format || text_equal(options->format, "json");
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    int code = EXIT_DONE, found = 0;

    if (array)
        buffer_append_char(&out, '[');
    for (; *operands; operands++) {
        _cleanup_buffer_ struct buffer json = BUFFER_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = ask(cli, *operands, &json, &err);
        if (r >= 0)
            r = template_show(options->format, buffer_text(&json), found++ == 0, &out, &err);
        if (r < 0)
            code = cli_fail(&err);
    }
    if (array)
        buffer_append_text(&out, found && !options->format ? "\n]\n" : "]\n");
    return cli_print(&out) == EXIT_DONE ? code : EXIT_FAILED;
}

static int ask_inspect(struct cli *cli, char *reference, struct buffer *json, struct error *err)
{
    _cleanup_api_usb_stick_ struct api_usb_stick *stick = NULL;
    const struct api_usb_ref params = {.stick = reference};
    int r = cli_call(cli, "usb.inspect", &params, &stick, err);

    if (r >= 0)
        api_usb_stick_write(stick, json);
    return r;
}

static int run_inspect(struct cli *cli, const void *values, char *const *operands)
{
    return show_all(cli, values, ask_inspect, operands);
}

const struct command usb_inspect_command = {
    .name = "inspect",
    .usage = "[OPTIONS] STICK [STICK...]",
    .summary = "Show all that is known of USB devices",
    .options = inspect_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_STICKS,
    .run = run_inspect,
};

static int ask_stats(struct cli *cli, char *reference, struct buffer *json, struct error *err)
{
    _cleanup_api_usb_statistics_ struct api_usb_statistics *told = NULL;
    const struct api_usb_ref params = {.stick = reference};
    int r = cli_call(cli, "usb.stats", &params, &told, err);

    if (r >= 0)
        buffer_append_text(json, told->statistics);
    return r;
}

static int run_stats(struct cli *cli, const void *values, char *const *operands)
{
    return show_all(cli, values, ask_stats, operands);
}

const struct command usb_stats_command = {
    .name = "stats",
    .usage = "[OPTIONS] STICK [STICK...]",
    .summary = "Show what the processes of sticks have counted",
    .options = inspect_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_STICKS,
    .run = run_stats,
};
