#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <runtime/runtime.h>

#include <base/text.h>

#include "options.h"
#include "program.h"

#define INTERVAL_DEFAULT "5s"

static void print_event(void *context _unused_, const char *text)
{
    puts(text);
    fflush(stdout);
}

/* "1m30s", "100ms", "1.5h", as Go writes durations. */
static int parse_duration(const char *text, uint64_t *ret_ms, struct error *err)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}};
    double total = 0;

    for (const char *rest = text; *rest;) {
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
    uint64_t interval_ms = 0;
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
    int r = parse_duration(interval, &interval_ms, &err);
    if (r == 0)
        r = runtime_events(program->root, argv[1], stats ? 0 : interval_ms, print_event, NULL,
                           &err);
    return r < 0 ? program_fail(&err) : EXIT_CODE_OK;
}

const struct command command_events = {
    .name = "events",
    .usage = "[--stats] [--interval DURATION] ID",
    .summary = "print what a container uses, and kills for want of memory",
    .main = events_main,
};
