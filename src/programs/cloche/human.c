#include <ctype.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "human.h"

enum {
    MINUTE = 60,
    HOUR = 60 * MINUTE,
    SECOND = 1000000000, /* in nanoseconds */
    NANOSECOND_DIGITS = 9,
    ID_DIGITS = 12,
};

char *human_duration(int64_t seconds)
{
    if (seconds < 1)
        return xstrdup("Less than a second");
    if (seconds == 1)
        return xstrdup("1 second");
    if (seconds < MINUTE)
        return xasprintf("%lld seconds", (long long)seconds);
    if (seconds < 2 * MINUTE)
        return xstrdup("About a minute");
    if (seconds < HOUR)
        return xasprintf("%lld minutes", (long long)(seconds / MINUTE));

    long long hours = (long long)((seconds + HOUR / 2) / HOUR);
    if (hours == 1)
        return xstrdup("About an hour");
    if (hours < 48)
        return xasprintf("%lld hours", hours);
    if (hours < 24 * 7 * 2)
        return xasprintf("%lld days", hours / 24);
    if (hours < 24 * 30 * 2)
        return xasprintf("%lld weeks", hours / 24 / 7);
    if (hours < 24 * 365 * 2)
        return xasprintf("%lld months", hours / 24 / 30);
    return xasprintf("%lld years", (long long)(seconds / HOUR) / 24 / 365);
}

/* ".123456789" (any number of digits, those behind the ninth are dropped). Moves *text behind it.
 */
static uint32_t parse_fraction(const char **text)
{
    uint32_t nanoseconds = 0;
    int digits = 0;

    if (**text != '.')
        return 0;
    for ((*text)++; isdigit((unsigned char)**text); (*text)++) {
        if (digits < NANOSECOND_DIGITS) {
            nanoseconds = nanoseconds * 10 + (uint32_t)(**text - '0');
            digits++;
        }
    }
    for (; digits < NANOSECOND_DIGITS; digits++)
        nanoseconds *= 10;
    return nanoseconds;
}

/* "Z", "+01:00" or nothing (UTC; local time would make scripts depend on where they run). */
static int parse_zone(const char *text, int64_t *ret_offset)
{
    int hours, minutes, end = 0;

    *ret_offset = 0;
    if (!text[0] || text_equal(text, "Z") || text_equal(text, "z"))
        return 0;
    if (text[0] != '+' && text[0] != '-')
        return -EINVAL;
    if (sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &end) != 2 || text[1 + end])
        return -EINVAL;
    if (hours < 0 || minutes < 0)
        return -EINVAL;
    *ret_offset = (hours * HOUR + minutes * MINUTE) * (text[0] == '-' ? -1 : 1);
    return 0;
}

/* 2026-11-20, 2026-11-20T10:00, 2026-11-20T10:00:00.5, each with or without zone. */
static int parse_date(const char *text, int64_t *ret_seconds, uint32_t *ret_nanoseconds)
{
    struct tm tm = {0};
    int64_t zone;

    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    if (!rest)
        return -EINVAL;
    if (*rest == 'T' || *rest == ' ') {
        rest = strptime(rest + 1, "%H:%M", &tm);
        if (!rest)
            return -EINVAL;
        if (*rest == ':')
            rest = strptime(rest, ":%S", &tm);
        if (!rest)
            return -EINVAL;
    }
    uint32_t nanoseconds = parse_fraction(&rest);
    if (parse_zone(rest, &zone) < 0)
        return -EINVAL;
    *ret_seconds = timegm(&tm) - zone;
    if (ret_nanoseconds)
        *ret_nanoseconds = nanoseconds;
    return 0;
}

int human_parse_time(const char *text, int64_t *ret_seconds, uint32_t *ret_nanoseconds)
{
    if (!text)
        return -EINVAL;
    return parse_date(text, ret_seconds, ret_nanoseconds);
}

int human_parse_duration(const char *text, double *ret_seconds)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 0.001}, {"us", 1e-6}, {"ns", 1e-9}, {"h", HOUR}, {"m", MINUTE}, {"s", 1}};
    double sum = 0;

    while (*text) {
        char *end;
        if (!isdigit((unsigned char)*text))
            return -EINVAL;
        double amount = strtod(text, &end);
        size_t unit = 0;
        while (unit < ARRAY_SIZE(units) && !text_starts_with(end, units[unit].name))
            unit++;
        if (unit == ARRAY_SIZE(units) || !isfinite(amount))
            return -EINVAL;
        sum += amount * units[unit].seconds;
        text = end + strlen(units[unit].name);
    }
    *ret_seconds = sum;
    return 0;
}

static int parse_epoch(const char *text, int64_t *ret_seconds, uint32_t *ret_nanoseconds)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *ret_seconds = strtoll(text, &end, 10);
    const char *rest = end;
    *ret_nanoseconds = parse_fraction(&rest);
    return errno || *rest ? -EINVAL : 0;
}

int human_point_in_time(const char *text, int64_t now, char **ret, struct error *err)
{
    int64_t seconds;
    uint32_t nanoseconds = 0;
    double back;
    struct tm tm;

    if (parse_epoch(text, &seconds, &nanoseconds) < 0 &&
        parse_date(text, &seconds, &nanoseconds) < 0) {
        if (!text[0] || human_parse_duration(text, &back) < 0 || back > (double)INT32_MAX)
            return error_set(err, -EINVAL,
                             "\"%s\" is neither a time (2026-11-20T10:00:00Z, 1795000000) nor a "
                             "duration (42m)",
                             text);
        int64_t back_nanoseconds = (int64_t)(back * SECOND);
        seconds = now - (back_nanoseconds + SECOND - 1) / SECOND;
        nanoseconds = (uint32_t)((SECOND - back_nanoseconds % SECOND) % SECOND);
    }
    time_t clock = (time_t)seconds;
    if (!gmtime_r(&clock, &tm) || tm.tm_year < -1900 || tm.tm_year > 8099)
        return error_set(err, -ERANGE, "\"%s\" lies outside the years 0 to 9999", text);
    *ret = xasprintf("%04d-%02d-%02dT%02d:%02d:%02d.%09uZ", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, nanoseconds);
    return 0;
}

char *human_age(const char *created_at, int64_t now)
{
    int64_t seconds;

    if (human_parse_time(created_at, &seconds, NULL) < 0)
        return xstrdup("N/A");
    _cleanup_free_ char *duration = human_duration(now - seconds);
    return xasprintf("%s ago", duration);
}

char *human_id(const char *id, bool whole)
{
    if (whole)
        return xstrdup(id);
    if (text_starts_with(id, "sha256:"))
        id += strlen("sha256:");
    return xstrndup(id, strnlen(id, ID_DIGITS));
}

char *human_timestamp(const char *text)
{
    char shown[64];
    int64_t seconds;
    struct tm tm;

    if (human_parse_time(text, &seconds, NULL) < 0)
        return xstrdup("");
    time_t clock = (time_t)seconds;
    if (!gmtime_r(&clock, &tm) ||
        !strftime(shown, sizeof(shown), "%Y-%m-%d %H:%M:%S +0000 UTC", &tm))
        return xstrdup("");
    return xstrdup(shown);
}

static bool starts_character(char byte)
{
    return ((unsigned char)byte & 0xc0) != 0x80;
}

char *human_shorten(const char *text, size_t width)
{
    size_t characters = 0, cut = 0;

    for (const char *c = text; *c; c++) {
        if (!starts_character(*c))
            continue;
        if (characters + 1 == width)
            cut = (size_t)(c - text);
        characters++;
    }
    if (characters <= width)
        return xstrdup(text);
    return xasprintf("%.*s…", (int)cut, text);
}

char *human_quote(const char *text)
{
    static const char letters[][2] = {{'\n', 'n'}, {'\t', 't'}, {'\r', 'r'},
                                      {'\a', 'a'}, {'\b', 'b'}, {'\f', 'f'},
                                      {'\v', 'v'}, {'"', '"'},  {'\\', '\\'}};
    struct buffer out = BUFFER_INIT;

    buffer_append_char(&out, '"');
    for (; *text; text++) {
        size_t i = 0;
        while (i < ARRAY_SIZE(letters) && letters[i][0] != *text)
            i++;
        if (i < ARRAY_SIZE(letters))
            buffer_printf(&out, "\\%c", letters[i][1]);
        else if ((unsigned char)*text < 0x20 || *text == 0x7f)
            buffer_printf(&out, "\\x%02x", (unsigned char)*text);
        else
            buffer_append_char(&out, *text);
    }
    buffer_append_char(&out, '"');
    return buffer_steal(&out);
}

void human_split_name(const char *name, char **ret_repository, char **ret_tag)
{
    const char *slash = strrchr(name, '/');
    const char *colon = strchr(slash ? slash : name, ':');

    if (text_empty(name) || text_equal(name, "<none>:<none>")) {
        *ret_repository = xstrdup("<none>");
        *ret_tag = xstrdup("<none>");
        return;
    }
    *ret_repository = xstrndup(name, colon ? (size_t)(colon - name) : strlen(name));
    *ret_tag = xstrdup(colon ? colon + 1 : "<none>");
}
