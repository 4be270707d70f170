#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "listing.h"
#include "usage.h"

struct stats_options {
    bool all, no_stream, no_trunc;
    const char *format;
};

static const struct option stats_table[] = {
    {
        .name = "all",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct stats_options, all),
        .help = "Show all containers (default: those that run)",
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct stats_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "no-stream",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct stats_options, no_stream),
        .help = "Show what they use once, and end",
    },
    {
        .name = "no-trunc",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct stats_options, no_trunc),
        .help = "Show IDs in full",
    },
    {.name = NULL},
};

static const struct option_group stats_groups[] = {{.options = stats_table}, {.options = NULL}};

static const struct listing_field fields[] = {
    {"Container", "CONTAINER"},
    {"ID", "CONTAINER ID"},
    {"Name", "NAME"},
    {"CPUPerc", "CPU %"},
    {"MemUsage", "MEM USAGE / LIMIT"},
    {"MemPerc", "MEM %"},
    {"NetIO", "NET I/O"},
    {"BlockIO", "BLOCK I/O"},
    {"PIDs", "PIDS"},
    {NULL, NULL},
};

static const char default_template[] =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t"
    "{{.PIDs}}";

static char *pair(char *first, char *second)
{
    char *text = xasprintf("%s / %s", first, second);

    free(first);
    free(second);
    return text;
}

/* In the order of the fields. */
static char **row_of(const struct usage *usage, bool whole)
{
    const struct api_container_statistics *container = usage->container;
    uint64_t limit = container->memory ? container->memory->limit : 0;
    char **row = xnew_array(char *, ARRAY_SIZE(fields));
    char **value = row;

    *value++ = human_id(container->id, whole);
    *value++ = human_id(container->id, whole);
    *value++ = xstrdup(container->name);
    *value++ = usage->running ? xasprintf("%.2f%%", usage->cpu) : xstrdup("--");
    *value++ = usage->running ? pair(usage_binary_size(usage->memory), usage_binary_size(limit))
                              : xstrdup("-- / --");
    *value++ = usage->running ? xasprintf("%.2f%%", usage->memory_share) : xstrdup("--");
    *value++ = usage->running ? pair(usage_decimal_size((double)usage->received),
                                     usage_decimal_size((double)usage->sent))
                              : xstrdup("--");
    *value++ = usage->running ? pair(usage_decimal_size((double)usage->read),
                                     usage_decimal_size((double)usage->written))
                              : xstrdup("--");
    *value++ =
        usage->running ? xasprintf("%ju", (uintmax_t)container->pids->current) : xstrdup("--");
    return row;
}

static int show(const struct stats_options *options, const struct api_statistics *before,
                const struct api_statistics *now, struct error *err)
{
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    bool terminal = !options->no_stream && isatty(STDOUT_FILENO);

    /* Over what stood there before. */
    if (terminal)
        buffer_append_text(&text, "\033[H\033[J");
    for (size_t i = 0; i < now->containers_count; i++) {
        struct usage usage = usage_of(before, now, i);
        listing_add(listing, row_of(&usage, options->no_trunc));
    }
    int r = listing_write(listing, options->format, default_template, &text, err);
    return r < 0 ? r : cli_print(&text) == EXIT_DONE ? 0 : -EIO;
}

static void wait_second(void)
{
    const struct timespec second = {.tv_sec = 1};

    nanosleep(&second, NULL);
}

/* The first time nothing is known of before: a rate takes two looks. */
static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct stats_options *options = values;
    _cleanup_api_statistics_ struct api_statistics *before = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = usage_fetch(cli, operands, options->all, &before, &err);
    if (r >= 0 && !options->no_stream)
        r = show(options, NULL, before, &err);
    while (r >= 0) {
        struct api_statistics *now = NULL;
        wait_second();
        r = usage_fetch(cli, operands, options->all, &now, &err);
        if (r >= 0)
            r = show(options, before, now, &err);
        if (r >= 0) {
            api_statistics_free(before);
            before = now;
        } else {
            api_statistics_free(now);
        }
        if (options->no_stream)
            break;
    }
    if (r == -EIO && !err.code)
        return EXIT_FAILED; /* told already: nobody reads it */
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command stats_command = {
    .name = "stats",
    .usage = "[OPTIONS] [CONTAINER...]",
    .summary = "Show what containers use, every second",
    .options = stats_groups,
    .values_size = sizeof(struct stats_options),
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
