/* Asynchronous calls in greater numbers than connections and servers take at a time. */
#include "rpc_peers.h"

#define WORD "{\"container\":\"x\"}"

static void wait_for_calls(struct peer *peer, unsigned calls)
{
    for (int i = 0; i < 4000 && peer->calls < calls; i++)
        nap(5);
    assert_true(peer->calls >= calls);
}

/* As many as it takes to fill what the server reads of every connection. */
static void calls_without_end_leave_room_for_others(void **state)
{
    static struct seen held[300], echoed;

    memset(held, 0, sizeof(held));
    echoed = (struct seen){0};
    start(&peers[0]);
    open_with(1, .timeout_ms = 20000, .connections = 2);
    for (size_t i = 0; i < ARRAY_SIZE(held); i++)
        assert_true(begin("hold", NULL, CLOCHE_NO_TIMEOUT, &held[i]) > 0);
    wait_for_calls(&peers[0], 100);
    assert_true(begin("echo", WORD, 0, &echoed) > 0);
    wait_for(&echoed);
    assert_int_equal(echoed.code, 0);
    assert_int_equal(endpoint_counts(0).breaks, 0);
    cloche_client_close(steal_ptr(client));
}

static void cancelled_calls_make_room(void **state)
{
    static struct seen held[64], echoed;
    static int64_t numbers[64];

    memset(held, 0, sizeof(held));
    echoed = (struct seen){0};
    start(&peers[0]);
    open_with(1, .timeout_ms = 20000, .connections = 1, .connect_timeout_ms = 60000);
    for (size_t i = 0; i < ARRAY_SIZE(held); i++)
        numbers[i] = begin("hold", NULL, 0, &held[i]);
    wait_for_calls(&peers[0], ARRAY_SIZE(held) - 1); /* one place is for rpc.cancel */
    for (size_t i = 0; i < ARRAY_SIZE(held); i++)
        assert_true(cloche_client_cancel(client, numbers[i]));
    assert_true(begin("echo", WORD, 0, &echoed) > 0);
    wait_for(&echoed);
    assert_int_equal(echoed.code, 0);
    for (size_t i = 0; i < ARRAY_SIZE(held); i++)
        wait_for(&held[i]);
    assert_true(peers[0].cancelled >= ARRAY_SIZE(held) - 1);
    assert_int_equal(endpoint_counts(0).connects, 1);
    cloche_client_close(steal_ptr(client));
}

/* Calls that ended here are still the server's when it knows nothing of deadlines: it gets others
 * on another connection. */
static void answers_that_never_come_do_not_block_a_connection(void **state)
{
    static struct seen late[70], last;

    memset(late, 0, sizeof(late));
    last = (struct seen){0};
    start_script(&peers[0], answer_nothing_but_pings);
    open_with(1, .timeout_ms = 20000, .connections = 1);
    for (size_t i = 0; i < ARRAY_SIZE(late); i++)
        assert_true(begin("hold", NULL, 400, &late[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(late); i++)
        wait_for(&late[i]);
    assert_true(begin("rpc.ping", NULL, 0, &last) > 0);
    wait_for(&last);
    assert_int_equal(last.code, 0);
    cloche_client_close(steal_ptr(client));
}

/* ---- a server that is hung */

/* Surely not sent to anybody, they are not kept by one that does not answer. */
static void calls_are_not_bound_to_an_endpoint_that_says_nothing(void **state)
{
    struct seen seen[20] = {{0}};

    start_script(&peers[0], never_answer);
    start(&peers[1]);
    open_with(2, .timeout_ms = 20000, .connect_timeout_ms = 300);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin("once", WORD, 0, &seen[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        wait_for(&seen[i]);
        assert_int_equal(seen[i].code, 0);
    }
    for (int i = 0; i < 4000 && !endpoint_counts(0).breaks; i++)
        nap(5);
    assert_true(endpoint_counts(0).breaks > 0);
    end_unanswered(&peers[0]);
}

/* It answers the first that come, and then nothing more. */
static _Atomic int greetings;

static void greet_and_go_silent(struct peer *peer, int fd)
{
    char line[4096];

    if (greetings-- > 0 && read_line(fd, line, sizeof(line)))
        answer_hello(fd, line);
    never_answer(peer, fd);
}

/* One call has begun to go out and stays; those behind it go elsewhere, though they may not be done
 * twice: nothing of them was sent. */
static void unsent_calls_leave_a_silent_endpoint(void **state)
{
    static char large[512 * 1024];
    struct seen first = {0}, behind[4] = {{0}}, late[3] = {{0}};

    snprintf(large, sizeof(large), "{\"container\":\"");
    memset(large + strlen(large), 'x', sizeof(large) - strlen(large) - 3);
    memcpy(large + sizeof(large) - 3, "\"}", 3);
    greetings = 1;
    start_script(&peers[0], greet_and_go_silent);
    open_with(2, .timeout_ms = 60000, .connect_timeout_ms = 3000, .connections = 1,
              .probe_first_ms = 20, .probe_most_ms = 40);
    assert_true(begin("once", large, 0, &first) > 0);
    for (int i = 0; i < 4000 && !endpoint_counts(0).calls; i++)
        nap(5); /* the only endpoint there is has it */
    for (size_t i = 0; i < ARRAY_SIZE(behind); i++)
        assert_true(begin("once", WORD, 0, &behind[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(late); i++)
        assert_true(begin("once", WORD, 30, &late[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(late); i++)
        wait_for(&late[i]);
    start(&peers[1]);
    for (size_t i = 0; i < ARRAY_SIZE(behind); i++) {
        wait_for(&behind[i]);
        assert_int_equal(behind[i].code, 0);
    }
    assert_int_equal(first.times, 0);
    assert_int_equal(peers[1].calls, ARRAY_SIZE(behind));
    end_unanswered(&peers[0]);
}

/* ---- one that refuses */

static void what_one_endpoint_has_no_room_for_goes_to_another(void **state)
{
    struct seen seen[20] = {{0}};

    start(&peers[0]);
    start(&peers[1]);
    peers[0].busy = true;
    open_with(2, .timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(begin("busy", WORD, 0, &seen[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        wait_for(&seen[i]);
        assert_int_equal(seen[i].code, 0);
    }
    peers[1].busy = true;
    seen[0] = (struct seen){0};
    assert_true(begin("busy", WORD, 0, &seen[0]) > 0);
    wait_for(&seen[0]);
    assert_int_equal(seen[0].fault, RPC_TOO_MANY); /* nobody has */
    assert_int_equal(endpoint_counts(0).breaks + endpoint_counts(1).breaks, 0);
}

/* ---- callbacks that call */

struct again {
    _Atomic int times;
    _Atomic bool done;
};

static void call_again(void *data, const char *result, int *fds, size_t fds_count,
                       const struct cloche_error *why)
{
    struct again *again = data;

    again->times++;
    again->done = result != NULL;
    if (!again->done && why->code != -ECANCELED)
        cloche_client_call_async(client, "echo", WORD, NULL, call_again, again);
}

static void a_callback_that_calls_again_lets_others_be_done(void **state)
{
    struct again again = {0};

    open_with(1, .fail_fast = true, .timeout_ms = 20000, .probe_first_ms = 5, .probe_most_ms = 20);
    assert_true(cloche_client_call_async(client, "echo", WORD, NULL, call_again, &again) > 0);
    for (int i = 0; i < 4000 && again.times < 100; i++)
        nap(5);
    start(&peers[0]);
    for (int i = 0; i < 4000 && !again.done; i++)
        nap(5);
    assert_true(again.done);
}

static void dispatching_ends_though_callbacks_call_again(void **state)
{
    struct pollfd ready;
    struct again again = {0};

    open_with(1, .polled = true, .fail_fast = true, .timeout_ms = 20000, .probe_first_ms = 5,
              .probe_most_ms = 20);
    ready = (struct pollfd){.fd = cloche_client_fd(client), .events = POLLIN};
    assert_true(cloche_client_call_async(client, "echo", WORD, NULL, call_again, &again) > 0);
    for (int i = 0; i < 1000 && again.times < 100; i++) {
        assert_true(poll(&ready, 1, 60000) > 0); /* it says that there is more to do */
        cloche_client_dispatch(client);
    }
    start(&peers[0]);
    for (int i = 0; i < 10000 && !again.done; i++) {
        poll(&ready, 1, 5000);
        cloche_client_dispatch(client);
    }
    assert_true(again.done);
}

static void dispatch_within(void *data, const char *result, int *fds, size_t fds_count,
                            const struct cloche_error *why)
{
    struct seen *seen = data;

    cloche_client_dispatch(client);
    seen->times++;
}

static void dispatching_within_a_callback_is_nothing(void **state)
{
    struct seen seen[3] = {{0}};

    start(&peers[0]);
    open_with(1, .polled = true, .timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_true(
            cloche_client_call_async(client, "echo", WORD, NULL, dispatch_within, &seen[i]) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        run_polled(&seen[i]);
}

/* ---- a great many */

enum { BURST = 20000 };

static _Atomic unsigned burst_ended, burst_failed;

static void on_burst(void *data, const char *result, int *fds, size_t fds_count,
                     const struct cloche_error *why)
{
    burst_failed += !result;
    burst_ended++;
}

static void call_in_a_burst(void)
{
    burst_ended = burst_failed = 0;
    for (int i = 0; i < BURST; i++)
        assert_true(cloche_client_call_async(client, "echo", WORD, NULL, on_burst, NULL) > 0);
    for (int i = 0; i < 12000 && burst_ended < BURST; i++)
        nap(5);
    assert_int_equal(burst_ended, BURST);
    assert_int_equal(burst_failed, 0);
}

static void a_burst_is_done_in_turn(void **state)
{
    start(&peers[0]);
    open_with(1, .connections = 1, .timeout_ms = 100000);
    call_in_a_burst();
    call_in_a_burst();
    assert_int_equal(endpoint_counts(0).connects, 1);
    assert_int_equal(counts_now().in_flight, 0);
}

/* The parameters that wait have a limit in bytes, too. */
static void what_waits_is_limited_in_bytes(void **state)
{
    static char large[1000 * 1000];
    static struct seen seen[300];
    size_t taken = 0;

    memset(seen, 0, sizeof(seen));
    snprintf(large, sizeof(large), "{\"container\":\"");
    memset(large + strlen(large), 'x', sizeof(large) - strlen(large) - 3);
    memcpy(large + sizeof(large) - 3, "\"}", 3);
    open_with(1, .timeout_ms = 20000, .polled = true);
    while (taken < ARRAY_SIZE(seen) && begin("echo", large, 0, &seen[taken]) > 0)
        taken++;
    assert_true(taken > 200 && taken < 290);
    assert_int_equal(begin("echo", large, 0, &seen[taken]), -ENOBUFS);
    cloche_client_close(steal_ptr(client));
    for (size_t i = 0; i < taken; i++)
        assert_int_equal(seen[i].times, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pool_test(calls_without_end_leave_room_for_others),
        pool_test(cancelled_calls_make_room),
        pool_test(answers_that_never_come_do_not_block_a_connection),
        pool_test(calls_are_not_bound_to_an_endpoint_that_says_nothing),
        pool_test(unsent_calls_leave_a_silent_endpoint),
        pool_test(what_one_endpoint_has_no_room_for_goes_to_another),
        pool_test(a_callback_that_calls_again_lets_others_be_done),
        pool_test(dispatching_ends_though_callbacks_call_again),
        pool_test(dispatching_within_a_callback_is_nothing),
        pool_test(a_burst_is_done_in_turn),
        pool_test(what_waits_is_limited_in_bytes),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
