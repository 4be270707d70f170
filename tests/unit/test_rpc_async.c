/* Asynchronous calls: their one callback, and where they go when an endpoint breaks or is silent.
 */
#include "rpc_peers.h"

static void asynchronous_calls_have_one_callback(void **state)
{
    struct seen echoed = {0}, failed = {0}, late = {0}, cancelled = {0}, unknown = {0};

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &echoed) > 0);
    assert_true(begin("fail", NULL, 0, &failed) > 0);
    assert_true(begin("hold", NULL, 30, &late) > 0);
    int64_t number = begin("hold", NULL, 0, &cancelled);
    assert_true(number > 0);
    assert_true(begin("nothing", NULL, 0, &unknown) > 0);
    wait_for(&echoed);
    assert_int_equal(echoed.code, 0);
    assert_string_equal(echoed.result, "{\"id\":\"x\"}");
    wait_for(&failed);
    assert_int_equal(failed.fault, RPC_CONFLICT);
    wait_for(&late);
    assert_int_equal(late.code, -ETIMEDOUT);
    assert_true(cloche_client_cancel(client, number));
    wait_for(&cancelled);
    assert_int_equal(cancelled.code, -ECANCELED);
    for (int i = 0; i < 1000 && !peers[0].cancelled; i++)
        nap(2);
    assert_int_equal(peers[0].cancelled, 1);
    assert_false(cloche_client_cancel(client, number));
    assert_false(cloche_client_cancel(client, 12345));
    assert_false(cloche_client_cancel(client, -1));
    wait_for(&unknown);
    assert_int_equal(unknown.fault, RPC_METHOD_NOT_FOUND);
    assert_int_equal(begin("not a name", NULL, 0, &unknown), -EINVAL);
    assert_int_equal(counts_now().in_flight, 0);
}

static void late_answers_are_counted(void **state)
{
    struct seen late[20] = {{0}};

    start_script(&peers[0], answer_late);
    open_with(1, .timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(late) && counts_now().late == 0; i++) {
        assert_true(begin("hold", NULL, 20, &late[i]) > 0);
        wait_for(&late[i]);
        assert_int_equal(late[i].code, -ETIMEDOUT);
        for (int k = 0; k < 200 && counts_now().late == 0; k++)
            nap(2);
        assert_int_equal(late[i].times, 1);
    }
    assert_int_equal(counts_now().late, 1);
    cloche_client_close(steal_ptr(client));
}

static void closing_ends_what_is_in_flight(void **state)
{
    struct seen held[3] = {{0}}, waiting = {0};

    start(&peers[0]);
    open_with(2, .timeout_ms = 20000);
    for (size_t i = 0; i < 3; i++)
        assert_true(begin("hold", NULL, 0, &held[i]) > 0);
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &waiting) > 0);
    cloche_client_close(steal_ptr(client));
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(held[i].times, 1);
        assert_int_equal(held[i].code, -ECANCELED);
    }
    assert_int_equal(waiting.times, 1);
}

static void asynchronous_calls_move_or_end_with_their_endpoint(void **state)
{
    struct seen once = {0}, again = {0};

    start_script(&peers[0], read_and_break_off);
    open_with(2, .timeout_ms = 20000, .probe_first_ms = 5000);
    assert_true(begin("once", "{\"container\":\"x\"}", 0, &once) > 0);
    wait_for(&once);
    assert_int_equal(once.code, -ECONNRESET);
    stop(&peers[0]);
    cloche_client_close(steal_ptr(client));

    peers[0].script = NULL;
    start(&peers[0]);
    open_with(2, .timeout_ms = 20000, .probe_first_ms = 5000); /* the second: nobody is there */
    for (int i = 0; i < 10; i++) {
        again.times = 0;
        assert_true(begin("once", "{\"container\":\"x\"}", 0, &again) > 0);
        wait_for(&again);
        assert_int_equal(again.code, 0);
    }
    assert_int_equal(endpoint_counts(1).calls, 0);
}

static void idempotent_asynchronous_calls_are_sent_again(void **state)
{
    struct seen seen[10] = {{0}};

    start(&peers[1]);
    start_script(&peers[0], read_and_break_off);
    open_with(2, .timeout_ms = 20000, .probe_first_ms = 50);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin_with("echo", "{\"container\":\"x\"}", 0, true, &seen[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        wait_for(&seen[i]);
        assert_int_equal(seen[i].code, 0);
    }
}

static void asynchronous_calls_wait_for_an_endpoint(void **state)
{
    struct seen seen[5] = {{0}}, too_late = {0};

    open_with(2, .probe_first_ms = 5, .probe_most_ms = 20, .timeout_ms = 30000);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin("once", "{\"container\":\"x\"}", 0, &seen[i]) > 0);
    assert_true(begin("once", "{\"container\":\"x\"}", 20, &too_late) > 0);
    wait_for(&too_late);
    assert_int_equal(too_late.code, -ETIMEDOUT);
    start(&peers[1]);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        wait_for(&seen[i]);
        assert_int_equal(seen[i].code, 0);
    }
}

static void a_silent_endpoint_loses_its_calls_to_others(void **state)
{
    struct seen seen[12] = {{0}}, probe[8] = {{0}};

    start_script(&peers[0], never_answer);
    start(&peers[1]);
    open_with(2, .timeout_ms = 60000, .connect_timeout_ms = 50);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin_with("echo", "{\"container\":\"x\"}", 0, true, &seen[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(probe); i++)
        assert_true(begin("hold", NULL, 20, &probe[i]) > 0); /* on either endpoint */
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        wait_for(&seen[i]);
        assert_int_equal(seen[i].code, 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(probe); i++)
        wait_for(&probe[i]);
    end_unanswered(&peers[0]);
}

static void an_idempotent_call_does_not_wait_for_a_hung_endpoint(void **state)
{
    struct seen seen[4] = {{0}};

    start_script(&peers[0], never_answer);
    start(&peers[1]);
    open_with(2, .timeout_ms = 60000, .attempt_timeout_ms = 20, .connect_timeout_ms = 50);
    for (int i = 0; i < 10; i++)
        assert_int_equal(echo("x"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin_with("echo", "{\"container\":\"x\"}", 0, true, &seen[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        wait_for(&seen[i]);
        assert_int_equal(seen[i].code, 0);
    }
    assert_true(counts_now().retries > 0);
    assert_int_equal(counts_now().timeouts, 0);
    end_unanswered(&peers[0]);
}

static void limits_on_waiting_calls_hold(void **state)
{
    struct seen seen[8] = {{0}}, more = {0};

    start(&peers[0]);
    open_with(1, .waiting = 8, .timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin("hold", NULL, 0, &seen[i]) > 0);
    assert_int_equal(begin("hold", NULL, 0, &more), -ENOBUFS);
    while (peers[0].calls < 8)
        nap(1);
    assert_int_equal(call("letGo", 0), 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        wait_for(&seen[i]);
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &more) > 0);
    wait_for(&more);
}

static void any_loop_can_poll_a_client(void **state)
{
    struct seen echoed = {0}, late = {0}, waits = {0};

    start(&peers[0]);
    open_with(1, .polled = true, .timeout_ms = 20000, .probe_first_ms = 5);
    assert_true(cloche_client_fd(client) >= 0);
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &echoed) > 0);
    nap(20);
    assert_int_equal(echoed.times, 0); /* nobody dispatches */
    run_polled(&echoed);
    assert_true(begin("hold", NULL, 10, &late) > 0);
    run_polled(&late);
    assert_int_equal(late.code, -ETIMEDOUT);
    stop(&peers[0]);
    assert_true(begin("once", "{\"container\":\"x\"}", 0, &waits) > 0);
    for (int i = 0; i < 10; i++) {
        nap(2);
        cloche_client_dispatch(client);
    }
    start(&peers[0]);
    run_polled(&waits);
    assert_int_equal(waits.code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pool_test(asynchronous_calls_have_one_callback),
        pool_test(late_answers_are_counted),
        pool_test(closing_ends_what_is_in_flight),
        pool_test(asynchronous_calls_move_or_end_with_their_endpoint),
        pool_test(idempotent_asynchronous_calls_are_sent_again),
        pool_test(asynchronous_calls_wait_for_an_endpoint),
        pool_test(a_silent_endpoint_loses_its_calls_to_others),
        pool_test(an_idempotent_call_does_not_wait_for_a_hung_endpoint),
        pool_test(limits_on_waiting_calls_hold),
        pool_test(any_loop_can_poll_a_client),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
