#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

#include "internal.h"

enum { NANOSECONDS = 1000000000 };

/* "+02:00", "-05:30" or "Z" in seconds east of UTC. */
static bool parse_zone(const char *text, int64_t *ret)
{
    int hours, minutes;
    char sign, rest;

    if (text_equal(text, "Z") || text_equal(text, "z")) {
        *ret = 0;
        return true;
    }
    if (sscanf(text, "%c%2d:%2d%c", &sign, &hours, &minutes, &rest) != 3 ||
        (sign != '+' && sign != '-') || hours < 0 || minutes < 0)
        return false;
    *ret = (sign == '-' ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

int64_t parse_time(const char *text)
{
    struct tm tm = {0};
    int64_t fraction = 0, zone = 0;
    int used = 0;

    if (!text || sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
                        &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 6)
        return 0;
    text += used;
    if (*text == '.') {
        int64_t unit = NANOSECONDS / 10;
        for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
            fraction += (*text - '0') * unit;
    }
    if (tm.tm_year < 1970 || tm.tm_year > 2261 || !parse_zone(text, &zone))
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return ((int64_t)timegm(&tm) - zone) * NANOSECONDS + fraction;
}

char *format_time(int64_t nanoseconds)
{
    time_t seconds = (time_t)(nanoseconds / NANOSECONDS);
    char text[32];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    return xasprintf("%s.%09dZ", text, (int)(nanoseconds % NANOSECONDS));
}

int64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * NANOSECONDS + now.tv_nsec;
}
