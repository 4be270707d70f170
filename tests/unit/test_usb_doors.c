/* src/usb/doors: limits, and writes that are under way together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <base/clock.h>

#include "rate.h"
#include "served_internal.h"

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

/* A volume that tells in which order it hears of writes. */
static uint64_t heard[8];
static atomic_uint heard_count;

static int reserve(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                   struct error *err)
{
    return offset >= 1 << 20 ? error_set(err, -ENOSPC, "full") : 0;
}

static int wrote(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                 struct error *err)
{
    heard[atomic_fetch_add(&heard_count, 1)] = offset;
    return 0;
}

static const struct volume_ops listening = {.reserve = reserve, .wrote = wrote};

struct ending {
    struct served_volume *served;
    struct served_write write;
    int result;
    atomic_bool ended;
    pthread_t thread;
};

static void *end_write(void *data)
{
    struct ending *ending = data;
    ending->result = served_write_end(ending->served, &ending->write, ending->result, NULL);
    atomic_store(&ending->ended, true);
    return NULL;
}

static void begin(struct ending *ending, struct served_volume *served, void *file, uint64_t offset)
{
    *ending = (struct ending){.served = served};
    assert_int_equal(served_write_begin(served, &ending->write, file, offset, 100, NULL), 0);
}

static void start_end(struct ending *ending, int result)
{
    ending->result = result;
    assert_int_equal(pthread_create(&ending->thread, NULL, end_write, ending), 0);
}

static void a_file_grows_in_the_order_of_its_bytes(void **state)
{
    struct volume volume = {.ops = &listening};
    struct served_volume *served = served_volume_create(&volume);
    struct ending first, second, third, other;
    int file, another;
    begin(&first, served, &file, 0);
    begin(&second, served, &file, 8192);
    begin(&third, served, &file, 16384);
    begin(&other, served, &another, 4096);
    start_end(&third, 0);
    start_end(&second, 0);
    start_end(&other, 0);
    pthread_join(other.thread, NULL);
    usleep(20000);
    assert_false(atomic_load(&second.ended) || atomic_load(&third.ended));
    assert_int_equal(heard_count, 1);
    start_end(&first, 0);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    pthread_join(third.thread, NULL);
    assert_int_equal(heard_count, 4);
    assert_true(heard[0] == 4096 && heard[1] == 0 && heard[2] == 8192 && heard[3] == 16384);
    assert_true(first.result == 0 && second.result == 0 && third.result == 0);
    served_volume_destroy(served);
}

static void what_follows_a_failed_write_fails_too(void **state)
{
    struct volume volume = {.ops = &listening};
    struct served_volume *served = served_volume_create(&volume);
    struct ending first, second;
    struct served_write write;
    int file;
    atomic_store(&heard_count, 0);
    begin(&first, served, &file, 0);
    begin(&second, served, &file, 8192);
    start_end(&second, 0);
    start_end(&first, -EIO);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    assert_int_equal(first.result, -EIO);
    assert_int_equal(second.result, -EIO);
    assert_int_equal(heard_count, 0);
    assert_int_equal(served_write_begin(served, &write, (void *)&file, 1 << 20, 1, NULL), -ENOSPC);
    assert_int_equal(served_write_begin(served, &write, (void *)&file, UINT64_MAX, 2, NULL),
                     -EINVAL);
    begin(&first, served, &file, 0); /* nothing of those that failed is in its way */
    assert_int_equal(served_write_end(served, &first.write, 0, NULL), 0);
    served_volume_destroy(served);
}

static void *begin_again(void *data)
{
    struct ending *ending = data;
    assert_int_equal(
        served_write_begin(ending->served, &ending->write, ending->write.file, 50, 10, NULL), 0);
    atomic_store(&ending->ended, true);
    return NULL;
}

static void two_writes_are_never_in_one_sector(void **state)
{
    struct volume volume = {.ops = &listening};
    struct served_volume *served = served_volume_create(&volume);
    struct ending first, second = {.served = served};
    int file;
    atomic_store(&heard_count, 0);
    begin(&first, served, &file, 100);
    second.write.file = (struct node *)&file;
    assert_int_equal(pthread_create(&second.thread, NULL, begin_again, &second), 0);
    usleep(20000);
    assert_false(atomic_load(&second.ended));
    assert_int_equal(served_write_end(served, &first.write, 0, NULL), 0);
    pthread_join(second.thread, NULL);
    assert_int_equal(served_write_end(served, &second.write, 0, NULL), 0);
    served_volume_destroy(served);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_makes_those_wait_who_come_later),
        cmocka_unit_test(a_file_grows_in_the_order_of_its_bytes),
        cmocka_unit_test(what_follows_a_failed_write_fails_too),
        cmocka_unit_test(two_writes_are_never_in_one_sector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
