/*
 * cloche-runtime-systemd: asks systemd for what cloche-runtime wants done with a scope. A program
 * of its own, so that the runtime, of which most containers never meet systemd, stays a static one
 * that loads no library.
 *
 *     cloche-runtime-systemd [--user] start UNIT SLICE PID   prints the scope's cgroup
 *     cloche-runtime-systemd [--user] set UNIT
 *     cloche-runtime-systemd [--user] stop UNIT
 *     cloche-runtime-systemd [--user] attach UNIT SUBGROUP PID
 *
 * start and set read properties from standard input, each "MIN-VERSION NAME VALUE" followed by a
 * NUL: the oldest systemd that knows it (0: all), and the value in the GVariant text format. A name
 * ending in Sec means USec and a number of seconds, as in the documentation of unit files.
 *
 * Exit status 0, or 1 with a message on standard error.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "bus.h"

enum { INPUT_MAX = 8 << 20 }; /* bytes */

struct properties {
    struct property list[PROPERTIES_MAX];
    size_t count;
    char *input;      /* owned */
    char **own_names; /* owned; those that are not in the input */
};

static int check_name(const char *name, struct error *err)
{
    for (const char *c = name; *c; c++) {
        if (!isalpha((unsigned char)*c))
            return error_set(err, -EINVAL, "a name of a property has letters only");
    }
    return strlen(name) < 3 ? error_set(err, -EINVAL, "too short a name of a property") : 0;
}

/* "RuntimeMaxSec" is what people read in manual pages, "RuntimeMaxUSec" what the bus knows. */
static int convert_seconds(struct properties *properties, struct property *property,
                           struct error *err)
{
    size_t length = strlen(property->name);

    if (length < 4 || !text_ends_with(property->name, "Sec") ||
        !islower((unsigned char)property->name[length - 4]))
        return 0;
    int r = gvariant_to_microseconds(property->value, err);
    if (r < 0)
        return r;
    char *name = xasprintf("%.*sUSec", (int)(length - 3), property->name);
    strv_take(&properties->own_names, name);
    property->name = name;
    return 0;
}

static int take_property(struct properties *properties, char *record, struct error *err)
{
    struct property *property = &properties->list[properties->count];
    char *name, *value;

    if (properties->count == PROPERTIES_MAX)
        return error_set(err, -E2BIG, "more than %d properties", PROPERTIES_MAX);
    property->min_version = (unsigned)strtoul(record, &name, 10);
    if (*name != ' ' || !(value = strchr(++name, ' ')))
        return error_set(err, -EINVAL, "a property is 'MIN-VERSION NAME VALUE': '%s'", record);
    *value++ = '\0';
    property->name = name;
    int r = check_name(name, err);
    if (r == 0)
        r = gvariant_parse(value, &property->value, err);
    if (r == 0) {
        properties->count++;
        r = convert_seconds(properties, property, err);
    }
    if (r < 0)
        error_context(err, "property %s", name);
    return r;
}

static int read_properties(struct properties *properties, struct error *err)
{
    size_t length;
    int r = file_read_fd(STDIN_FILENO, INPUT_MAX, &properties->input, &length, err);

    for (size_t at = 0, next; r == 0 && at < length; at = next) {
        next = at + strlen(properties->input + at) + 1;
        r = take_property(properties, properties->input + at, err);
    }
    return r;
}

static void finish_properties(struct properties *properties)
{
    for (size_t i = 0; i < properties->count; i++)
        gvariant_free(properties->list[i].value);
    free(properties->input);
    strv_free(properties->own_names);
}

static int start(sd_bus *bus, char **arguments, pid_t pid, const struct properties *properties,
                 struct error *err)
{
    _cleanup_free_ char *cgroup = NULL;
    int r = bus_start_scope(bus, arguments[0], arguments[1], pid, properties->list,
                            properties->count, &cgroup, err);

    if (r == 0 && (puts(cgroup) < 0 || fflush(stdout) != 0))
        r = error_errno(err, errno, "write the answer");
    return r;
}

static int run(bool user, const char *verb, int count, char **arguments,
               struct properties *properties, struct error *err)
{
    bool starts = text_equal(verb, "start"), sets = text_equal(verb, "set"),
         attaches = text_equal(verb, "attach"), stops = text_equal(verb, "stop");
    uint64_t pid = 0;
    sd_bus *bus;

    if (!(starts || sets || attaches || stops) || count != (starts || attaches ? 3 : 1) ||
        (count == 3 && text_to_u64(arguments[2], 1, INT_MAX, &pid) < 0))
        return error_set(err, -EINVAL,
                         "usage: cloche-runtime-systemd [--user] start UNIT SLICE PID | set UNIT | "
                         "stop UNIT | attach UNIT SUBGROUP PID");
    int r = starts || sets ? read_properties(properties, err) : 0;
    if (r == 0)
        r = bus_open(user, &bus, err);
    if (r < 0)
        return r;
    if (starts)
        r = start(bus, arguments, (pid_t)pid, properties, err);
    else if (sets)
        r = bus_set_properties(bus, arguments[0], properties->list, properties->count, err);
    else if (attaches)
        r = bus_attach(bus, arguments[0], arguments[1], (pid_t)pid, err);
    else
        r = bus_stop(bus, arguments[0], err);
    sd_bus_flush_close_unref(bus);
    return r;
}

int main(int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    static struct properties properties; /* large for a stack */
    bool user = argc > 1 && text_equal(argv[1], "--user");

    argv += 1 + user;
    argc -= 1 + user;
    int r = run(user, argc ? argv[0] : NULL, argc - 1, argv + 1, &properties, &err);
    finish_properties(&properties);
    if (r == 0)
        return 0;
    fprintf(stderr, "%s%s%s\n", error_message(&err), err.hint ? ": " : "",
            err.hint ? err.hint : "");
    return 1;
}
