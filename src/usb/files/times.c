#include "times.h"

#include <time.h>

#include <base/clock.h>

int64_t times_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return now.tv_sec * CLOCK_SECOND + now.tv_nsec;
}

#define SECONDS_1980 INT64_C(315532800)
#define SECONDS_LAST INT64_C(4354819199) /* 2107-12-31 23:59:59 */

#define DAY INT64_C(86400)

/*
 * Days since 1970 and dates, without the C library's lock of its time zone. Years are counted from
 * March of 1968 on, so that the day that leap years have is the last one of four of them: 1461
 * days. That leaves 2100 out, which has none.
 */
enum { DAYS_TO_1970 = 671, DAYS_OF_FOUR = 1461, DAYS_TO_MARCH_2100 = 47541 };

/* Days of a year that begins in March before its month number `month` (0: March). */
static uint32_t days_before(uint32_t month)
{
    return (month * 153 + 2) / 5;
}

static uint16_t date_of(uint32_t day)
{
    uint32_t days = day + DAYS_TO_1970;
    days += day >= DAYS_TO_MARCH_2100;
    uint32_t year = (days * 4 + 3) / DAYS_OF_FOUR, in_year = days - year * DAYS_OF_FOUR / 4;
    uint32_t month = (in_year * 5 + 2) / 153, in_month = in_year - days_before(month);
    year = year + 1968 + (month >= 10);
    return (uint16_t)((year - 1980) << 9 | (month < 10 ? month + 3 : month - 9) << 5 |
                      (in_month + 1));
}

/* month: 1 to 12; day: 1 to 31, whatever the month has. */
static uint32_t day_of(uint32_t year, uint32_t month, uint32_t day)
{
    year -= month < 3 ? 1969 : 1968;
    uint32_t days = year * DAYS_OF_FOUR / 4 + days_before(month < 3 ? month + 9 : month - 3);
    uint32_t since = days + day - 1 - DAYS_TO_1970;
    return since - (since - (day - 1) >= DAYS_TO_MARCH_2100 ? 1 : 0);
}

struct dos_time dos_time_from(int64_t nanoseconds, int minutes_east)
{
    int64_t east = minutes_east * 60 * CLOCK_SECOND;
    int64_t low = SECONDS_1980 * CLOCK_SECOND - east, high = SECONDS_LAST * CLOCK_SECOND - east;
    int64_t local = (nanoseconds < low ? low : nanoseconds > high ? high : nanoseconds) + east;
    int64_t seconds = local / CLOCK_SECOND;
    uint32_t in_day = (uint32_t)(seconds % DAY);
    return (struct dos_time){
        .date = date_of((uint32_t)(seconds / DAY)),
        .time = (uint16_t)(in_day / 3600 << 11 | in_day / 60 % 60 << 5 | in_day % 60 / 2),
        .hundredths = (uint8_t)(seconds % 2 * 100 + local % CLOCK_SECOND / (CLOCK_SECOND / 100)),
    };
}

static int within(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

int64_t dos_time_to(struct dos_time time, int minutes_east)
{
    uint32_t day =
        day_of(1980 + (uint32_t)(time.date >> 9), (uint32_t)within(time.date >> 5 & 15, 1, 12),
               (uint32_t)within(time.date & 31, 1, 31));
    int in_day = within(time.time >> 11, 0, 23) * 3600 + within(time.time >> 5 & 63, 0, 59) * 60 +
                 within((time.time & 31) * 2, 0, 58);
    int64_t seconds = day * DAY + in_day - minutes_east * 60;
    return seconds * CLOCK_SECOND + within(time.hundredths, 0, 199) * (CLOCK_SECOND / 100);
}
