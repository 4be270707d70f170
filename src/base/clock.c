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

int64_t clock_ticks(void)
{
    return clock_read(CLOCK_MONOTONIC_COARSE, 1000);
}

/* Decimal digits, as many as there is room for. */
static char *put_digits(char *at, int64_t value, int count)
{
    for (int i = count; i-- > 0; value /= 10)
        at[i] = (char)('0' + value % 10);
    return at + count;
}

/* gmtime_r reads the machine's time zone from a file first, although it has no use for it. Years
 * that begin in March have their leap day at the end; 306 days are from March to the year's end,
 * and 719468 from 0000-03-01 to 1970. Not by printf: lists of containers are full of times. */
char *clock_format(int64_t nanoseconds)
{
    nanoseconds = nanoseconds < 0 ? 0 : nanoseconds;
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
    char *text = xstrdup("yyyy-mm-ddThh:mm:ss.nnnnnnnnnZ");
    char *at = put_digits(text, 400 * centuries + year_of_centuries + next_year, 4);

    at = put_digits(at + 1, month < 10 ? month + 3 : month - 9, 2);
    at = put_digits(at + 1, day_of_year - (153 * month + 2) / 5 + 1, 2);
    at = put_digits(at + 1, second / 3600, 2);
    at = put_digits(at + 1, second / 60 % 60, 2);
    at = put_digits(at + 1, second % 60, 2);
    put_digits(at + 1, nanoseconds % CLOCK_SECOND, 9);
    return text;
}

/* The other way round; month 1 to 12. */
static int64_t days_since_1970(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t year_of_centuries = year % 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return year / 400 * 146097 + year_of_centuries * 365 + year_of_centuries / 4 -
           year_of_centuries / 100 + day_of_year - 719468;
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

/* Exactly so many digits, with the character behind them unless that is NUL. */
static bool take_digits(const char **at, int count, char behind, int64_t *ret)
{
    *ret = 0;
    for (; count > 0; count--, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *ret = *ret * 10 + (**at - '0');
    }
    if (behind && **at != behind && !(behind == 'T' && **at == 't'))
        return false;
    *at += behind != '\0';
    return true;
}

int clock_parse(const char *text, int64_t *ret)
{
    int64_t year, month, day, hour, minute, second, fraction, zone;
    const char *at = text;

    if (!text || !take_digits(&at, 4, '-', &year) || !take_digits(&at, 2, '-', &month) ||
        !take_digits(&at, 2, 'T', &day) || !take_digits(&at, 2, ':', &hour) ||
        !take_digits(&at, 2, ':', &minute) || !take_digits(&at, 2, '\0', &second))
        return -EINVAL;
    if (year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60)
        return -EINVAL;
    if (!parse_zone(parse_fraction(at, &fraction), &zone))
        return -EINVAL;
    int64_t seconds =
        days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone;
    if (seconds < 0)
        return -EINVAL;
    *ret = seconds * CLOCK_SECOND + fraction;
    return 0;
}
