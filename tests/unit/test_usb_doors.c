/* src/usb/doors: limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <base/clock.h>

#include "rate.h"

static void a_rate_makes_those_wait_who_come_later(void **state)
{
    const int64_t ms = CLOCK_SECOND / 1000, now = 5 * CLOCK_SECOND;
    struct rate rate;
    rate_init(&rate, 1000);
    /* After a pause a tenth of a second may be taken at once, and no more. */
    assert_int_equal(rate_take(&rate, 100, now), 0);
    assert_int_equal(rate_take(&rate, 50, now), 50 * ms);
    assert_int_equal(rate_take(&rate, 50, now), 100 * ms);
    assert_int_equal(rate_take(&rate, 1, now + 101 * ms), 0);
    assert_int_equal(rate_take(&rate, 100, now + 3600 * CLOCK_SECOND), 0);
    assert_int_equal(rate_take(&rate, 1, now + 3600 * CLOCK_SECOND), 1 * ms);
    /* No amount is a wait for ever, or none. */
    assert_true(rate_take(&rate, UINT64_MAX, now + 3601 * CLOCK_SECOND) > 3000 * CLOCK_SECOND);
    rate_finish(&rate);
    rate_init(&rate, 0);
    assert_int_equal(rate_take(&rate, UINT64_MAX, now), 0);
    rate_finish(&rate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_makes_those_wait_who_come_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
