#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cloche/runtime.h>

#include <base/text.h>

#include "options.h"
#include "program.h"

#define INTERVAL_DEFAULT "5s"

static int print_event(void *context _unused_, const char *json)
{
    puts(json);
    fflush(stdout);
    return 0;
}

static int print_statistics(struct cloche_runtime *runtime, const char *id)
{
    _cleanup_free_ char *json = NULL;
    int r = cloche_runtime_statistics(runtime, id, &json);

    return r < 0 ? r : print_event(NULL, json);
}

/* "1m30s", "100ms", "1.5h", as Go writes durations. */
static int parse_duration(const char *text, uint64_t *ret_ms, struct error *err)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}};
    double total = 0;

    for (const char *rest = text_equal(text, "0") ? "" : text; *rest;) {
        char *end;
        double number = strtod(rest, &end);
        size_t length = strcspn(end, "0123456789."), i = 0;
        while (i < ARRAY_SIZE(units) &&
               (strlen(units[i].unit) != length || memcmp(units[i].unit, end, length) != 0))
            i++;
        if (end == rest || i == ARRAY_SIZE(units) || !(number >= 0 && number < 1e9))
            return error_set(err, -EINVAL, "invalid value \"%s\" for flag -interval", text);
        total += number * units[i].ms;
        rest = end + length;
    }
    if (!(total > 0))
        return error_set(err, -EINVAL, "duration interval must be greater than 0");
    *ret_ms = total < 1 ? 1 : (uint64_t)total;
    return 0;
}

static int events_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *interval = INTERVAL_DEFAULT;
    struct cloche_runtime_events_options options = {.size = sizeof(options), .event = print_event};
    bool stats = false;
    const struct option_spec specs[] = {
        {.name = "interval", .value = &interval},
        {.name = "stats", .flag = &stats},
        {0},
    };
    int rest = options_parse(specs, true, argc, argv, &err);

    if (rest >= 0 && rest != 1)
        rest = error_set(&err, -EINVAL, "needs one argument: the container's ID");
    if (rest < 0)
        return program_usage_error(&command_events, &err);
    if (parse_duration(interval, &options.interval_ms, &err) < 0)
        return program_fail(&err);
    int r = stats ? print_statistics(program->runtime, argv[1])
                  : cloche_runtime_events(program->runtime, argv[1], &options);
    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

const struct command command_events = {
    .name = "events",
    .usage = "[--stats] [--interval DURATION] ID",
    .summary = "print what a container uses, and kills for want of memory",
    .main = events_main,
};
