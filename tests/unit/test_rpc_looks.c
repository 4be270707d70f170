/* Looks at endpoints that are out, or doubted, and who waits for what they find. */
#include <sys/resource.h>

#include "rpc_peers.h"

/* ---- looks that cross */

struct caller {
    pthread_t thread;
    int delay_ms;
    uint64_t timeout_ms;
    int code;
};

static void *call_after(void *data)
{
    struct caller *caller = data;
    const struct cloche_call_options options = {.size = sizeof(options),
                                                .timeout_ms = caller->timeout_ms};

    nap(caller->delay_ms);
    caller->code =
        cloche_client_call(client, "echo", "{\"container\":\"x\"}", &options, NULL, NULL);
    return NULL;
}

static void start_caller(struct caller *caller)
{
    assert_int_equal(pthread_create(&caller->thread, NULL, call_after, caller), 0);
}

/* Several connections to it fail one after the other, while it is looked at, too. Whatever comes in
 * between, it is looked at again: nobody but a look brings it back. */
static void an_endpoint_is_looked_at_until_it_is_in(void **state)
{
    struct caller callers[6];

    for (int round = 0; round < 3; round++) {
        start_script(&peers[0], never_answer);
        open_with(1, .encoding = CLOCHE_ENCODING_CBOR, .connect_timeout_ms = 100,
                  .probe_first_ms = 5, .probe_most_ms = 10);
        for (size_t i = 0; i < ARRAY_SIZE(callers); i++) {
            callers[i] = (struct caller){.delay_ms = (int)i * 35, .timeout_ms = 600};
            start_caller(&callers[i]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
            pthread_join(callers[i].thread, NULL);
        assert_true(endpoint_counts(0).breaks > 0);
        stop(&peers[0]);
        peers[0].script = NULL;
        start(&peers[0]);
        wait_for_state(0, CLOCHE_ENDPOINT_IN);
        end_unanswered(&peers[0]);
    }
}

/* ---- those who wait */

static _Atomic bool answering;

static void answer_when_told(struct peer *peer, int fd)
{
    char line[4096];

    while (read_line(fd, line, sizeof(line))) {
        while (!answering && !peer->stop)
            nap(2);
        if (peer->stop ||
            !answer_line(fd, line,
                         strstr(line, "rpc.hello") ? "{\"encoding\":\"json\",\"version\":\"1\","
                                                     "\"limits\":{\"message\":65536,\"depth\":32,"
                                                     "\"batch\":1,\"inFlight\":8,"
                                                     "\"connections\":9,\"output\":65536,"
                                                     "\"fds\":1}}"
                                                   : "{\"id\":\"x\"}"))
            break;
    }
    close(fd);
}

/* All places are taken by connections that come to nothing in the time of their callers. */
static void who_waits_for_room_is_told_of_it(void **state)
{
    struct caller early[4], patient = {.delay_ms = 100, .timeout_ms = 15000};

    answering = false;
    start_script(&peers[0], answer_when_told);
    open_with(1, .encoding = CLOCHE_ENCODING_CBOR, .connections = 4, .connect_timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(early); i++) {
        early[i] = (struct caller){.timeout_ms = 500};
        start_caller(&early[i]);
    }
    start_caller(&patient);
    for (size_t i = 0; i < ARRAY_SIZE(early); i++) {
        pthread_join(early[i].thread, NULL);
        assert_int_equal(early[i].code, -ETIMEDOUT);
    }
    answering = true;
    pthread_join(patient.thread, NULL);
    assert_int_equal(patient.code, 0);
    cloche_client_close(steal_ptr(client));
}

/* ---- without an endpoint */

/* That a connection ended says nothing of the next one. */
static void failing_fast_needs_a_look_that_failed(void **state)
{
    struct seen seen = {0};

    start_script(&peers[0], answer_pings_only);
    open_with(1, .fail_fast = true, .timeout_ms = 20000, .probe_first_ms = 100);
    for (int i = 0; i < 3; i++)
        assert_int_equal(echo_by(&once_method, "x", 0), -ECONNRESET);
    for (int i = 0; i < 3; i++) {
        seen.times = 0;
        assert_true(begin("once", "{\"container\":\"x\"}", 0, &seen) > 0);
        wait_for(&seen);
        assert_int_equal(seen.code, -ECONNRESET);
    }
    cloche_client_close(steal_ptr(client));
    stop(&peers[0]);
    open_with(1, .fail_fast = true, .timeout_ms = 20000, .probe_first_ms = 10000,
              .probe_most_ms = 10000);
    for (int i = 0; i < 2; i++)
        assert_int_equal(echo_by(&once_method, "x", 0), -ECONNREFUSED);
    seen.times = 0;
    assert_true(begin("once", "{\"container\":\"x\"}", 0, &seen) > 0);
    wait_for(&seen);
    assert_int_equal(seen.code, -ECONNREFUSED);
}

/* ---- without descriptors */

static int hogs[1024];
static size_t hogs_count;

static void use_up_descriptors(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 200;
    setrlimit(RLIMIT_NOFILE, &limit);
    while (hogs_count < ARRAY_SIZE(hogs) && (hogs[hogs_count] = dup(STDERR_FILENO)) >= 0)
        hogs_count++;
    assert_true(hogs_count < ARRAY_SIZE(hogs));
}

static void free_descriptors(void)
{
    while (hogs_count)
        close(hogs[--hogs_count]);
}

/* A connection lies idle at the endpoint that is busier. */
static void without_descriptors_idle_connections_are_used(void **state)
{
    static struct seen held[64];
    size_t begun = 0;

    memset(held, 0, sizeof(held));
    start(&peers[0]);
    start(&peers[1]);
    open_with(2, .timeout_ms = 20000);
    assert_int_equal(echo("x"), 0);
    size_t idle = endpoint_counts(0).connects ? 0 : 1;
    while (endpoint_counts(idle).busy <= endpoint_counts(!idle).busy && begun < ARRAY_SIZE(held)) {
        assert_true(begin("hold", NULL, 0, &held[begun++]) > 0);
        for (int i = 0; i < 4000 && peers[0].calls + peers[1].calls < begun + 1; i++)
            nap(2);
    }
    assert_true(endpoint_counts(idle).busy > endpoint_counts(!idle).busy);
    use_up_descriptors();
    int r = echo_by(&echo_method, "x", 1000);
    free_descriptors();
    assert_int_equal(r, 0);
    cloche_client_close(steal_ptr(client));
}

/* It is us: looks are not put off further and further. */
static void a_want_of_descriptors_is_no_failed_look(void **state)
{
    open_with(1, .timeout_ms = 20000, .probe_first_ms = 5, .probe_most_ms = 100000);
    assert_int_equal(echo_by(&echo_method, "x", 20), -ETIMEDOUT);
    uint64_t before = endpoint_counts(0).failures;
    use_up_descriptors();
    nap(300);
    uint64_t after = endpoint_counts(0).failures;
    free_descriptors();
    assert_true(after <= before + 1); /* one may have begun before */
    start(&peers[0]);
    wait_for_state(0, CLOCHE_ENDPOINT_IN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pool_test(an_endpoint_is_looked_at_until_it_is_in),
        pool_test(who_waits_for_room_is_told_of_it),
        pool_test(failing_fast_needs_a_look_that_failed),
        pool_test(without_descriptors_idle_connections_are_used),
        pool_test(a_want_of_descriptors_is_no_failed_look),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
