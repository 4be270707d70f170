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

struct dos_time dos_time_from(int64_t nanoseconds, int minutes_east)
{
    int64_t east = minutes_east * 60 * CLOCK_SECOND;
    int64_t low = SECONDS_1980 * CLOCK_SECOND - east, high = SECONDS_LAST * CLOCK_SECOND - east;
    int64_t local = (nanoseconds < low ? low : nanoseconds > high ? high : nanoseconds) + east;
    time_t seconds = (time_t)(local / CLOCK_SECOND);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    return (struct dos_time){
        .date = (uint16_t)((parts.tm_year - 80) << 9 | (parts.tm_mon + 1) << 5 | parts.tm_mday),
        .time = (uint16_t)(parts.tm_hour << 11 | parts.tm_min << 5 | parts.tm_sec / 2),
        .hundredths =
            (uint8_t)(parts.tm_sec % 2 * 100 + local % CLOCK_SECOND / (CLOCK_SECOND / 100)),
    };
}

static int within(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

int64_t dos_time_to(struct dos_time time, int minutes_east)
{
    struct tm parts = {
        .tm_year = 80 + (time.date >> 9),
        .tm_mon = within(time.date >> 5 & 15, 1, 12) - 1,
        .tm_mday = within(time.date & 31, 1, 31),
        .tm_hour = within(time.time >> 11, 0, 23),
        .tm_min = within(time.time >> 5 & 63, 0, 59),
        .tm_sec = within((time.time & 31) * 2, 0, 58),
    };
    int64_t seconds = (int64_t)timegm(&parts) - minutes_east * 60;
    return seconds * CLOCK_SECOND + within(time.hundredths, 0, 199) * (CLOCK_SECOND / 100);
}
