#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>

static int64_t clock_read(clockid_t clock, int64_t per_second)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec * per_second + now.tv_nsec / (CLOCK_SECOND / per_second);
}

int64_t clock_now(void)
{
    return clock_read(CLOCK_REALTIME, CLOCK_SECOND);
}

int64_t clock_milliseconds(void)
{
    return clock_read(CLOCK_MONOTONIC, 1000);
}

/* gmtime_r reads the machine's time zone from a file first, although it has no use for it. Years
 * that begin in March have their leap day at the end; 306 days are from March to the year's end,
 * and 719468 from 0000-03-01 to 1970. */
char *clock_format(int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / CLOCK_SECOND, second = seconds % 86400;
    int64_t day = seconds / 86400 + 719468, centuries = day / 146097;
    int64_t day_of_centuries = day % 146097;
    int64_t year_of_centuries = (day_of_centuries - day_of_centuries / 1460 +
                                 day_of_centuries / 36524 - day_of_centuries / 146096) /
                                365;
    int64_t day_of_year = day_of_centuries - (365 * year_of_centuries + year_of_centuries / 4 -
                                              year_of_centuries / 100);
    int64_t month = (5 * day_of_year + 2) / 153; /* 0: March */
    bool next_year = day_of_year >= 306;

    return xasprintf("%04d-%02d-%02dT%02d:%02d:%02d.%09dZ",
                     (int)(400 * centuries + year_of_centuries + next_year),
                     (int)(month < 10 ? month + 3 : month - 9),
                     (int)(day_of_year - (153 * month + 2) / 5 + 1), (int)(second / 3600),
                     (int)(second / 60 % 60), (int)(second % 60),
                     (int)(nanoseconds % CLOCK_SECOND));
}

/* ".25" after the seconds; digits beyond nanoseconds are dropped. */
static const char *parse_fraction(const char *at, int64_t *ret)
{
    int64_t unit = CLOCK_SECOND / 10;

    *ret = 0;
    if (*at != '.')
        return at;
    for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10)
        *ret += (*at - '0') * unit;
    return at;
}

/* "+02:00", "-05:30" or "Z" in seconds east of UTC. */
static bool parse_zone(const char *text, int64_t *ret)
{
    int hours, minutes;
    char sign, rest;

    *ret = 0;
    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
        return true;
    if (strlen(text) != strlen("+hh:mm") || strspn(text + 1, "0123456789:") != strlen(text + 1) ||
        sscanf(text, "%c%2d:%2d%c", &sign, &hours, &minutes, &rest) != 3 ||
        (sign != '+' && sign != '-') || hours > 23 || minutes > 59)
        return false;
    *ret = (sign == '-' ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

int clock_parse(const char *text, int64_t *ret)
{
    struct tm tm = {0};
    int64_t fraction, zone;
    char separator;
    int used = 0;

    if (!text ||
        sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &separator,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 7 ||
        (separator != 'T' && separator != 't') || used != (int)strlen("yyyy-mm-ddThh:mm:ss"))
        return -EINVAL;
    if (tm.tm_year < 1970 || tm.tm_year > 2261 || tm.tm_mon < 1 || tm.tm_mon > 12 ||
        tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 ||
        tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60)
        return -EINVAL;
    if (!parse_zone(parse_fraction(text + used, &fraction), &zone))
        return -EINVAL;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t seconds = (int64_t)timegm(&tm) - zone;
    if (seconds < 0)
        return -EINVAL;
    *ret = seconds * CLOCK_SECOND + fraction;
    return 0;
}
