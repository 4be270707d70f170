#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <dockerfile/limits.h>
#include <schema/image_set.h>

#include "planner.h"

void set_text(char **field, const char *text)
{
    char *copy = xstrdup(text);

    free(*field);
    *field = copy;
}

void set_list(char ***field, size_t *count, char **list)
{
    strv_free(*field);
    *field = list ? list : xnew_array(char *, 1);
    *count = strv_length(list);
}

/* --- ports ------------------------------------------------------------------------------------ */

int ports_add(struct oci_image_set **set, const char *text, struct error *err)
{
    const char *colon = strrchr(text, ':'); /* what stands in front is of the host */
    _cleanup_free_ char *spec = xstrdup(colon ? colon + 1 : text);
    char *slash = strchr(spec, '/');
    const char *protocol = slash ? slash + 1 : "tcp";
    uint64_t first, last;

    if (slash)
        *slash = '\0';
    for (char *at = slash ? slash + 1 : spec + strlen(spec); *at; at++)
        *at = (char)tolower((unsigned char)*at);
    if (!protocol[0])
        protocol = "tcp";
    if (!text_equal(protocol, "tcp") && !text_equal(protocol, "udp") &&
        !text_equal(protocol, "sctp"))
        return error_set(err, -EINVAL, "invalid proto: %.32s", protocol);
    char *dash = strchr(spec, '-');
    if (dash)
        *dash = '\0';
    if (text_to_u64(spec, 0, UINT16_MAX, &first) < 0 ||
        text_to_u64(dash ? dash + 1 : spec, first, UINT16_MAX, &last) < 0)
        return error_set(err, -EINVAL, "invalid containerPort: %.64s", text);
    for (uint64_t port = first; port <= last; port++) {
        _cleanup_free_ char *name = xasprintf("%u/%s", (unsigned)port, protocol);
        oci_image_set_add(set, name);
    }
    return 0;
}

/* --- durations -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int64_t nanoseconds;
} units[] = {
    {"ns", 1},          {"us", 1000},      {"µs", 1000}, {"ms", 1000000}, {"h", 3600000000000},
    {"m", 60000000000}, {"s", 1000000000},
};

/* A number and its unit. */
static int take_part(const char **at, double *total)
{
    char *end;
    size_t digits = strspn(*at, "0123456789.");

    if (!digits)
        return -EINVAL;
    _cleanup_free_ char *text = xstrndup(*at, digits);
    double number = strtod(text, &end);
    if (*end)
        return -EINVAL;
    *at += digits;
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (!text_starts_with(*at, units[i].name))
            continue;
        *at += strlen(units[i].name);
        *total += number * (double)units[i].nanoseconds;
        return 0;
    }
    return -EINVAL;
}

int duration_parse(const char *text, int64_t *ret, struct error *err)
{
    const char *at = text;
    double total = 0;
    bool negative = *at == '-';

    if (negative || *at == '+')
        at++;
    int r = *at ? 0 : -EINVAL;
    if (text_equal(at, "0"))
        at++;
    while (r == 0 && *at)
        r = take_part(&at, &total);
    if (r < 0 || total > 9e18)
        return error_set(err, -EINVAL, "time: invalid duration \"%.64s\"", text);
    *ret = (int64_t)(negative ? -total : total);
    return 0;
}

static void append_seconds(struct buffer *out, int64_t nanoseconds, int64_t unit, const char *name)
{
    buffer_printf(out, "%lld", (long long)(nanoseconds / unit));
    int64_t fraction = nanoseconds % unit;
    if (fraction) {
        char digits[24];
        int width = unit == 1000000000 ? 9 : unit == 1000000 ? 6 : 3;
        snprintf(digits, sizeof(digits), "%0*lld", width, (long long)fraction);
        for (size_t end = strlen(digits); end && digits[end - 1] == '0';)
            digits[--end] = '\0';
        buffer_printf(out, ".%s", digits);
    }
    buffer_append_text(out, name);
}

char *duration_text(int64_t nanoseconds)
{
    struct buffer out = BUFFER_INIT;

    if (nanoseconds == 0) {
        buffer_append_text(&out, "0s");
    } else if (nanoseconds < 1000) {
        buffer_printf(&out, "%lldns", (long long)nanoseconds);
    } else if (nanoseconds < 1000000) {
        append_seconds(&out, nanoseconds, 1000, "µs");
    } else if (nanoseconds < 1000000000) {
        append_seconds(&out, nanoseconds, 1000000, "ms");
    } else {
        int64_t minutes = nanoseconds / 60000000000;
        if (minutes >= 60)
            buffer_printf(&out, "%lldh", (long long)(minutes / 60));
        if (minutes)
            buffer_printf(&out, "%lldm", (long long)(minutes % 60));
        append_seconds(&out, nanoseconds % 60000000000, 1000000000, "s");
    }
    return buffer_steal(&out);
}

/* --- signals ---------------------------------------------------------------------------------- */

int signal_check(const char *text, struct error *err)
{
    static const char *const names[] = {
        "ABRT", "ALRM",   "BUS",  "CHLD",   "CLD",   "CONT", "FPE",  "HUP",   "ILL",
        "INT",  "IO",     "IOT",  "KILL",   "PIPE",  "POLL", "PROF", "PWR",   "QUIT",
        "SEGV", "STKFLT", "STOP", "SYS",    "TERM",  "TRAP", "TSTP", "TTIN",  "TTOU",
        "URG",  "USR1",   "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    };
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    uint64_t number;

    if (text_to_u64(text, 1, 64, &number) == 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcasecmp(names[i], name) == 0)
            return 0;
    }
    if ((strncasecmp(name, "RTMIN+", 6) == 0 || strncasecmp(name, "RTMAX-", 6) == 0) &&
        text_to_u64(name + 6, 1, 15, &number) == 0)
        return 0;
    return error_set(err, -EINVAL, "Invalid signal: %.32s", text);
}

/* --- lists as Go prints them ------------------------------------------------------------------ */

static void append_quoted(struct buffer *out, const char *text)
{
    static const char letters[] = "\a\b\f\n\r\t\v\"\\", names[] = "abfnrtv\"\\";

    buffer_append_char(out, '"');
    for (; *text; text++) {
        const char *special = strchr(letters, *text);
        if (special)
            buffer_printf(out, "\\%c", names[special - letters]);
        else if ((unsigned char)*text < 0x20 || *text == 0x7f)
            buffer_printf(out, "\\x%02x", (unsigned char)*text);
        else
            buffer_append_char(out, *text);
    }
    buffer_append_char(out, '"');
}

char *list_quoted(char *const *list)
{
    struct buffer out = BUFFER_INIT;

    buffer_append_char(&out, '[');
    for (size_t i = 0; list && list[i]; i++) {
        if (i)
            buffer_append_char(&out, ' ');
        append_quoted(&out, list[i]);
    }
    buffer_append_char(&out, ']');
    return buffer_steal(&out);
}
