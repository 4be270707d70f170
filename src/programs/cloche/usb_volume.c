/*
 * usb format, usb check.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/client.h>
#include <schema/management.h>

#include "cli.h"
#include "progress.h"
#include "prune.h"
#include "template.h"
#include "usb.h"

static const char *const kinds[] = {"fat12", "fat16", "fat32", "exfat", NULL};

/* The daemon ends what nobody waits for: whoever interrupts this program cancels it. */
static int call_shown(struct cli *cli, const char *what, bool quiet, const char *method,
                      const void *params, void *ret_result, struct error *err)
{
    struct progress progress;

    progress_start(&progress, what, -1, quiet);
    if (progress.what)
        rpc_client_on_progress(cli->client, progress_take, &progress);
    int r = cli_call_with_fd(cli, method, params, ret_result, -1, progress_tick, &progress, err);
    if (cli->client)
        rpc_client_on_progress(cli->client, NULL, NULL);
    progress_end(&progress);
    return r;
}

/* ---- format */

struct format_options {
    const char *kind, *label;
    struct option_number volume, cluster;
    bool yes, quiet;
};

static const struct option format_table[] = {
    {
        .name = "cluster-size",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct format_options, cluster),
        .argument = "bytes",
        .help = "Bytes of a cluster (default: what suits the size)",
        .minimum = 512,
        .maximum = 32 << 20,
    },
    {
        .name = "kind",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct format_options, kind),
        .argument = "string",
        .help = "fat12, fat16, fat32 or exfat (default exfat)",
        .complete = COMPLETE_CHOICES,
        .choices = kinds,
    },
    {
        .name = "label",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct format_options, label),
        .argument = "string",
        .help = "Its name",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct format_options, quiet),
        .help = "Show no progress",
    },
    {
        .name = "volume",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct format_options, volume),
        .argument = "number",
        .help = "Which volume (default: the only one)",
        .minimum = 1,
        .maximum = UINT32_MAX,
    },
    {
        .name = "yes",
        .short_name = 'y',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct format_options, yes),
        .help = "Do not ask; needed where there is no terminal to ask on",
    },
    {.name = NULL},
};

static const struct option_group format_groups[] = {{.options = format_table}, {.options = NULL}};

static int confirm(const char *stick, bool yes, bool *ret, struct error *err)
{
    _cleanup_free_ char *warning = xasprintf("All files on the stick %s will be lost.", stick);

    *ret = yes;
    if (yes)
        return 0;
    if (!isatty(STDIN_FILENO)) {
        error_set(err, -EINVAL, "nobody can be asked whether all files on %s may be lost", stick);
        error_hint(err, "say so: --yes");
        return -EINVAL;
    }
    *ret = prune_confirmed(warning);
    return 0;
}

static int run_format(struct cli *cli, const void *values, char *const *operands)
{
    const struct format_options *options = values;
    const struct api_usb_format params = {
        .stick = operands[0],
        .kind = (char *)(uintptr_t)(options->kind ? options->kind : "exfat"),
        .label = (char *)(uintptr_t)options->label,
        .volume = (uint32_t)options->volume.value,
        .has_volume = options->volume.set,
        .cluster_size = (uint32_t)options->cluster.value,
        .has_cluster_size = options->cluster.set,
    };
    _cleanup_error_ struct error err = ERROR_INIT;
    bool go;

    if (cli_connect(cli, &err) < 0 || confirm(operands[0], options->yes, &go, &err) < 0)
        return cli_fail(&err);
    if (!go)
        return EXIT_DONE;
    int r = call_shown(cli, "Formatting", options->quiet, "usb.format", &params, NULL, &err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command usb_format_command = {
    .name = "format",
    .usage = "[OPTIONS] STICK",
    .summary = "Make a new file system on a stick; all that is on it is lost",
    .options = format_groups,
    .values_size = sizeof(struct format_options),
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_STICKS,
    .run = run_format,
};

/* ---- check */

struct check_options {
    const char *format;
    struct option_number volume;
    bool repair, quiet;
};

static const struct option check_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct check_options, format),
        .argument = "string",
        .help = "\"json\", or a template",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct check_options, quiet),
        .help = "Show no progress",
    },
    {
        .name = "repair",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct check_options, repair),
        .help = "Mend what can be mended",
    },
    {
        .name = "volume",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct check_options, volume),
        .argument = "number",
        .help = "Which volume (default: the only one)",
        .minimum = 1,
        .maximum = UINT32_MAX,
    },
    {.name = NULL},
};

static const struct option_group check_groups[] = {{.options = check_table}, {.options = NULL}};

static const char text_template[] =
    "{{range .findings}}{{.what}}{{if .repaired}} (mended){{end}}\n{{end}}"
    "{{if .left}}{{.left}} problems{{else}}all good{{end}}";

static int print_checked(const struct check_options *options, const struct api_usb_checked *checked,
                         struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_buffer_ struct buffer json = BUFFER_INIT, text = BUFFER_INIT;
    yajl_val document;

    api_usb_checked_write(checked, &json);
    int r = tree_parse(&arena, buffer_text(&json), &document, err);
    if (r >= 0 && text_equal(options->format, "json"))
        tree_write(document, TREE_COMPACT, &text);
    else if (r >= 0)
        r = template_render(options->format ? options->format : text_template, document, &arena,
                            &text, err);
    if (r < 0)
        return r;
    buffer_append_char(&text, '\n');
    return cli_print(&text) == EXIT_DONE ? 0 : error_set(err, -EIO, "standard output");
}

static int run_check(struct cli *cli, const void *values, char *const *operands)
{
    const struct check_options *options = values;
    const struct api_usb_check params = {
        .stick = operands[0],
        .volume = (uint32_t)options->volume.value,
        .has_volume = options->volume.set,
        .repair = options->repair,
        .has_repair = true,
    };
    _cleanup_api_usb_checked_ struct api_usb_checked *checked = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (cli_connect(cli, &err) < 0)
        return cli_fail(&err);
    int r = call_shown(cli, options->repair ? "Repairing" : "Checking", options->quiet, "usb.check",
                       &params, &checked, &err);
    if (r < 0 || (r = print_checked(options, checked, &err)) < 0)
        return cli_fail(&err);
    return checked->left ? EXIT_FAILED : EXIT_DONE;
}

const struct command usb_check_command = {
    .name = "check",
    .usage = "[OPTIONS] STICK",
    .summary = "Check the file system of a stick, and repair it",
    .options = check_groups,
    .values_size = sizeof(struct check_options),
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_STICKS,
    .run = run_check,
};
