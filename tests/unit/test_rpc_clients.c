/* The client that waits and the one that does not, against a server. */
#include "rpc_served.h"

/* ---- the client, against a server in a child ---- */

static pid_t start_server(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        for (;;)
            rpc_loop_run_once(loop, -1);
    }
    return pid;
}

static void stop_server(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void client_calls(void **state)
{
    struct api_container_ref ref = {.container = "shop"};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_container_created *created = NULL;
    struct rpc_client *client;
    pid_t pid = start_server();

    assert_int_equal(rpc_client_connect(socket_path, &client, &err), 0);
    assert_int_equal(rpc_client_call(client, "echo", &api_container_ref_type, &ref,
                                     &api_container_created_type, (void **)&created, NULL, 0, NULL,
                                     NULL, &err),
                     0);
    assert_string_equal(created->id, "shop");
    api_container_created_free(created);

    assert_int_equal(
        rpc_client_call(client, "fail", NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, &err), -EBUSY);
    assert_string_equal(err.message, "it is in use");
    assert_string_equal(err.hint, "try later");
    assert_int_equal(rpc_client_error_code(client), RPC_CONFLICT);

    int word = word_pipe("hello"), got = -1;
    size_t count = 1;
    char text[8] = "";
    assert_int_equal(
        rpc_client_call(client, "pipe", NULL, NULL, NULL, NULL, &word, 1, &got, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_int_equal(read(got, text, sizeof(text)), 5);
    assert_string_equal(text, "hello");
    close(got);
    assert_int_equal(
        rpc_client_call(client, "pipe", NULL, NULL, NULL, NULL, &word, 1, NULL, NULL, &err),
        -EPROTO);
    close(word);
    rpc_client_destroy(client);
    stop_server(pid);
}

static void client_keeps_answers_apart(void **state)
{
    struct api_container_ref a = {.container = "a"}, b = {.container = "b"};
    struct api_container_created *created = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    uint64_t held_id, a_id, b_id;
    struct rpc_client *client;
    pid_t pid = start_server();

    assert_int_equal(rpc_client_connect(socket_path, &client, &err), 0);
    assert_int_equal(rpc_client_send(client, "hold", NULL, NULL, NULL, 0, &held_id, &err), 0);
    rpc_client_send(client, "echo", &api_container_ref_type, &a, NULL, 0, &a_id, &err);
    rpc_client_send(client, "echo", &api_container_ref_type, &b, NULL, 0, &b_id, &err);
    assert_int_equal(rpc_client_receive(client, b_id, &api_container_created_type,
                                        (void **)&created, NULL, NULL, &err),
                     0);
    assert_string_equal(created->id, "b");
    api_container_created_free(created);
    assert_int_equal(rpc_client_ready(client, a_id, &err), 1);
    assert_int_equal(rpc_client_ready(client, held_id, &err), 0);
    assert_int_equal(rpc_client_receive(client, a_id, &api_container_created_type,
                                        (void **)&created, NULL, NULL, &err),
                     0);
    assert_string_equal(created->id, "a");
    api_container_created_free(created);
    stop_server(pid); /* in the middle of "hold": our own copy of the listener is not asked */
    assert_int_equal(rpc_client_receive(client, held_id, NULL, NULL, NULL, NULL, &err),
                     -ECONNRESET);
    assert_int_equal(rpc_client_receive(client, held_id, NULL, NULL, NULL, NULL, &err), -ENOTCONN);
    assert_int_equal(rpc_client_send(client, "hold", NULL, NULL, NULL, 0, &held_id, &err),
                     -ENOTCONN);
    rpc_client_destroy(client);
}

static void client_refuses_nonsense(void **state)
{
    static const char *const answers[] = {
        "nonsense\n",
        "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"fds\":1}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"id\":5}}\n",
    };

    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        void *created = NULL;
        uint64_t id;
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        struct rpc_client *client = rpc_client_from_fd(fds[0]);
        assert_int_equal(rpc_client_send(client, "echo", NULL, NULL, NULL, 0, &id, &err), 0);
        assert_true(write(fds[1], answers[i], strlen(answers[i])) > 0);
        assert_int_equal(
            rpc_client_receive(client, id, &api_container_created_type, &created, NULL, NULL, &err),
            -EPROTO);
        assert_null(created);
        rpc_client_destroy(client);
        close(fds[1]);
    }
}

/* ---- the asynchronous client, on the same loop ---- */

struct seen {
    int times, code, fault;
    char *id; /* owned; of an api_container_created */
    int fd;
    struct rpc_channel *close; /* NULL, or what the callback closes */
    bool names;                /* the result is an api_container_created */
};

static void on_seen(void *data, const struct rpc_outcome *outcome)
{
    struct seen *seen = data;
    struct api_container_created *created = outcome->result;

    seen->times++;
    seen->code = outcome->code;
    seen->fault = outcome->fault;
    assert_true((outcome->code < 0) == (outcome->error != NULL));
    if (outcome->fds_count)
        seen->fd = steal_fd(&outcome->fds[0]);
    if (created && seen->names) {
        seen->id = xstrdup(created->id);
        api_container_created_free(created);
    } else {
        api_empty_free(outcome->result);
    }
    rpc_channel_close(steal_ptr(seen->close));
}

static struct rpc_channel *open_channel(const struct rpc_channel_events *events)
{
    struct rpc_channel *channel = NULL;

    assert_int_equal(rpc_channel_open(loop, connect_raw(), events, &channel, NULL), 0);
    return channel;
}

static int64_t call_echo(struct rpc_channel *channel, const char *name, struct seen *seen)
{
    struct api_container_ref ref = {.container = (char *)(uintptr_t)name};

    if (seen)
        seen->names = true;
    return rpc_channel_call(channel, &(struct rpc_call){.method = &echo_type,
                                                        .params = &ref,
                                                        .done = seen ? on_seen : NULL,
                                                        .data = seen});
}

static int64_t call_hold(struct rpc_channel *channel, uint64_t timeout_ms, struct seen *seen)
{
    return rpc_channel_call(channel, &(struct rpc_call){.method = &hold_type,
                                                        .timeout_ms = timeout_ms,
                                                        .done = on_seen,
                                                        .data = seen});
}

static void answer_held(void)
{
    while (held_count)
        rpc_reply(held[--held_count], NULL, NULL, 0);
}

static void channel_calls_have_one_callback(void **state)
{
    struct rpc_channel *channel = open_channel(NULL);
    struct seen first = {0}, echo = {0}, fail = {0}, second = {0};

    assert_int_equal(call_hold(channel, 0, &first), 1);
    assert_int_equal(call_echo(channel, "shop", &echo), 2);
    assert_int_equal(
        rpc_channel_call(channel,
                         &(struct rpc_call){.method = &fail_type, .done = on_seen, .data = &fail}),
        3);
    assert_int_equal(call_hold(channel, 0, &second), 4);
    assert_int_equal(call_echo(channel, "a notification", NULL), 0);
    assert_int_equal(echo.times, 0); /* never from within the call */
    turn(10);
    assert_int_equal(called_count, 2);
    assert_int_equal(echo.times, 1);
    assert_string_equal(echo.id, "shop");
    assert_int_equal(fail.times, 1);
    assert_int_equal(fail.fault, RPC_CONFLICT);
    assert_int_equal(fail.code, -EBUSY);
    assert_int_equal(rpc_channel_counts(channel).in_flight, 2);
    answer_held(); /* in the other order */
    turn(10);
    assert_int_equal(first.times, 1);
    assert_int_equal(second.times, 1);
    assert_int_equal(first.code, 0);
    struct rpc_channel_counts counts = rpc_channel_counts(channel);
    assert_true(counts.calls == 5 && counts.answers == 3 && counts.faults == 1 &&
                counts.in_flight == 0 && counts.bytes_queued == 0);
    free(echo.id);
    rpc_channel_close(channel);
}

static void turn_for(int milliseconds)
{
    uint64_t end = rpc_loop_update_now(loop) + (uint64_t)milliseconds * 1000000;

    while (rpc_loop_update_now(loop) < end)
        rpc_loop_run_once(loop, 5);
}

static void channel_calls_end_in_time(void **state)
{
    struct rpc_channel *channel = open_channel(NULL);
    struct seen late[3] = {{0}, {0}, {0}}, patient = {0};

    call_hold(channel, 1000, &late[0]);
    call_hold(channel, 600, &late[1]);
    call_hold(channel, 0, &patient);
    call_hold(channel, 800, &late[2]);
    turn_for(5);
    assert_int_equal(held_count, 4);
    assert_int_equal(late[1].times, 0);
    while (!late[0].times)
        turn_for(20);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(late[i].times, 1);
        assert_int_equal(late[i].code, -ETIMEDOUT);
    }
    answer_held();
    struct rpc_channel_counts counts;
    do {
        turn_for(20);
        counts = rpc_channel_counts(channel);
    } while (!patient.times || counts.late + counts.faults < 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(late[i].times, 1);
    assert_int_equal(patient.times, 1);
    /* Whoever is first, the channel or the server's word that the time is over. */
    assert_int_equal(counts.timeouts + counts.faults, 3);
    assert_int_equal(counts.late + counts.faults, 3);
    assert_int_equal(counts.answers, 1);
    rpc_channel_close(channel);
}

static void channel_calls_can_be_cancelled(void **state)
{
    struct rpc_channel *channel = open_channel(NULL);
    struct seen seen = {0};

    int64_t number = call_hold(channel, 0, &seen);
    turn(5);
    assert_true(rpc_channel_cancel(channel, number));
    assert_int_equal(seen.code, -ECANCELED);
    assert_false(rpc_channel_cancel(channel, number));
    assert_false(rpc_channel_cancel(channel, 77));
    answer_held();
    turn(5);
    assert_int_equal(seen.times, 1);
    assert_int_equal(rpc_channel_counts(channel).late, 1);
    rpc_channel_close(channel);
}

static int ended_times, ended_code;

static void on_ended(void *data, const struct error *why)
{
    ended_times++;
    ended_code = why->code;
}

static void channel_calls_end_with_the_connection(void **state)
{
    struct rpc_channel *channel = open_channel(&(struct rpc_channel_events){.ended = on_ended});
    struct seen seen[3] = {{0}, {0}, {0}};

    ended_times = 0;
    for (int i = 0; i < 3; i++)
        call_hold(channel, 0, &seen[i]);
    turn(5);
    rpc_server_destroy(steal_ptr(server));
    turn(5);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(seen[i].times, 1);
        assert_int_equal(seen[i].code, -ECONNRESET);
    }
    assert_int_equal(ended_times, 1);
    assert_int_equal(ended_code, -ECONNRESET);
    assert_int_equal(call_echo(channel, "x", &seen[0]), -ENOTCONN);
    assert_int_equal(rpc_channel_counts(channel).lost, 3);
    answer_held(); /* into the void */
    rpc_channel_close(channel);
}

static void a_channel_may_be_closed_in_a_callback(void **state)
{
    struct rpc_channel *channel = open_channel(NULL);
    struct seen echo = {.close = channel}, held_call = {0};

    call_hold(channel, 0, &held_call);
    call_echo(channel, "last", &echo);
    turn(10);
    assert_int_equal(echo.times, 1);
    assert_int_equal(held_call.times, 1);
    assert_int_equal(held_call.code, -ECANCELED);
    assert_int_equal(gone_count, 1);
    answer_held();
    free(echo.id);
}

static void channel_calls_carry_descriptors(void **state)
{
    struct rpc_channel *channel = open_channel(NULL);
    struct seen seen[2] = {{0}, {0}};
    char word[8] = "";

    for (int i = 0; i < 2; i++) {
        int pipe_fds[2];
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        assert_int_equal(write(pipe_fds[1], i ? "two" : "one", 3), 3);
        struct rpc_call call = {.method = &pipe_type,
                                .fds = &pipe_fds[0],
                                .fds_count = 1,
                                .done = on_seen,
                                .data = &seen[i]};
        assert_true(rpc_channel_call(channel, &call) > 0);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
    }
    turn(10);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(seen[i].code, 0);
        assert_int_equal(read(seen[i].fd, word, sizeof(word)), 3);
        assert_memory_equal(word, i ? "two" : "one", 3);
        close(seen[i].fd);
    }
    rpc_channel_close(channel);
}

static void channels_keep_to_their_limits(void **state)
{
    _cleanup_free_ char *long_name = xmalloc(RPC_MESSAGE_MAX + 1);
    struct rpc_channel *channel = open_channel(NULL);
    struct seen seen = {0};

    memset(long_name, 'x', RPC_MESSAGE_MAX);
    long_name[RPC_MESSAGE_MAX] = '\0';
    assert_int_equal(call_echo(channel, long_name, &seen), -EFBIG);
    long_name[RPC_MESSAGE_MAX - 1024] = '\0';
    int queued = 0;
    while (call_echo(channel, long_name, NULL) == 0) /* what nobody reads is not kept for ever */
        queued++;
    assert_int_equal(call_echo(channel, "x", &seen), -ENOBUFS);
    assert_true(queued >= RPC_CHANNEL_QUEUE_MAX / RPC_MESSAGE_MAX);
    for (int i = 0; i < 1000 && rpc_channel_counts(channel).bytes_queued; i++)
        turn(1);
    assert_true(call_echo(channel, "x", &seen) > 0);
    turn(20);
    assert_int_equal(seen.times, 1);
    free(seen.id);
    rpc_channel_close(channel);
}

static void channels_refuse_nonsense(void **state)
{
    static const char *const answers[] = {
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"id\":\"x\"}}\n", /* not asked */
        "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"id\":\"x\"},\"fds\":1}\n",
        "hello\n",
    };

    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        struct rpc_channel *channel;
        struct seen seen = {0};
        int fds[2];

        ended_times = 0;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(rpc_channel_open(loop, fds[0],
                                          &(struct rpc_channel_events){.ended = on_ended}, &channel,
                                          NULL),
                         0);
        call_echo(channel, "x", &seen);
        turn(2);
        assert_true(write(fds[1], answers[i], strlen(answers[i])) > 0);
        turn(2);
        assert_int_equal(seen.times, 1);
        assert_int_equal(seen.code, -EPROTO);
        assert_int_equal(ended_times, 1);
        rpc_channel_close(channel);
        close(fds[1]);
    }
    /* An answer that is no value of its type ends the call only. */
    struct rpc_channel *channel = open_channel(NULL);
    struct seen seen = {0};
    rpc_channel_call(channel, &(struct rpc_call){
                                  .method = &(struct json_method){.name = "echo",
                                                                  .params = &api_container_ref_type,
                                                                  .result = &api_changed_type},
                                  .params = &(struct api_container_ref){"x"},
                                  .done = on_seen,
                                  .data = &seen});
    turn(10);
    assert_int_equal(seen.code, -EPROTO);
    assert_int_equal(call_echo(channel, "y", &seen), 2);
    turn(10);
    assert_int_equal(seen.code, 0);
    free(seen.id);
    rpc_channel_close(channel);
}

static void on_note(void *data, const char *method, size_t method_length, const char *params,
                    size_t params_length)
{
    char **ret = data;

    free(*ret);
    *ret = xasprintf("%.*s %.*s", (int)method_length, method, (int)params_length, params);
}

static void channels_hear_notifications(void **state)
{
    static const char line[] =
        "{\"jsonrpc\":\"2.0\",\"method\":\"events.event\",\"params\":{\"sequence\":1}}\n";
    struct rpc_channel *channel;
    char *note = NULL;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(
        rpc_channel_open(loop, fds[0],
                         &(struct rpc_channel_events){.notified = on_note, .data = &note}, &channel,
                         NULL),
        0);
    for (size_t i = 0; i < strlen(line); i++) {
        assert_int_equal(write(fds[1], line + i, 1), 1);
        turn(1);
    }
    assert_string_equal(note, "events.event {\"sequence\":1}");
    free(note);
    rpc_channel_close(channel);
    close(fds[1]);
}

static void any_loop_can_poll_a_loop(void **state)
{
    struct pollfd ready = {.fd = rpc_loop_fd(loop), .events = POLLIN};
    struct rpc_channel *channel = open_channel(NULL);
    struct seen seen = {0}, late = {0};

    call_echo(channel, "polled", &seen);
    call_hold(channel, 30, &late);
    while (!late.times) {
        assert_int_equal(poll(&ready, 1, 60000), 1);
        rpc_loop_dispatch(loop);
    }
    assert_string_equal(seen.id, "polled");
    free(seen.id);
    answer_held();
    rpc_channel_close(channel);
    turn(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        server_test(client_calls),
        server_test(client_keeps_answers_apart),
        server_test(client_refuses_nonsense),
        server_test(channel_calls_have_one_callback),
        server_test(channel_calls_end_in_time),
        server_test(channel_calls_can_be_cancelled),
        server_test(channel_calls_end_with_the_connection),
        server_test(a_channel_may_be_closed_in_a_callback),
        server_test(channel_calls_carry_descriptors),
        server_test(channels_keep_to_their_limits),
        server_test(channels_refuse_nonsense),
        server_test(channels_hear_notifications),
        server_test(any_loop_can_poll_a_loop),
    };

    alarm(60); /* a server that does not answer is a failure, not a wait */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
