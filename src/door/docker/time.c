#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "handlers.h"

enum { FRACTION_DIGITS = 9 };

bool docker_time_parse(const char *text, int64_t *ret)
{
    char digits[FRACTION_DIGITS + 1] = "000000000";
    uint64_t seconds, fraction;

    if (clock_parse(text, ret) == 0)
        return true;
    size_t whole = strcspn(text, ".");
    _cleanup_free_ char *first = xstrndup(text, whole);
    const char *rest = text + whole + (text[whole] == '.');
    size_t length = strlen(rest);
    memcpy(digits, rest, length < FRACTION_DIGITS ? length : FRACTION_DIGITS);
    if (text_to_u64(first, 0, INT64_MAX / CLOCK_SECOND - 1, &seconds) < 0 ||
        text_to_u64(digits, 0, CLOCK_SECOND - 1, &fraction) < 0)
        return false;
    *ret = (int64_t)seconds * CLOCK_SECOND + (int64_t)fraction;
    return true;
}
