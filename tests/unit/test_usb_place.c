/* Where a thread waits for transfers: on machines that say on which processor their ends are told
 * only by how often is slept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "place.h"

/* The machine. */
static int processor; /* where the thread runs */
static int told; /* where ends are told; -1: the device is so slow that every end is slept for */
static uint64_t allowed;
static unsigned moves, sleeps;
static bool is_stubborn; /* the thread cannot be moved */

static int where(void)
{
    return processor;
}

static uint64_t get_allowed(void)
{
    return allowed;
}

static void go(int to)
{
    assert_true(allowed & UINT64_C(1) << to);
    moves++;
    if (!is_stubborn)
        processor = to;
}

static const struct place_ops ops = {where, get_allowed, go};

static void start(struct place *place, int at, int told_at, uint64_t processors)
{
    processor = at;
    told = told_at;
    allowed = processors;
    moves = 0;
    is_stubborn = false;
    place_init(place, &ops);
}

/* Commands of three transfers: a command block, data that take their time, a status. */
static void carry_out(struct place *place, unsigned commands)
{
    sleeps = 0;
    for (unsigned i = 0; i < commands * 3; i++) {
        bool slept = i % 3 == 1 || processor != told;
        sleeps += slept;
        place_note(place, slept);
    }
}

static void it_goes_where_ends_are_told_and_stays(void **state)
{
    for (int told_at = 0; told_at < 8; told_at++) {
        struct place place;
        start(&place, 0, told_at, 0xFF);
        carry_out(&place, 200);
        assert_int_equal(processor, told_at);
        assert_in_range(moves, 0, 7);
        moves = 0;
        carry_out(&place, 10000);
        assert_int_equal(moves, 0);
        assert_int_equal(sleeps, 10000);
        assert_false(place_counts(&place)); /* which costs a call each */
    }
}

static void who_was_moved_goes_back(void **state)
{
    struct place place;
    start(&place, 1, 1, 3);
    carry_out(&place, 100);
    processor = 0;
    place_note(&place, true);
    assert_int_equal(processor, 1); /* at once */
    processor = 0;
    for (int i = 0; i < 100; i++)
        place_look(&place); /* who does not wait, too */
    assert_int_equal(processor, 1);
}

/* It is not fought for. */
static void who_is_moved_again_and_again_goes_back_seldom(void **state)
{
    struct place place;
    start(&place, 1, 1, 3);
    carry_out(&place, 100);
    for (int i = 0; i < 10000; i++) {
        processor = 0;
        carry_out(&place, 1);
    }
    assert_in_range(moves, 2, 20);
}

static void where_ends_are_told_may_change(void **state)
{
    struct place place;
    start(&place, 0, 2, 7);
    carry_out(&place, 200);
    assert_int_equal(processor, 2);
    told = 1;
    carry_out(&place, 3000);
    assert_int_equal(processor, 1);
    carry_out(&place, 1000);
    assert_int_equal(sleeps, 1000);
}

static void where_all_are_alike_it_is_left_alone(void **state)
{
    struct place place;
    start(&place, 0, -1, 7);
    carry_out(&place, 1000);
    assert_in_range(moves, 2, 8);
    moves = 0;
    carry_out(&place, 100000);
    assert_in_range(moves, 0, 30);
    assert_false(place_counts(&place));
}

/* All are slept for but here, where a third is not: still the best. */
static void the_best_of_bad_ones_is_gone_to(void **state)
{
    struct place place;
    start(&place, 0, -1, 7);
    for (int i = 0; i < 200; i++)
        place_note(&place, processor != 1 || i % 3 != 0);
    assert_int_equal(place.state, PLACE_RESTING);
    assert_int_equal(processor, 1);
}

static void only_allowed_processors_are_gone_to(void **state)
{
    struct place place;
    start(&place, 3, 0, 0x28); /* 3 and 5; go() looks */
    carry_out(&place, 300);
    assert_in_range(moves, 1, 2);
    start(&place, 3, 0, 0); /* it may not even ask */
    carry_out(&place, 1000);
    assert_int_equal(moves, 0);
}

static void who_cannot_be_moved_is_not_asked_to_for_ever(void **state)
{
    struct place place;
    start(&place, 0, 1, 3);
    is_stubborn = true;
    carry_out(&place, 2000);
    assert_in_range(moves, 1, 4);
    carry_out(&place, 100000);
    assert_in_range(moves, 1, 12);
}

/* The calling thread's own functions. */
static void a_thread_goes_to_a_processor_and_is_as_free_as_before(void **state)
{
    struct place place;
    place_init(&place, NULL);
    uint64_t before = place.ops->allowed();
    assert_true(before != 0);
    for (int i = 0; i < PLACE_PROCESSORS; i++)
        if (before & UINT64_C(1) << i)
            place.ops->go(i);
    assert_true(place.ops->allowed() == before);
    assert_in_range(place.ops->where(), 0, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_where_ends_are_told_and_stays),
        cmocka_unit_test(who_was_moved_goes_back),
        cmocka_unit_test(who_is_moved_again_and_again_goes_back_seldom),
        cmocka_unit_test(where_ends_are_told_may_change),
        cmocka_unit_test(where_all_are_alike_it_is_left_alone),
        cmocka_unit_test(the_best_of_bad_ones_is_gone_to),
        cmocka_unit_test(only_allowed_processors_are_gone_to),
        cmocka_unit_test(who_cannot_be_moved_is_not_asked_to_for_ever),
        cmocka_unit_test(a_thread_goes_to_a_processor_and_is_as_free_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
