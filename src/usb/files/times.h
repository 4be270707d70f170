/* Times as FAT and exFAT keep them: a local date and time of 2 seconds in 32 bits, the years 1980
 * to 2107, and up to 199 hundredths of a second beside. */
#ifndef FILES_TIMES_H
#define FILES_TIMES_H

#include <stdint.h>

struct dos_time {
    uint16_t date, time;
    uint8_t hundredths; /* 0 to 199 */
};

/* Now, in nanoseconds since 1970, by the clock by which the kernel dates files: it is behind by up
 * to a tick, so that a time of the other one may be of the next step. */
int64_t times_now(void);

/* Nanoseconds since 1970, UTC, and back; what cannot be is brought to what is next to it. */
struct dos_time dos_time_from(int64_t nanoseconds, int minutes_east);
int64_t dos_time_to(struct dos_time time, int minutes_east);

#endif
