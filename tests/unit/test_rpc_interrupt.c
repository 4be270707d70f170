/* Calls that are ended from outside, and what errors and options tell. */
#include <sys/socket.h>

#include "rpc_peers.h"

struct caller {
    pthread_t thread;
    struct cloche_client *client;
    const char *method;
    struct cloche_cancel *cancel;
    uint64_t timeout_ms;
    _Atomic int result; /* 1: not yet */
};

static void *call_it(void *data)
{
    struct caller *caller = data;
    const struct cloche_call_options options = {
        .size = sizeof(options), .cancel = caller->cancel, .timeout_ms = caller->timeout_ms};

    caller->result = cloche_client_call(caller->client, caller->method, NULL, &options, NULL, NULL);
    return NULL;
}

static void begin_call(struct caller *caller, const char *method, struct cloche_cancel *cancel)
{
    caller->client = client;
    caller->method = method;
    caller->cancel = cancel;
    caller->timeout_ms = CLOCHE_NO_TIMEOUT;
    caller->result = 1;
    assert_int_equal(pthread_create(&caller->thread, NULL, call_it, caller), 0);
}

static int end_call(struct caller *caller)
{
    pthread_join(caller->thread, NULL);
    return caller->result;
}

static void wait_for_calls(size_t index, unsigned count)
{
    for (int i = 0; i < 4000 && peers[index].calls < count; i++)
        nap(5);
    assert_int_equal(peers[index].calls, count);
}

static void wait_in_flight(uint64_t count)
{
    for (int i = 0; i < 4000 && counts_now().in_flight < count; i++)
        nap(5);
    assert_int_equal(counts_now().in_flight, count);
}

static void an_interrupt_ends_what_blocks(void **state)
{
    struct caller holding, waiting;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000, .connections = 1);
    begin_call(&holding, "hold", NULL);
    wait_for_calls(0, 1);
    begin_call(&waiting, "echo", NULL); /* for room */
    wait_in_flight(2);
    nap(30);
    assert_int_equal(holding.result, 1);
    assert_int_equal(waiting.result, 1);
    cloche_client_interrupt(client);
    assert_int_equal(end_call(&holding), -ECANCELED);
    assert_int_equal(end_call(&waiting), -ECANCELED);
    assert_int_equal(endpoint_counts(0).connections, 0); /* whose end tells the server */
    assert_int_equal(echo("after"), 0);
    assert_int_equal(endpoint_counts(0).breaks, 0);
    assert_int_equal(counts_now().cancelled, 2);
}

static void one_call_can_be_cancelled(void **state)
{
    struct caller one, other;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    struct cloche_cancel *cancel = cloche_cancel_create(client);
    begin_call(&one, "hold", cancel);
    begin_call(&other, "hold", NULL);
    wait_for_calls(0, 2);
    cloche_cancel_fire(cancel);
    assert_int_equal(end_call(&one), -ECANCELED);
    const struct cloche_call_options options = {.size = sizeof(options), .cancel = cancel};
    assert_int_equal(cloche_client_call(client, "steps", NULL, &options, NULL, &error), -ECANCELED);
    assert_non_null(strstr(error.message, "cancelled"));
    struct seen seen = {0};
    assert_int_equal(cloche_client_call_async(client, "steps", NULL, &options, on_done, &seen),
                     -EINVAL);
    nap(30);
    assert_int_equal(other.result, 1);
    assert_int_equal(call("letGo", 0), 0);
    assert_int_equal(end_call(&other), 0);
    cloche_cancel_destroy(cancel);
}

static void a_call_on_a_kept_connection_can_be_cancelled(void **state)
{
    struct cloche_connection *connection;

    start_script(&peers[0], never_answer);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(cloche_client_get(client, 0, &connection, &error), 0);
    cloche_client_interrupt(client); /* it is not in a call */
    struct cloche_cancel *cancel = cloche_cancel_create(client);
    cloche_cancel_fire(cancel);
    const struct cloche_call_options fired = {
        .size = sizeof(fired), .cancel = cancel, .connection = connection};
    assert_int_equal(cloche_client_call(client, "x", NULL, &fired, NULL, &error), -ECANCELED);
    const struct cloche_call_options brief = {
        .size = sizeof(brief), .timeout_ms = 20, .connection = connection};
    assert_int_equal(cloche_client_call(client, "x", NULL, &brief, NULL, &error), -ETIMEDOUT);
    cloche_client_put(client, connection);
    cloche_cancel_destroy(cancel);
    end_unanswered(&peers[0]);
}

static void closing_ends_the_calls_of_other_threads(void **state)
{
    struct caller callers[6];

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
        begin_call(&callers[i], "hold", NULL);
    wait_for_calls(0, 4);
    wait_in_flight(ARRAY_SIZE(callers)); /* the others wait for room */
    cloche_client_close(steal_ptr(client));
    for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
        assert_int_equal(end_call(&callers[i]), -ECANCELED);
}

/* Whatever a call is doing: making connections, waiting for an endpoint, between two attempts. */
static void *interrupt_often(void *data)
{
    _Atomic bool *stop_it = data;

    while (!*stop_it) {
        cloche_client_interrupt(client);
        nap(1);
    }
    return NULL;
}

static void interrupts_may_come_at_any_time(void **state)
{
    _Atomic bool stop_it = false;
    pthread_t thread;
    unsigned good = 0, cancelled = 0;

    start(&peers[0]);
    open_with(2, .timeout_ms = 20000); /* nobody listens at the other one */
    assert_int_equal(pthread_create(&thread, NULL, interrupt_often, &stop_it), 0);
    for (int i = 0; i < 3000 || (good == 0 && i < 100000); i++) {
        int r = call("steps", 0);
        good += r == 0;
        cancelled += r == -ECANCELED;
        assert_true(r == 0 || r == -ECANCELED);
    }
    stop_it = true;
    pthread_join(thread, NULL);
    assert_true(good > 0);
    assert_int_equal(call("steps", 0), 0);
}

/* ---- errors ---- */

static struct cloche_error last;

static void keep_error(void *data, const char *result, int *fds, size_t fds_count,
                       const struct cloche_error *why)
{
    _Atomic int *times = data;

    last.what = xstrdup(why->what);
    last.where = xstrdup(why->where);
    (*times)++;
}

static void errors_say_what_and_where(void **state)
{
    _Atomic int times = 0;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("fail", 0), -EBUSY);
    assert_string_equal(error.what, "conflict");
    assert_string_equal(error.where, "fail");
    assert_true(cloche_client_call_async(client, "fail", NULL, NULL, keep_error, &times) > 0);
    while (!times)
        nap(1);
    assert_string_equal(last.what, "conflict");
    assert_string_equal(last.where, "fail");
    cloche_error_finish(&last);
    assert_int_equal(call("hold", 20), -ETIMEDOUT);
    if (!error.fault)
        assert_null(error.what);
}

/* ---- asynchronous functions with options ---- */

static void on_step(void *data, const struct cloche_progress *progress)
{
    _Atomic int *steps = data;

    (*steps)++;
}

static void on_empty(void *data, void *result, int fd, const struct cloche_error *why)
{
    _Atomic int *ended = data;

    *ended = why ? why->code : 1;
}

static void call_empty(void (*function)(void), void *data, void *result, int fd,
                       const struct cloche_error *why)
{
    json_free(&api_empty_type, result);
    on_empty(data, NULL, fd, why);
}

static void on_info(void *data, struct cloche_system_info *result, const struct cloche_error *why)
{
    _Atomic int *ended = data;

    cloche_system_info_free(result);
    *ended = why ? why->code : 1;
}

static void asynchronous_functions_take_options(void **state)
{
    _Atomic int steps = 0, ended = 0;
    int fd = 0;
    struct cloche_call_options options = {
        .size = sizeof(options), .progress = on_step, .progress_data = &steps};

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_true(rpc_stub_call_async(client, &steps_method, NULL, -1, &options, call_empty,
                                    (void (*)(void))on_empty, &ended) > 0);
    while (!ended)
        nap(1);
    assert_int_equal(ended, 1);
    assert_int_equal(steps, 2);
    ended = 0;
    assert_true(cloche_system_info_async_with(client, NULL, &options, on_info, &ended) > 0);
    while (!ended)
        nap(1);
    assert_int_equal(ended, -EOPNOTSUPP); /* it has no such method */
    options.fds = &fd;
    options.fds_count = 1;
    assert_int_equal(cloche_system_info_async_with(client, NULL, &options, on_info, &ended),
                     -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pool_test(an_interrupt_ends_what_blocks),
        pool_test(one_call_can_be_cancelled),
        pool_test(a_call_on_a_kept_connection_can_be_cancelled),
        pool_test(closing_ends_the_calls_of_other_threads),
        pool_test(interrupts_may_come_at_any_time),
        pool_test(errors_say_what_and_where),
        pool_test(asynchronous_functions_take_options),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
