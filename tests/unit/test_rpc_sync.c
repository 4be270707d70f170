/* Synchronous calls against servers that are hostile, stopped or full, and callers in want. */
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <rpc/client.h>

#include "rpc_peers.h"

struct timeval link_wait(uint64_t ns); /* of src/rpc/pool.h */

static int call_with(const char *method, struct cloche_call_options options)
{
    options.size = sizeof(options);
    return cloche_client_call(client, method, "{\"container\":\"x\"}", &options, NULL, &error);
}

static void answer_text(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        return;
}

/* ---- deadlines ---- */

static void on_signal(int number)
{
}

static void signals_do_not_stretch_a_call(void **state)
{
    const struct sigaction handler = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    const struct itimerspec often = {{0, 20000000}, {0, 20000000}};
    timer_t timer;

    start_script(&peers[0], never_answer);
    open_with(1, .timeout_ms = 300);
    sigaction(SIGUSR1, &handler, NULL);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    timer_settime(timer, 0, &often, NULL);
    assert_int_equal(call("echo", 0), -ETIMEDOUT);
    timer_delete(timer);
    end_unanswered(&peers[0]);
}

static void a_full_socket_does_not_hold_a_call_with_descriptors(void **state)
{
    int fd = 0;
    size_t length = 900000;
    _cleanup_free_ char *params = malloc(length + 32);
    const struct cloche_call_options options = {
        .size = sizeof(options), .timeout_ms = 200, .fds = &fd, .fds_count = 1};

    size_t at = (size_t)sprintf(params, "{\"x\":\"");
    memset(params + at, 'x', length);
    sprintf(params + at + length, "\"}");
    start_script(&peers[0], never_answer);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(cloche_client_call(client, "pass", params, &options, NULL, &error),
                     -ETIMEDOUT);
    end_unanswered(&peers[0]);
}

/* Without a thread, calls look at what is broken, but not at the cost of their own time. */
static void a_look_at_another_endpoint_does_not_cost_the_call(void **state)
{
    start(&peers[0]);
    open_with(2, .timeout_ms = 20000, .polled = true, .connect_timeout_ms = 10000,
              .probe_first_ms = 1, .probe_most_ms = 1);
    while (endpoint_counts(1).breaks == 0)
        assert_int_equal(echo("word"), 0);
    start_script(&peers[1], never_answer);
    nap(400); /* a look has been due for long */
    unsigned before = peers[0].calls;
    assert_int_equal(echo_by(&once_method, "word", 400), 0);
    assert_int_equal(peers[0].calls, before + 1);
    for (int i = 0; unanswered_count == 0 && i < 1000; i++)
        nap(10); /* until the peer's thread has taken the look's connection */
    assert_true(unanswered_count > 0);
    end_unanswered(&peers[1]);
}

static void very_long_times_are_no_times(void **state)
{
    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("steps", UINT64_C(1) << 43), 0);
}

static void the_time_to_wait_is_a_valid_one(void **state)
{
    static const uint64_t times[] = {1, 999, 1000, 999999001, 999999999, 1000000000, 7999999500};

    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        struct timeval value = link_wait(times[i]);
        assert_in_range(value.tv_usec, 0, 999999);
        assert_true((uint64_t)value.tv_sec * 1000000 + (uint64_t)value.tv_usec >=
                    times[i] / 1000 + (times[i] % 1000 != 0));
    }
    assert_int_equal(link_wait(0).tv_usec, 0);
}

/* A path that does not fit into an address, and a listener whose queue is full. */
static void connecting_to_a_long_path_ends_in_time(void **state)
{
    _cleanup_free_ char *deep = xasprintf("%s/%0110d", folder, 0), *path = xasprintf("%s/s", deep);
    const char *const endpoints[] = {path, NULL};
    const struct cloche_client_settings settings = {.size = sizeof(settings),
                                                    .endpoints = endpoints,
                                                    .timeout_ms = 200,
                                                    .connect_timeout_ms = 20000};
    int queued[16];
    size_t count = 0;

    assert_int_equal(mkdir(deep, 0700), 0);
    int listener = socket_listen_unix(path, SOCK_STREAM, 0600, NULL);
    assert_true(listener >= 0 && listen(listener, 0) == 0);
    for (int r = 0; r == 0 && count < ARRAY_SIZE(queued);) {
        struct sockaddr_un at;
        int dir_fd;
        assert_int_equal(socket_unix_address(path, &at, &dir_fd, NULL), 0);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        r = connect(fd, (struct sockaddr *)&at, sizeof(at));
        close_fd(dir_fd);
        queued[count++] = fd;
    }
    assert_int_equal(cloche_client_open(&settings, &client, &error), 0);
    assert_int_equal(call("echo", 0), -ETIMEDOUT);
    while (count)
        close(queued[--count]);
    close(listener);
    unlink(path);
    rmdir(deep);
}

/* ---- answers ---- */

static void refuse_without_id(struct peer *peer, int fd)
{
    char line[4096];

    if (read_line(fd, line, sizeof(line)))
        answer_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":"
                        "\"the message is too long\",\"data\":{\"hint\":\"send less\"}}}\n");
    read_line(fd, line, sizeof(line));
    close(fd);
}

static void a_refusal_without_id_is_the_answer(void **state)
{
    start_script(&peers[0], refuse_without_id);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(call_with("echo", (struct cloche_call_options){.idempotent = true}),
                         -EINVAL);
        assert_string_equal(error.message, "the message is too long");
        assert_string_equal(error.hint, "send less");
    }
    assert_int_equal(endpoint_counts(0).breaks, 0);
}

static void take_one_at_most(struct peer *peer, int fd)
{
    char line[4096];

    if (peer->visits > 1)
        answer_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-12,\"message\":"
                        "\"too many connections\"}}\n");
    else
        while (read_line(fd, line, sizeof(line)) && answer_line(fd, line, "{}"))
            peer->calls++;
    close(fd);
}

static void *put_later(void *connection)
{
    nap(150);
    cloche_client_put(client, connection);
    return NULL;
}

static void too_many_connections_are_waited_for(void **state)
{
    struct cloche_connection *connection;
    pthread_t thread;

    start_script(&peers[0], take_one_at_most);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("warm", 0), 0);
    assert_int_equal(cloche_client_get(client, 0, &connection, &error), 0);
    assert_int_equal(call("other", 1000), -ETIMEDOUT);
    assert_non_null(strstr(error.message, "too many connections"));
    assert_int_equal(pthread_create(&thread, NULL, put_later, connection), 0);
    assert_int_equal(call("other", 0), 0);
    pthread_join(thread, NULL);
    assert_int_equal(endpoint_counts(0).breaks, 0);
}

/* In one piece, and with a descriptor each. */
static void answer_twice(struct peer *peer, int fd)
{
    char line[4096], text[512];
    int passed[] = {0, 0};

    while (read_line(fd, line, sizeof(line))) {
        int length = snprintf(text, sizeof(text),
                              "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"fds\":1,\"result\":{}}\n"
                              "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"fds\":1,\"result\":{}}\n",
                              id_of(line), id_of(line));
        if (socket_send(fd, text, (size_t)length, passed, 2) < 0)
            break;
    }
    close(fd);
}

/* The harness counts descriptors. */
static void answers_that_come_twice_leak_nothing(void **state)
{
    start_script(&peers[0], answer_twice);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 40; i++) {
        int fd = -1;
        size_t count = 1;
        assert_int_equal(call_with("pass", (struct cloche_call_options){.ret_fds = &fd,
                                                                        .ret_fds_count = &count}),
                         0);
        assert_int_equal(count, 1);
        close(fd);
    }
    assert_int_equal(endpoint_counts(0).breaks, 0);
}

static void answer_in_a_batch_twice(struct peer *peer, int fd)
{
    char line[4096], text[512];

    while (read_line(fd, line, sizeof(line))) {
        long id = id_of(line);
        snprintf(text, sizeof(text),
                 "[{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"id\":\"word\"}},"
                 "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"error\":{\"code\":1,\"message\":\"no\"}}]\n",
                 id, id);
        answer_text(fd, text);
    }
    close(fd);
}

static void the_first_answer_counts(void **state)
{
    start_script(&peers[0], answer_in_a_batch_twice);
    open_with(1, .timeout_ms = 20000);
    for (int i = 0; i < 5; i++)
        assert_int_equal(echo("word"), 0);
}

static void answer_number_zero(struct peer *peer, int fd)
{
    char line[4096];

    while (read_line(fd, line, sizeof(line))) {
        answer_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n");
        answer_line(fd, line, "{}");
    }
    close(fd);
}

static void what_nobody_asked_for_is_a_broken_answer(void **state)
{
    start_script(&peers[0], answer_number_zero);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("echo", 0), -EPROTO);
    assert_int_equal(endpoint_counts(0).breaks, 0);
}

static void answer_another_type(struct peer *peer, int fd)
{
    char line[4096];

    while (read_line(fd, line, sizeof(line)) && answer_line(fd, line, "{\"id\":[1]}"))
        ;
    close(fd);
}

static void answers_that_do_not_fit_are_told_as_such(void **state)
{
    start_script(&peers[0], answer_another_type);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(echo("word"), -EPROTO);
    assert_int_equal(error.code, -EPROTO);
}

static void fail_in_colours(struct peer *peer, int fd)
{
    char line[4096], text[512];

    while (read_line(fd, line, sizeof(line))) {
        snprintf(text, sizeof(text),
                 "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"error\":{\"code\":-2,\"message\":"
                 "\"two\\nlines\\u001b[31m\\u009b\",\"data\":{\"hint\":\"a\\tb\"}}}\n",
                 id_of(line));
        answer_text(fd, text);
    }
    close(fd);
}

static void messages_are_one_line_of_text(void **state)
{
    start_script(&peers[0], fail_in_colours);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("echo", 0), -EBUSY);
    assert_string_equal(error.message, "two lines [31m  ");
    assert_string_equal(error.hint, "a b");
}

/* ---- connections ---- */

static void keep_many(struct cloche_connection **taken, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(cloche_client_get(client, 0, &taken[i], &error), 0);
    for (size_t i = 0; i < count; i++) {
        const struct cloche_call_options options = {.size = sizeof(options),
                                                    .connection = taken[i]};
        assert_int_equal(cloche_client_call(client, "steps", NULL, &options, NULL, &error), 0);
    }
    for (size_t i = 0; i < count; i++)
        cloche_client_put(client, taken[i]);
}

static int once(void)
{
    return echo_by(&once_method, "word", 0);
}

static void a_restart_costs_no_attempts(void **state)
{
    struct cloche_connection *taken[32];

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000, .connections = 32, .attempts = 2);
    keep_many(taken, 32);
    stop(&peers[0]);
    start(&peers[0]);
    for (int i = 0; i < 3; i++)
        assert_int_equal(once(), 0);
    assert_int_equal(endpoint_counts(0).breaks, 0);
    stop(&peers[0]);
    start(&peers[0]);
    struct cloche_connection *connection;
    assert_int_equal(cloche_client_get(client, 0, &connection, &error), 0);
    const struct cloche_call_options options = {.size = sizeof(options), .connection = connection};
    assert_int_equal(cloche_client_call(client, "steps", NULL, &options, NULL, &error), 0);
    cloche_client_put(client, connection);
}

static int listen_tcp(char *ret_name, size_t size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(ret_name, size, "tcp:127.0.0.1:%u", ntohs(address.sin_port));
    return fd;
}

static void answer_one_and_end(struct peer *peer, int fd)
{
    char line[4096];

    if (read_line(fd, line, sizeof(line)) && answer_line(fd, line, "{\"id\":\"word\"}"))
        peer->calls++;
    close(fd);
}

static void *play_tcp(void *data)
{
    struct peer *peer = data;

    for (int fd; (fd = accept4(peer->tcp, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
        answer_one_and_end(peer, fd);
    return NULL;
}

/* The first write to a closed TCP connection succeeds: the call would be lost. */
static void closed_tcp_connections_are_not_used(void **state)
{
    char name[64];
    struct peer *peer = &peers[0];
    pthread_t thread;

    peer->tcp = listen_tcp(name, sizeof(name));
    paths[0] = name;
    assert_int_equal(pthread_create(&thread, NULL, play_tcp, peer), 0);
    open_with(1, .timeout_ms = 20000);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(once(), 0);
        nap(30); /* its end has come */
    }
    assert_int_equal(peer->calls, 5);
    assert_int_equal(endpoint_counts(0).breaks, 0);
    shutdown(peer->tcp, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(peer->tcp);
}

static void give_a_descriptor(struct peer *peer, int fd)
{
    char line[4096], text[128];
    int passed = 0;

    while (read_line(fd, line, sizeof(line))) {
        bool wanted = strstr(line, "\"pass\"");
        int length = snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":%ld%s}\n",
                              id_of(line), wanted ? ",\"fds\":1,\"result\":{}" : ",\"result\":{}");
        if (socket_send(fd, text, (size_t)length, &passed, wanted) < 0)
            break;
    }
    close(fd);
}

static void a_want_of_descriptors_is_not_the_servers(void **state)
{
    struct rlimit before;
    int fd = -1;
    size_t count = 1;
    const struct cloche_call_options wanted = {.ret_fds = &fd, .ret_fds_count = &count};

    start_script(&peers[0], give_a_descriptor);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("warm", 0), 0);
    int next = dup(0);
    close(next);
    getrlimit(RLIMIT_NOFILE, &before);
    setrlimit(RLIMIT_NOFILE,
              &(struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max});
    int r = call_with("pass", wanted);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(r, -EMFILE);
    assert_int_equal(endpoint_counts(0).breaks, 0);
    assert_int_equal(call_with("pass", wanted), 0);
    close(fd);
}

static void descriptors_that_are_not_wanted_are_closed(void **state)
{
    struct cloche_container_attach attach = {.container = (char *)"shop"};

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(cloche_container_attach(client, &attach, NULL, NULL, &error), 0);
}

/* ---- what callers bring ---- */

static void options_that_mean_nothing_are_refused(void **state)
{
    int fd = 0;
    size_t count = 1;
    struct cloche_client *other;
    struct cloche_connection *connection;
    const struct cloche_client_settings settings = {.size = sizeof(settings), .endpoints = paths};
    struct cloche_call_options stub = {.size = sizeof(stub), .fds = &fd, .fds_count = 1};
    struct seen seen = {0};

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    paths[1] = NULL;
    assert_int_equal(cloche_client_open(&settings, &other, &error), 0);
    assert_int_equal(cloche_client_get(other, 0, &connection, &error), 0);
    assert_int_equal(call_with("steps", (struct cloche_call_options){.ret_fds = &fd}), -EINVAL);
    assert_int_equal(call_with("steps", (struct cloche_call_options){.fds_count = 1}), -EINVAL);
    assert_int_equal(call_with("steps", (struct cloche_call_options){.connection = connection}),
                     -EINVAL);
    assert_int_equal(cloche_system_info_with(client, NULL, &stub, NULL, &error), -EINVAL);
    const struct cloche_call_options async = {
        .size = sizeof(async), .ret_fds = &fd, .ret_fds_count = &count};
    assert_int_equal(cloche_client_call_async(client, "steps", NULL, &async, on_done, &seen),
                     -EINVAL);
    cloche_client_put(other, connection);
    cloche_client_close(other);
}

/* A program that was built when the structures ended where their first version did. */
static void older_structures_are_taken(void **state)
{
    const char *const endpoints[] = {paths[0], NULL};
    struct cloche_client_settings settings = {
        .size = offsetof(struct cloche_client_settings, waiting) + sizeof(settings.waiting),
        .endpoints = endpoints};
    struct cloche_call_options options = {
        .size = offsetof(struct cloche_call_options, progress_data) + sizeof(void *)};

    memset((char *)&settings + settings.size, 0xee, sizeof(settings) - settings.size);
    memset((char *)&options + options.size, 0xee, sizeof(options) - options.size);
    start(&peers[0]);
    assert_int_equal(cloche_client_open(&settings, &client, &error), 0);
    assert_int_equal(cloche_client_call(client, "steps", NULL, &options, NULL, &error), 0);
}

static void parameters_without_a_counterpart_are_refused(void **state)
{
    static const char *const bad[] = {"{\"container\":1e999}", "{\"container\":\"\\ud800\"}"};
    struct seen seen = {0};

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000, .encoding = CLOCHE_ENCODING_CBOR);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(cloche_client_call(client, "echo", bad[i], NULL, NULL, &error), -EINVAL);
        assert_int_equal(cloche_client_call_async(client, "echo", bad[i], NULL, on_done, &seen),
                         -EINVAL);
    }
    assert_int_equal(echo("word"), 0);
}

#define WELCOME                                                                                    \
    "{\"encoding\":\"cbor\",\"version\":\"1.0\",\"limits\":{\"message\":1048576,\"depth\":64,"     \
    "\"batch\":64,\"inFlight\":64,\"connections\":64,\"output\":1048576,\"fds\":16}}"

/* Speaks CBOR; every result is a map with a number that is none. */
static void answer_no_number(struct peer *peer, int fd)
{
    static const char frame[] = "\0\0\0\x12"
                                "\xa2\x62id\x02\x66result\xa1\x61x\xf9\x7e\0";
    char line[4096];

    if (read_line(fd, line, sizeof(line)) && answer_line(fd, line, WELCOME) &&
        read(fd, line, sizeof(line)) > 0 && write(fd, frame, sizeof(frame) - 1) > 0)
        read_line(fd, line, sizeof(line));
    close(fd);
}

static void results_without_a_counterpart_are_an_error(void **state)
{
    _cleanup_free_ char *result = NULL;

    start_script(&peers[0], answer_no_number);
    open_with(1, .timeout_ms = 20000, .encoding = CLOCHE_ENCODING_CBOR);
    assert_int_equal(cloche_client_call(client, "echo", NULL, NULL, &result, &error), -EPROTO);
    assert_null(result);
}

static void greet_and_end(struct peer *peer, int fd)
{
    char line[4096];

    if (read_line(fd, line, sizeof(line)))
        answer_line(fd, line, WELCOME);
    close(fd);
}

static void one_that_ends_after_the_greeting_is_broken(void **state)
{
    start_script(&peers[0], greet_and_end);
    open_with(1, .timeout_ms = 300, .encoding = CLOCHE_ENCODING_CBOR);
    assert_true(call("echo", 0) < 0);
    assert_true(endpoint_counts(0).breaks > 0);
}

static void a_forked_child_is_refused(void **state)
{
    int status;

    start(&peers[0]);
    open_with(1, .timeout_ms = 20000);
    assert_int_equal(call("steps", 0), 0);
    pid_t child = fork();
    if (child == 0) {
        struct seen seen = {0};
        struct cloche_connection *connection;
        bool refused = call("steps", 0) == -EINVAL && begin("steps", NULL, 0, &seen) == -EINVAL &&
                       cloche_client_get(client, 0, &connection, &error) == -EINVAL;
        cloche_client_close(client);
        _exit(refused ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(call("steps", 0), 0);
}

static void short_calls_do_not_condemn_an_endpoint(void **state)
{
    start_script(&peers[0], never_answer);
    open_with(1, .timeout_ms = 20000, .polled = true, .connect_timeout_ms = 10000,
              .probe_first_ms = 1, .probe_most_ms = 2);
    stop(&peers[0]);
    assert_int_equal(call("echo", 5), -ETIMEDOUT);
    uint64_t failures = endpoint_counts(0).failures;
    start_script(&peers[0], never_answer);
    for (int i = 0; i < 10; i++)
        assert_int_equal(call("echo", 5), -ETIMEDOUT);
    assert_in_range(endpoint_counts(0).failures, failures, failures + 1);
    end_unanswered(&peers[0]);
}

/* ---- the client of the command line ---- */

static void *pour(void *data)
{
    static char text[64 * 1024];
    int fd = *(int *)data;

    memset(text, ' ', sizeof(text));
    for (size_t sent = 0; sent < (size_t)RPC_ANSWER_MAX + (4 << 20); sent += sizeof(text)) {
        if (send(fd, text, sizeof(text), MSG_NOSIGNAL) < 0)
            break;
    }
    shutdown(fd, SHUT_WR);
    return NULL;
}

static void an_answer_without_end_is_given_up(void **state)
{
    int pair[2];
    uint64_t id;
    pthread_t thread;
    _cleanup_error_ struct error err = ERROR_INIT;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    struct rpc_client *simple = rpc_client_from_fd(pair[0]);
    assert_int_equal(rpc_client_send(simple, "x", NULL, NULL, NULL, 0, &id, &err), 0);
    assert_int_equal(pthread_create(&thread, NULL, pour, &pair[1]), 0);
    assert_int_equal(rpc_client_receive(simple, id, NULL, NULL, NULL, NULL, &err), -EPROTO);
    rpc_client_destroy(simple);
    pthread_join(thread, NULL);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pool_test(signals_do_not_stretch_a_call),
        pool_test(a_full_socket_does_not_hold_a_call_with_descriptors),
        pool_test(a_look_at_another_endpoint_does_not_cost_the_call),
        pool_test(very_long_times_are_no_times),
        pool_test(the_time_to_wait_is_a_valid_one),
        pool_test(connecting_to_a_long_path_ends_in_time),
        pool_test(a_refusal_without_id_is_the_answer),
        pool_test(too_many_connections_are_waited_for),
        pool_test(answers_that_come_twice_leak_nothing),
        pool_test(the_first_answer_counts),
        pool_test(what_nobody_asked_for_is_a_broken_answer),
        pool_test(answers_that_do_not_fit_are_told_as_such),
        pool_test(messages_are_one_line_of_text),
        pool_test(a_restart_costs_no_attempts),
        pool_test(closed_tcp_connections_are_not_used),
        pool_test(a_want_of_descriptors_is_not_the_servers),
        pool_test(descriptors_that_are_not_wanted_are_closed),
        pool_test(options_that_mean_nothing_are_refused),
        pool_test(older_structures_are_taken),
        pool_test(parameters_without_a_counterpart_are_refused),
        pool_test(results_without_a_counterpart_are_an_error),
        pool_test(one_that_ends_after_the_greeting_is_broken),
        pool_test(a_forked_child_is_refused),
        pool_test(short_calls_do_not_condemn_an_endpoint),
        pool_test(an_answer_without_end_is_given_up),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
