/* A client of several endpoints against servers that work, are slow, break off, come and go. */
#include <netinet/in.h>
#include <sys/resource.h>

#include "rpc_peers.h"

/* ---- synchronous ---- */

static void calls_come_back(void **state)
{
    _cleanup_free_ char *result = NULL;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 100; i++)
        assert_int_equal(echo("word"), 0);
    assert_int_equal(cloche_client_call(client, "echo", " {\"container\":\n\"by name\"}\n", NULL,
                                        &result, &error),
                     0);
    assert_string_equal(result, "{\"id\":\"by name\"}");
    assert_int_equal(endpoint_counts(0).connects, 1);
    assert_int_equal(counts_now().answered, 101);
    assert_int_equal(counts_now().in_flight, 0);
}

static void errors_have_code_and_hint(void **state)
{
    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("fail", 0), -EBUSY);
    assert_int_equal(error.code, -EBUSY);
    assert_int_equal(error.fault, RPC_CONFLICT);
    assert_string_equal(error.message, "it is in use");
    assert_string_equal(error.hint, "try later");
    assert_int_equal(call("nothing", 0), -EOPNOTSUPP);
    assert_int_equal(counts_now().errors, 2);
    assert_int_equal(endpoint_counts(0).connects, 1);
}

static void what_cannot_be_a_call_is_refused(void **state)
{
    static const char *const bad[] = {"",         "1",        "\"x\"",        "{",    "{}{}",
                                      "{\"a\":}", "{} \n {}", "{\"\xff\":1}", "[1,]", "{}\n]"};
    const char *const nowhere[] = {"http:x", NULL}, *const nobody[] = {NULL};
    const char *const no_port[] = {"tcp:127.0.0.1", NULL}, *const name[] = {"tcp:host:80", NULL};
    const char *const *const wrong[] = {nowhere, nobody, no_port, name};

    open_with(1, .timeout_ms = 1000);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(cloche_client_call(client, "echo", bad[i], NULL, NULL, &error), -EINVAL);
    assert_int_equal(cloche_client_call(client, "a\"b", NULL, NULL, NULL, &error), -EINVAL);
    assert_int_equal(cloche_client_call(client, "", NULL, NULL, NULL, &error), -EINVAL);
    struct {
        struct cloche_call_options known;
        size_t unknown;
    } newer = {.known.size = sizeof(newer)};
    newer.unknown = 1;
    assert_int_equal(cloche_client_call(client, "echo", NULL, &newer.known, NULL, &error), -E2BIG);
    assert_int_equal(cloche_system_info_with(client, NULL, &newer.known, NULL, &error), -E2BIG);
    newer.known.size = 0;
    assert_int_equal(cloche_system_info_with(client, NULL, &newer.known, NULL, &error), -EINVAL);
    assert_int_equal(cloche_client_call(client, "echo", NULL, &newer.known, NULL, &error), -EINVAL);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct cloche_client_settings settings = {.size = sizeof(settings), .endpoints = wrong[i]};
        struct cloche_client *other;
        assert_int_equal(cloche_client_open(&settings, &other, &error), -EINVAL);
        assert_true(error.message[0]);
    }
}

/* On a busy machine the time may be over before anything was sent: then once more. */
static void calls_end_in_time_and_late_answers_are_dropped(void **state)
{
    start_script(&peers[0], answer_late);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 20 && counts_now().late == 0; i++) {
        assert_int_equal(call("hold", 20), -ETIMEDOUT);
        assert_int_equal(error.code, -ETIMEDOUT);
        assert_int_equal(echo("word"), 0); /* its own answer, not the late one */
    }
    assert_int_equal(endpoint_counts(0).connects, 1); /* all on the same connection */
    assert_int_equal(counts_now().late, 1);
}

static void the_server_is_told_the_deadline(void **state)
{
    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 20 && !peers[0].ended; i++) {
        assert_int_equal(call("hold", 30), -ETIMEDOUT);
        for (int k = 0; k < 100 && !peers[0].ended; k++)
            nap(2);
    }
    assert_true(peers[0].ended > 0);
    assert_int_equal(echo("after"), 0);
}

static void answer_in_pieces(struct peer *peer, int fd)
{
    char line[4096], answer[256];

    while (read_line(fd, line, sizeof(line))) {
        int length = snprintf(answer, sizeof(answer),
                              "\n{\"jsonrpc\":\"2.0\",\"method\":\"noise\",\"params\":{}}\n"
                              "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"id\":\"pieces\"}}\n",
                              id_of(line));
        for (int i = 0; i < length; i++) {
            if (write(fd, answer + i, 1) != 1)
                break;
            if (i % 16 == 0)
                nap(1);
        }
    }
    close(fd);
}

static void answers_may_come_in_pieces(void **state)
{
    start_script(&peers[0], answer_in_pieces);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(echo("pieces"), 0);
    cloche_client_close(steal_ptr(client));
}

static void a_call_that_may_have_been_done_is_not_sent_again(void **state)
{
    start_script(&peers[0], read_and_break_off);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(echo_by(&once_method, "x", 0), -ECONNRESET);
    assert_int_equal(peers[0].calls, 1);
    assert_int_equal(counts_now().retries, 0);
    assert_int_equal(counts_now().lost, 1);
}

static void an_idempotent_call_goes_to_another_endpoint(void **state)
{
    start_script(&peers[0], read_and_break_off);
    start(&peers[1]);
    open_with(2, .timeout_ms = 20000, .probe_first_ms = 10000, .probe_most_ms = 10000);
    for (int i = 0; i < 20; i++)
        assert_int_equal(echo("word"), 0);
    assert_true(peers[0].calls <= 1); /* out after the first */
    assert_int_equal(counts_now().retries, peers[0].calls);
    assert_int_equal(counts_now().answered, 20);
}

static void retries_have_an_end(void **state)
{
    start_script(&peers[0], read_and_break_off);
    open_with(1, .timeout_ms = 60000, .attempts = 3, .probe_first_ms = 1, .probe_most_ms = 2);
    /* The sign of life fails, too: none goes through to a second attempt, up to the deadline. */
    assert_int_equal(echo_by(&echo_method, "x", 300), -ETIMEDOUT);
    assert_true(counts_now().retries <= 2);
}

static void attempts_are_counted(void **state)
{
    start_script(&peers[0], answer_pings_only);
    open_with(1, .timeout_ms = 60000, .attempts = 3, .probe_first_ms = 1, .probe_most_ms = 2);
    assert_int_equal(echo("x"), -ECONNRESET);
    assert_int_equal(counts_now().retries, 2);
    cloche_client_close(steal_ptr(client));
}

static void a_connection_closed_while_idle_costs_nothing(void **state)
{
    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(echo_by(&once_method, "x", 0), 0);
    stop(&peers[0]);
    start(&peers[0]);
    assert_int_equal(echo_by(&once_method, "y", 0), 0);
    assert_int_equal(endpoint_counts(0).breaks, 0);
    assert_int_equal(counts_now().retries, 1);
}

static void without_an_endpoint_calls_fail_fast_or_in_time(void **state)
{
    open_with(2, .fail_fast = true, .timeout_ms = 20000);
    assert_int_equal(echo("x"), -ECONNREFUSED);
    assert_non_null(strstr(error.message, paths[0]));
    cloche_client_close(steal_ptr(client));
    open_with(1, .probe_first_ms = 5, .timeout_ms = 50);
    assert_int_equal(echo("x"), -ETIMEDOUT);
    assert_non_null(strstr(error.message, paths[0]));
    assert_int_equal(counts_now().timeouts, 1);
}

static void *start_later(void *data)
{
    nap(60);
    start(data);
    return NULL;
}

static void calls_wait_for_an_endpoint_to_come(void **state)
{
    pthread_t thread;

    open_with(2, .probe_first_ms = 5, .probe_most_ms = 20, .timeout_ms = 30000);
    assert_int_equal(pthread_create(&thread, NULL, start_later, &peers[1]), 0);
    assert_int_equal(echo_by(&once_method, "at last", 0), 0);
    pthread_join(thread, NULL);
    assert_int_equal(endpoint_counts(1).state, CLOCHE_ENDPOINT_IN);
    assert_int_equal(endpoint_counts(0).calls, 0);
}

static void without_a_thread_callers_look_themselves(void **state)
{
    pthread_t thread;

    open_with(1, .polled = true, .probe_first_ms = 5, .probe_most_ms = 20, .timeout_ms = 30000);
    assert_int_equal(pthread_create(&thread, NULL, start_later, &peers[0]), 0);
    assert_int_equal(echo_by(&once_method, "at last", 0), 0);
    pthread_join(thread, NULL);
}

static void a_flapping_endpoint_is_taken_out_and_in_again(void **state)
{
    start(&peers[0]);
    start(&peers[1]);
    open_with(2, .balance = CLOCHE_CLIENT_RANDOM, .probe_first_ms = 5, .probe_most_ms = 20,
              .timeout_ms = 30000);
    for (int turn = 0; turn < 4; turn++) {
        stop(&peers[0]);
        for (int i = 0; i < 30; i++)
            assert_int_equal(echo("word"), 0);
        wait_for_state(1, CLOCHE_ENDPOINT_IN);
        assert_true(endpoint_counts(0).breaks > (uint64_t)turn);
        start(&peers[0]);
        wait_for_state(0, CLOCHE_ENDPOINT_IN);
        for (int i = 0; i < 30; i++)
            assert_int_equal(echo("word"), 0);
    }
    assert_int_equal(counts_now().answered, 240);
    assert_true(peers[0].calls > 0);
}

static void looks_come_less_and_less_often(void **state)
{
    open_with(1, .probe_first_ms = 4, .probe_most_ms = 100000, .timeout_ms = 20000);
    assert_int_equal(echo_by(&echo_method, "x", 400), -ETIMEDOUT);
    struct cloche_endpoint_counts counts = endpoint_counts(0);
    assert_true(counts.failures >= 3 && counts.failures <= 10); /* 2 to 4, 4 to 8 ... ms */
}

/* It answers a ping: nothing is wrong with it but these calls. */
static void a_slow_endpoint_stays_in(void **state)
{
    start_script(&peers[0], answer_nothing_but_pings);
    open_with(1, .timeout_ms = 20000, .probe_first_ms = 20);
    for (int i = 0; i < 9; i++)
        assert_int_equal(call("hold", 5), -ETIMEDOUT);
    for (int i = 0; i < 2000 && endpoint_counts(0).connects < 2; i++)
        nap(5);
    assert_true(endpoint_counts(0).connects >= 2); /* it was looked at */
    assert_int_equal(endpoint_counts(0).breaks, 0);
    cloche_client_close(steal_ptr(client));
}

static void a_hung_endpoint_does_not_get_calls(void **state)
{
    start_script(&peers[0], never_answer);
    start(&peers[1]);
    open_with(2, .timeout_ms = 20000, .connect_timeout_ms = 50, .balance = CLOCHE_CLIENT_RANDOM);
    for (int i = 0; i < 4000 && endpoint_counts(0).breaks == 0; i++) {
        echo_by(&echo_method, "x", 5);
        nap(2);
    }
    assert_true(endpoint_counts(0).breaks > 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(echo_by(&echo_method, "x", 10000), 0);
    end_unanswered(&peers[0]);
}

/* ---- the pool ---- */

static void connections_are_as_many_as_agreed(void **state)
{
    struct cloche_connection *taken[3] = {NULL};

    start(&peers[0]);
    open_with(1, .connections = 2, .timeout_ms = 20000);
    assert_int_equal(cloche_client_get(client, 0, &taken[0], &error), 0);
    assert_int_equal(cloche_client_get(client, 0, &taken[1], &error), 0);
    assert_int_equal(cloche_client_get(client, 30, &taken[2], &error), -ETIMEDOUT);
    assert_int_equal(echo_by(&echo_method, "no room", 30), -ETIMEDOUT);
    const struct cloche_call_options options = {.size = sizeof(options), .connection = taken[0]};
    assert_int_equal(
        cloche_client_call(client, "echo", "{\"container\":\"mine\"}", &options, NULL, &error), 0);
    cloche_client_put(client, taken[1]);
    assert_int_equal(echo("room"), 0);
    assert_int_equal(cloche_client_get(client, 0, &taken[2], &error), 0);
    assert_int_equal(endpoint_counts(0).connects, 2);
    cloche_client_put(client, taken[0]);
    cloche_client_put(client, taken[2]);
}

static void calls_on_a_taken_connection_stay_there(void **state)
{
    struct cloche_connection *taken = NULL;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(cloche_client_get(client, 0, &taken, &error), 0);
    const struct cloche_call_options options = {
        .size = sizeof(options), .connection = taken, .idempotent = true};
    stop(&peers[0]);
    start(&peers[0]);
    assert_int_equal(
        cloche_client_call(client, "echo", "{\"container\":\"x\"}", &options, NULL, &error),
        -ECONNRESET);
    cloche_client_put(client, taken);
    assert_int_equal(echo("elsewhere"), 0);
}

/* ---- both kinds ---- */

static void descriptors_go_both_ways(void **state)
{
    struct seen seen = {.fd = -1};
    int ends[2], came = -1;
    size_t count = 1;
    struct stat one, other;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct cloche_call_options options = {.size = sizeof(options),
                                          .fds = &ends[0],
                                          .fds_count = 1,
                                          .ret_fds = &came,
                                          .ret_fds_count = &count};
    assert_int_equal(cloche_client_call(client, "pass", "{}", &options, NULL, &error), 0);
    assert_int_equal(count, 1);
    fstat(ends[0], &one);
    fstat(came, &other);
    assert_int_equal(one.st_ino, other.st_ino);
    close(came);
    options.ret_fds = NULL;
    options.ret_fds_count = NULL;
    assert_true(cloche_client_call_async(client, "pass", "{}", &options, on_done, &seen) > 0);
    wait_for(&seen);
    fstat(seen.fd, &other);
    assert_int_equal(one.st_ino, other.st_ino);
    close(seen.fd);
    options.ret_fds = NULL;
    assert_int_equal(cloche_client_call(client, "pass", "{}", &options, NULL, &error), -EPROTO);
    assert_int_equal(rpc_stub_call(client, &pass_method, NULL, ends[0], NULL, NULL, &came, &error),
                     0);
    close(came);
    assert_int_equal(echo("the connection is whole"), 0);
    close(ends[0]);
    close(ends[1]);
}

static void on_step(void *data, const struct cloche_progress *progress)
{
    uint64_t *sum = data;

    assert_string_equal(progress->unit, "steps");
    assert_string_equal(progress->text, progress->done == 1 ? "the first" : "the second");
    *sum = *sum * 10 + progress->done + progress->total;
}

static void long_calls_tell_how_far_they_are(void **state)
{
    struct seen seen = {0};
    uint64_t sum = 0, later = 0;

    start(&peers[0]);
    for (int cbor = 0; cbor < 2; cbor++) {
        open_with(1, .timeout_ms = 20000,
                  .encoding = cbor ? CLOCHE_ENCODING_CBOR : CLOCHE_ENCODING_JSON);
        struct cloche_call_options options = {
            .size = sizeof(options), .progress = on_step, .progress_data = &sum};
        assert_int_equal(cloche_client_call(client, "steps", NULL, &options, NULL, &error), 0);
        assert_int_equal(call("steps", 0), 0); /* not asked for: not told */
        options.progress_data = &later;
        seen.times = 0;
        assert_true(cloche_client_call_async(client, "steps", NULL, &options, on_done, &seen) > 0);
        wait_for(&seen);
        cloche_client_close(steal_ptr(client));
    }
    assert_int_equal(sum, 3434);
    assert_int_equal(later, 3434);
}

/* Whether all connections to the port are asked for a sign of life within half a minute, in which
 * nothing goes over them (proc_net_tcp.txt of the kernel: timer 2, in hundredths of a second). */
static bool are_kept_alive(unsigned port)
{
    FILE *file = fopen("/proc/net/tcp", "re");
    unsigned remote, state, timer;
    unsigned long when;
    char line[256];
    int kept = 0, others = 0;

    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, " %*d: %*x:%*x %*x:%x %x %*x:%*x %x:%lx", &remote, &state, &timer,
                   &when) != 4 ||
            remote != port || state != 1)
            continue;
        kept += timer == 2 && when <= 3100;
        others += timer != 2 || when > 3100;
    }
    fclose(file);
    return kept && !others;
}

/* The server of a peer, reached through a port of this machine. */
static void calls_go_over_tcp(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    struct seen seen = {0}, held = {0}, lost = {0};
    char name[64];

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)&address, &length);
    snprintf(name, sizeof(name), "tcp:127.0.0.1:%u", ntohs(address.sin_port));
    peers[0].tcp = fd;
    start(&peers[0]);
    paths[0] = name;
    open_with(1, .timeout_ms = 20000, .probe_first_ms = 5, .probe_most_ms = 20);
    for (int i = 0; i < 20; i++)
        assert_int_equal(echo("word"), 0);
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &seen) > 0);
    wait_for(&seen);
    assert_string_equal(seen.result, "{\"id\":\"x\"}");
    assert_int_equal(call("hold", 30), -ETIMEDOUT);
    assert_true(begin("hold", NULL, 0, &held) > 0);
    for (int i = 0; i < 1000 && peers[0].calls < 23; i++)
        nap(2);
    for (int i = 0; i < 1000 && !are_kept_alive(ntohs(address.sin_port)); i++)
        nap(2); /* first all that was sent is acknowledged */
    assert_true(are_kept_alive(ntohs(address.sin_port)));
    stop(&peers[0]);
    wait_for(&held);
    assert_int_equal(held.code, -ECONNRESET);
    assert_int_equal(echo_by(&echo_method, "nobody", 50), -ETIMEDOUT);
    assert_true(begin("echo", "{\"container\":\"x\"}", 50, &lost) > 0);
    wait_for(&lost);
    assert_int_equal(lost.code, -ETIMEDOUT);
}

static void calls_are_made_in_cbor_too(void **state)
{
    _cleanup_free_ char *result = NULL;
    struct seen seen = {0}, failed = {0};

    start(&peers[0]);
    open_with(1, .encoding = CLOCHE_ENCODING_CBOR, .timeout_ms = 20000);
    for (int i = 0; i < 10; i++)
        assert_int_equal(echo("word"), 0);
    assert_int_equal(
        cloche_client_call(client, "echo", "{\"container\":\"by name\"}", NULL, &result, &error),
        0);
    assert_string_equal(result, "{\"id\":\"by name\"}");
    assert_int_equal(call("fail", 0), -EBUSY);
    assert_string_equal(error.hint, "try later");
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &seen) > 0);
    assert_true(begin("fail", NULL, 0, &failed) > 0);
    wait_for(&seen);
    assert_string_equal(seen.result, "{\"id\":\"x\"}");
    wait_for(&failed);
    assert_int_equal(failed.fault, RPC_CONFLICT);
    assert_int_equal(call("hold", 20), -ETIMEDOUT);
    stop(&peers[0]);
    start_script(&peers[0], answer_late); /* knows no CBOR, and says nonsense to rpc.hello */
    assert_int_equal(echo_by(&echo_method, "word", 100), -ETIMEDOUT);
}

/* ---- the generated functions ---- */

struct listed {
    _Atomic int times;
    int code, fd;
    char name[32];
};

static void on_listed(void *data, struct cloche_container_summaries *result,
                      const struct cloche_error *why)
{
    struct listed *listed = data;

    listed->code = why ? why->code : 0;
    if (result && result->containers_count)
        snprintf(listed->name, sizeof(listed->name), "%s", result->containers[0]->names[1]);
    cloche_container_summaries_free(result);
    listed->times++;
}

static void on_attached(void *data, struct cloche_attached *result, int fd,
                        const struct cloche_error *why)
{
    struct listed *listed = data;

    listed->code = why ? why->code : 0;
    listed->fd = fd;
    cloche_attached_free(result);
    listed->times++;
}

static void methods_are_functions(void **state)
{
    const struct cloche_container_list all = {.all = true, .has_all = true};
    const struct cloche_call_options soon = {.size = sizeof(soon), .timeout_ms = 15000};
    struct cloche_container_summaries *list = NULL;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(cloche_container_list(client, &all, &list, &error), 0);
    assert_int_equal(list->containers_count, 1);
    assert_string_equal(list->containers[0]->names[1], "till");
    assert_string_equal(cloche_string_map_get(list->containers[0]->labels, "shelf"), "3");
    assert_null(cloche_string_map_get(list->containers[0]->labels, "row"));
    cloche_container_summaries_free(list);
    assert_int_equal(cloche_container_list(client, NULL, &list, NULL), 0);
    assert_int_equal(list->containers_count, 0);
    cloche_container_summaries_free(list);
    assert_int_equal(cloche_container_list_with(client, &all, &soon, NULL, &error), 0);
    assert_int_equal(cloche_system_version(client, NULL, NULL, &error), -EOPNOTSUPP);
    assert_int_equal(cloche_container_kill(client, NULL, NULL, &error), -EOPNOTSUPP);
}

static void functions_call_back_and_pass_descriptors(void **state)
{
    const struct cloche_container_list all = {.all = true, .has_all = true};
    const struct cloche_container_attach terminal = {.container = (char *)"terminal"};
    struct listed listed = {0}, attached_later = {.fd = -1};
    struct cloche_attached *attached = NULL;
    int fd = -1;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_true(cloche_container_list_async(client, &all, 0, on_listed, &listed) > 0);
    assert_true(cloche_container_attach_async(client, &terminal, 0, on_attached, &attached_later) >
                0);
    for (int i = 0; i < 4000 && (!listed.times || !attached_later.times); i++)
        nap(5);
    assert_int_equal(listed.code, 0);
    assert_string_equal(listed.name, "till");
    assert_int_equal(attached_later.code, 0);
    assert_true(attached_later.fd >= 0);
    close(attached_later.fd);
    assert_int_equal(cloche_container_attach(client, &terminal, &attached, &fd, &error), 0);
    assert_true(attached->tty && fd >= 0);
    close(fd);
    cloche_attached_free(attached);
    assert_int_equal(cloche_container_list_async(client, &all, 0, NULL, NULL), -EINVAL);
}

/* ---- descriptors exhausted ---- */

static int hogs[1024];
static size_t hogs_count;

static void use_up_descriptors(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 200;
    setrlimit(RLIMIT_NOFILE, &limit);
    hogs_count = 0;
    while (hogs_count < ARRAY_SIZE(hogs) && (hogs[hogs_count] = dup(STDERR_FILENO)) >= 0)
        hogs_count++;
    assert_true(hogs_count < ARRAY_SIZE(hogs));
}

static void *free_descriptors(void *data)
{
    nap(60);
    while (hogs_count)
        close(hogs[--hogs_count]);
    return NULL;
}

static void without_descriptors_calls_wait(void **state)
{
    struct seen seen = {0}, late = {0};
    pthread_t thread;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_true(begin("hold", NULL, 1, &late) > 0); /* starts the client's thread */
    wait_for(&late);
    stop(&peers[0]);
    start(&peers[0]);
    nap(20);
    use_up_descriptors();
    assert_int_equal(echo_by(&once_method, "x", 50), -ETIMEDOUT);
    assert_non_null(strstr(error.message, "Too many open files"));
    late.times = 0;
    assert_true(begin("echo", "{\"container\":\"x\"}", 50, &late) > 0);
    wait_for(&late);
    assert_int_equal(late.code, -ETIMEDOUT);
    assert_int_equal(endpoint_counts(0).breaks, 0); /* it is not the endpoint's fault */
    assert_true(begin("echo", "{\"container\":\"x\"}", 0, &seen) > 0);
    assert_int_equal(pthread_create(&thread, NULL, free_descriptors, NULL), 0);
    assert_int_equal(echo("when there are some again"), 0);
    wait_for(&seen);
    assert_int_equal(seen.code, 0);
    pthread_join(thread, NULL);
}

/* ---- which endpoint ---- */

/* Once there is a connection to each: until then, they go where there is one. */
static void the_least_busy_endpoint_gets_the_call(void **state)
{
    struct seen held[8] = {{0}};

    start(&peers[0]);
    start(&peers[1]);
    open_with(2, .timeout_ms = 20000);
    for (int i = 0; i < 1000 && (!endpoint_counts(0).calls || !endpoint_counts(1).calls); i++) {
        struct seen first = {0};
        assert_true(begin("echo", "{\"container\":\"x\"}", 0, &first) > 0);
        wait_for(&first);
    }
    for (size_t i = 0; i < ARRAY_SIZE(held); i++)
        assert_true(begin("hold", NULL, 0, &held[i]) > 0);
    for (int i = 0; i < 2000 && endpoint_counts(0).busy + endpoint_counts(1).busy < 8; i++)
        nap(2);
    assert_int_equal(endpoint_counts(0).busy, 4);
    assert_int_equal(endpoint_counts(1).busy, 4);
    cloche_client_close(steal_ptr(client));
}

static void random_choice_reaches_all(void **state)
{
    for (size_t i = 0; i < ENDPOINTS; i++)
        start(&peers[i]);
    open_with(ENDPOINTS, .balance = CLOCHE_CLIENT_RANDOM, .timeout_ms = 20000);
    for (int i = 0; i < 300; i++)
        assert_int_equal(echo("x"), 0);
    for (size_t i = 0; i < ENDPOINTS; i++)
        assert_true(peers[i].calls > 40 && peers[i].calls < 200);
}

/* ---- metrics ---- */

static void metrics_tell_of_calls_and_endpoints(void **state)
{
    start(&peers[0]);
    open_with(2, .timeout_ms = 20000, .probe_first_ms = 10000, .probe_most_ms = 20000);
    for (int i = 0; i < 20; i++)
        assert_int_equal(echo("x"), 0);
    call("fail", 0);
    _cleanup_free_ char *json = cloche_client_metrics(client, CLOCHE_METRICS_JSON);
    _cleanup_free_ char *text = cloche_client_metrics(client, CLOCHE_METRICS_OPEN);
    assert_non_null(strstr(json, "\"calls\":21,\"inFlight\":0,\"answered\":20,"));
    assert_non_null(strstr(json, "\"errors\":{\"-2\":1}"));
    assert_non_null(strstr(json, "\"state\":\"in\",\"busy\":0,\"connections\":1,"));
    assert_non_null(strstr(text, "cloche_rpc_client_calls_total 21\n"));
    assert_non_null(strstr(text, "cloche_rpc_client_endpoint_in{endpoint=\""));
    assert_true(text_ends_with(text, "# EOF\n"));
    assert_true(counts_now().bytes_in > 0 && counts_now().bytes_out > 0);
    assert_true(counts_now().p50_ns > 0);
    struct cloche_endpoint_counts counts;
    assert_int_equal(cloche_client_endpoint(client, 2, &counts, sizeof(counts)), -ENOENT);
}

/* ---- many threads ---- */

static _Atomic unsigned done_count, wrong_count;

static void on_many(void *data, const char *result, int *fds, size_t fds_count,
                    const struct cloche_error *why)
{
    char expected[64];

    snprintf(expected, sizeof(expected), "{\"id\":\"%zu\"}", (size_t)data);
    if (result && !text_equal(result, expected))
        wrong_count++;
    if (!result && why->code != -ECONNRESET)
        wrong_count++;
    done_count++;
}

static void *call_many(void *data)
{
    size_t first = (size_t)data * 1000;
    char params[64], word[32];

    for (size_t i = first; i < first + 150; i++) {
        snprintf(params, sizeof(params), "{\"container\":\"%zu\"}", i);
        if (cloche_client_call_async(client, "echo", params, NULL, on_many, (void *)i) < 0)
            wrong_count++;
        snprintf(word, sizeof(word), "%zu", i);
        struct api_container_ref ref = {.container = word};
        struct api_container_created *created = NULL;
        int r = rpc_stub_call(client, &echo_method, &ref, -1, NULL, (void **)&created, NULL, NULL);
        if (r < 0 || !text_equal(created->id, word))
            wrong_count++;
        api_container_created_free(created);
    }
    return NULL;
}

static void many_threads_share_a_client(void **state)
{
    pthread_t threads[8];

    done_count = wrong_count = 0;
    start(&peers[0]);
    start(&peers[1]);
    open_with(2, .connections = 3, .probe_first_ms = 2, .probe_most_ms = 10, .timeout_ms = 60000);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, (void *)(i + 1)), 0);
    for (int i = 0; i < 5; i++) {
        nap(15);
        stop(&peers[1]);
        nap(5);
        start(&peers[1]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4000 && done_count < 1200; i++)
        nap(5);
    assert_int_equal(done_count, 1200);
    assert_int_equal(wrong_count, 0);
    assert_int_equal(counts_now().in_flight, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pool_test(calls_come_back),
        pool_test(errors_have_code_and_hint),
        pool_test(calls_are_made_in_cbor_too),
        pool_test(calls_go_over_tcp),
        pool_test(long_calls_tell_how_far_they_are),
        pool_test(what_cannot_be_a_call_is_refused),
        pool_test(calls_end_in_time_and_late_answers_are_dropped),
        pool_test(the_server_is_told_the_deadline),
        pool_test(answers_may_come_in_pieces),
        pool_test(a_call_that_may_have_been_done_is_not_sent_again),
        pool_test(an_idempotent_call_goes_to_another_endpoint),
        pool_test(retries_have_an_end),
        pool_test(attempts_are_counted),
        pool_test(a_connection_closed_while_idle_costs_nothing),
        pool_test(without_an_endpoint_calls_fail_fast_or_in_time),
        pool_test(calls_wait_for_an_endpoint_to_come),
        pool_test(without_a_thread_callers_look_themselves),
        pool_test(a_flapping_endpoint_is_taken_out_and_in_again),
        pool_test(looks_come_less_and_less_often),
        pool_test(a_slow_endpoint_stays_in),
        pool_test(a_hung_endpoint_does_not_get_calls),
        pool_test(connections_are_as_many_as_agreed),
        pool_test(calls_on_a_taken_connection_stay_there),
        pool_test(descriptors_go_both_ways),
        pool_test(methods_are_functions),
        pool_test(functions_call_back_and_pass_descriptors),
        pool_test(without_descriptors_calls_wait),
        pool_test(the_least_busy_endpoint_gets_the_call),
        pool_test(random_choice_reaches_all),
        pool_test(metrics_tell_of_calls_and_endpoints),
        pool_test(many_threads_share_a_client),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
