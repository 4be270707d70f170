/* The server on a loop of its own, spoken to through raw sockets, and the loop. */
#include "rpc_served.h"

static void answers_and_errors(void **state)
{
    static const struct {
        const char *line, *answer;
    } cases[] = {
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"container\":\"a\"}}\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"id\":\"a\"}}\n"},
        {" { \"method\" : \"echo\" , \"params\" : { \"container\" : \"\\u00e4\" } , \"id\" : "
         "\"x\\ny\""
         " , \"jsonrpc\" : \"2.0\" } \r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":\"x\\ny\",\"result\":{\"id\":\"\xc3\xa4\"}}\n"},
        {"{\"jsonrpc\":\"2.0\",\"id\":18446744073709551616,\"method\":\"fail\"}\n",
         "{\"jsonrpc\":\"2.0\",\"id\":18446744073709551616,\"error\":{\"code\":-2,"
         "\"message\":\"it is in "
         "use\",\"data\":{\"what\":\"conflict\",\"where\":\"fail\",\"hint\":\"try later\"}}}\n"},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"container\":\"a\"}}\n", ""},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"none\"}\n", ""},
        {"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"none\"}\n",
         "{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32601,\"message\":\"there is no "
         "method "
         "'none'\",\"data\":{\"what\":\"methodNotFound\",\"where\":\"none\"}}}\n"},
        {"\n\n", ""},
        {"[]\n",
         "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"a batch "
         "without calls\",\"data\":{\"what\":\"invalidRequest\"}}}\n"},
        {"[1,{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"echo\",\"params\":{\"container\":\"b\"}},"
         "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"container\":\"c\"}}]\n",
         "[{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"a message is "
         "an "
         "object\",\"data\":{\"what\":\"invalidRequest\"}}},{\"jsonrpc\":\"2.0\",\"id\":3,"
         "\"result\":{\"id\":\"b\"}}]\n"},
        {"[{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"container\":\"c\"}}]\n", ""},
    };
    int fd = connect_raw();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        say(fd, cases[i].line);
        assert_string_equal(hear(fd), cases[i].answer);
    }
    assert_int_equal(called_count, 6);
    assert_int_equal(last_uid, getuid());
    close(fd);
    turn(5);
    assert_int_equal(rpc_server_connections(server), 0);
}

static void malformed_messages(void **state)
{
    static const struct {
        const char *line, *code;
    } cases[] = {
        {"{", "-32700"},
        {"nonsense", "-32700"},
        {"{\"id\":-0", "-32700"},
        {"{\"jsonrpc\":\"2.0\",\"fds\" :7", "-32700"},
        {"{} {}", "-32700"},
        {"\"\xff\xff\"", "-32700"},
        {"1", "-32600"},
        {"null", "-32600"},
        {"{}", "-32600"},
        {"[[[]]]", "-32600"},
        {"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}", "-32600"},
        {"{\"jsonrpc\":2,\"id\":1,\"method\":\"echo\"}", "-32600"},
        {"{\"id\":1,\"method\":\"echo\"}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"echo\"}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"echo\"}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\\u0000b\"}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"echo\"}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":\"a\"}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"extra\":1}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"fds\":-1}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"fds\":17}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"result\":{}}", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}", "-32602"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"container\":3}}",
         "-32602"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"containers\":\"a\"}}",
         "-32602"},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pipe\"}", "-32602"},
    };
    int fd = connect_raw();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_free_ char *line = xasprintf("%s\n", cases[i].line);
        _cleanup_free_ char *code = xasprintf("\"error\":{\"code\":%s,", cases[i].code);
        say(fd, line);
        const char *answer = hear(fd);
        if (!strstr(answer, code))
            fail_msg("%s -> %s", cases[i].line, answer);
    }
    assert_int_equal(called_count, 0);
    say(fd,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"container\":\"a\"}}\n");
    assert_non_null(strstr(hear(fd), "\"result\""));
    close(fd);
}

static void long_ids_and_deep_documents(void **state)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    int fd = connect_raw();

    buffer_append_text(&line, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":\"");
    for (int i = 0; i < 300; i++)
        buffer_append_char(&line, 'i');
    buffer_append_text(&line, "\"}\n");
    say(fd, line.data);
    assert_non_null(strstr(hear(fd), "-32600"));
    buffer_clear(&line);
    for (int i = 0; i < 100; i++)
        buffer_append_char(&line, '[');
    buffer_append_char(&line, '\n');
    say(fd, line.data);
    assert_non_null(strstr(hear(fd), "\"code\":-12,"));
    close(fd);
}

static void send_slowly(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            length -= (size_t)n;
        } else if (errno != EAGAIN) {
            return;
        }
        turn(1);
    }
}

static void oversize_ends_the_connection(void **state)
{
    char *data = xmalloc(RPC_MESSAGE_MAX + 100000);
    int fd = connect_raw();

    memset(data, ' ', RPC_MESSAGE_MAX + 100000);
    send_slowly(fd, data, RPC_MESSAGE_MAX + 100000);
    assert_non_null(strstr(hear(fd), "too long"));
    assert_true(is_closed(fd));
    close(fd);
    free(data);
}

static void one_byte_at_a_time(void **state)
{
    static const char line[] =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"container\":\"slow\"}}\n";
    int fd = connect_raw();

    for (size_t i = 0; i < sizeof(line) - 1; i++) {
        assert_int_equal(send(fd, line + i, 1, 0), 1);
        turn(1);
    }
    assert_non_null(strstr(hear(fd), "\"slow\""));
    close(fd);
}

/* More requests at once than may be in flight; all are answered, in the end. */
static void pipelined_beyond_the_limit(void **state)
{
    _cleanup_buffer_ struct buffer lines = BUFFER_INIT;
    int fd = connect_raw();
    size_t answers = 0;

    for (int i = 0; i < 100; i++)
        buffer_printf(&lines, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"hold\"}\n", i);
    say(fd, lines.data);
    turn(20);
    assert_int_equal(held_count, RPC_IN_FLIGHT_MAX);
    assert_int_equal(rpc_server_in_flight(server), RPC_IN_FLIGHT_MAX);
    for (size_t i = 0; i < 100; i++) {
        assert_true(i < held_count);
        rpc_reply(held[i], NULL, NULL, 0);
        turn(2);
    }
    for (const char *at = hear(fd); (at = strstr(at, "\"result\":{}")); at++)
        answers++;
    assert_int_equal(answers, 100);
    assert_int_equal(rpc_server_in_flight(server), 0);
    close(fd);
}

static void answers_out_of_order(void **state)
{
    int fd = connect_raw();

    say(fd,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}\n"
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\",\"params\":{\"container\":\"z\"}}\n");
    assert_non_null(strstr(hear(fd), "\"id\":2"));
    rpc_reply(held[0], NULL, NULL, 0);
    assert_string_equal(hear(fd), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    close(fd);
}

static void answer_after_the_client_has_gone(void **state)
{
    int fd = connect_raw(), pipe_fds[2];

    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}\n"
            "[{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hold\"}]\n");
    assert_int_equal(held_count, 2);
    close(fd);
    turn(5);
    assert_int_equal(gone_count, 2);
    assert_int_equal(rpc_server_connections(server), 0);
    assert_int_equal(rpc_server_in_flight(server), 2);
    assert_int_equal(pipe(pipe_fds), 0);
    rpc_reply(held[0], NULL, pipe_fds, 2);
    rpc_reply(held[1], NULL, NULL, 0);
    assert_int_equal(rpc_server_in_flight(server), 0);
}

static void answer_after_the_server_has_gone(void **state)
{
    int fd = connect_raw();

    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}\n");
    rpc_server_destroy(server);
    server = NULL;
    assert_int_equal(gone_count, 1);
    turn(3);
    rpc_reply(held[0], NULL, NULL, 0);
    assert_true(is_closed(fd));
    close(fd);
}

/* `echo '{...}' | nc -U` shuts its half at once and still wants its answer. */
static void a_shut_half_still_gets_answers(void **state)
{
    int fd = connect_raw();

    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}\n");
    shutdown(fd, SHUT_WR);
    turn(10);
    assert_int_equal(gone_count, 0);
    rpc_reply(held[0], NULL, NULL, 0);
    assert_non_null(strstr(hear(fd), "\"result\""));
    assert_true(is_closed(fd));
    close(fd);
}

static void a_paused_client_that_goes_is_noticed(void **state)
{
    _cleanup_buffer_ struct buffer lines = BUFFER_INIT;
    int fd = connect_raw();

    for (int i = 0; i < RPC_IN_FLIGHT_MAX; i++)
        buffer_append_text(&lines, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}\n");
    say(fd, lines.data);
    close(fd);
    turn(10);
    assert_int_equal(gone_count, RPC_IN_FLIGHT_MAX);
    for (size_t i = 0; i < held_count; i++)
        rpc_reply(held[i], NULL, NULL, 0);
}

/* O_NONBLOCK is of the open file description, which whoever has made the connection may share. */
static void a_connection_made_blocking_blocks_nobody(void **state)
{
    enum { READ_AT_ONCE = 64 * 1024, LARGE_CALLS = 4 };
    char *blanks = xmalloc(READ_AT_ONCE);
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    int shared = dup(pair[1]);
    assert_int_equal(rpc_server_adopt(server, pair[1], NULL, NULL), 0);
    assert_int_equal(fcntl(shared, F_SETFL, fcntl(shared, F_GETFL) & ~O_NONBLOCK), 0);
    alarm(20);
    memset(blanks, '\n', READ_AT_ONCE);
    assert_int_equal(write(pair[0], blanks, READ_AT_ONCE), READ_AT_ONCE);
    turn(5);
    for (int i = 0; i < LARGE_CALLS; i++)
        say(pair[0], "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"large\"}\n");
    turn(5);
    alarm(0);
    close(shared);
    close(pair[0]);
    turn(5);
    free(blanks);
}

static void slow_readers_are_not_waited_for(void **state)
{
    int slow = connect_raw(), quick = connect_raw();

    for (int i = 0; i < 20; i++)
        say(slow, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"large\"}\n");
    say(quick,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"container\":\"q\"}}\n");
    assert_non_null(strstr(hear(quick), "\"q\""));
    assert_int_equal(rpc_server_connections(server), 2);
    /* When it reads again, it gets all of it: requests were not read while it owed answers. */
    size_t length = 0;
    for (int quiet = 0; quiet < 50; quiet++) {
        const char *heard = hear(slow);
        length += strlen(heard);
        if (heard[0])
            quiet = 0;
    }
    assert_int_equal(length, 20 * ((1 << 20) - 1 +
                                   strlen("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":"
                                          "{\"id\":\"\"}}\n")));
    close(slow);
    close(quick);
}

/* ---- descriptors ---- */

static void descriptors_there_and_back(void **state)
{
    static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pipe\",\"fds\":1}\n";
    int fd = connect_raw(), sent[2] = {word_pipe("one"), word_pipe("two")};

    for (int i = 0; i < 2; i++)
        assert_int_equal(socket_send(fd, line, strlen(line), &sent[i], 1), strlen(line));
    turn(10);
    for (int i = 0; i < 2; i++) {
        char data[4096], word[8] = "";
        int got = -1;
        size_t count = 1;
        assert_true(socket_receive(fd, data, sizeof(data), &got, &count) > 0);
        assert_int_equal(count, 1);
        assert_int_equal(read(got, word, sizeof(word)), 3);
        assert_string_equal(word, i ? "two" : "one");
        close(got);
        close(sent[i]);
    }
    close(fd);
}

static void descriptors_nobody_wants(void **state)
{
    static const char wrong_count[] =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pipe\",\"fds\":2}\n";
    static const char not_there[] =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pipe\",\"fds\":1}\n";
    static const char not_counted[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"fail\"}\n";
    int word = word_pipe("w"), two[2] = {word, word}, fd = connect_raw();

    socket_send(fd, wrong_count, strlen(wrong_count), two, 2);
    assert_non_null(strstr(hear(fd), "-32602"));
    socket_send(fd, not_there, strlen(not_there), NULL, 0);
    assert_true(is_closed(fd));
    close(fd);
    fd = connect_raw();
    socket_send(fd, not_counted, strlen(not_counted), &word, 1);
    assert_non_null(strstr(hear(fd), "no message counts"));
    assert_true(is_closed(fd));
    close(fd);
    fd = connect_raw();
    socket_send(fd, "{", 1, &word, 1); /* and never more: goes with the connection */
    turn(5);
    close(fd);
    close(word);
    turn(5);
}

/* ---- the loop ---- */

static int order[8], order_count;

struct numbered_timer {
    struct rpc_timer timer;
    int number;
};

static void on_numbered(struct rpc_timer *timer)
{
    order[order_count++] = ((struct numbered_timer *)timer)->number;
}

static void timers_come_in_their_order(void **state)
{
    static const int due[] = {50, 10, 40, 20, 30, 10, 60};
    struct numbered_timer timers[ARRAY_SIZE(due)];
    uint64_t start = rpc_loop_update_now(loop);

    order_count = 0;
    for (int i = 0; i < (int)ARRAY_SIZE(due); i++) {
        timers[i] = (struct numbered_timer){.timer = {.callback = on_numbered}, .number = due[i]};
        rpc_loop_set_timer(loop, &timers[i].timer, start + (uint64_t)due[i] * 1000000);
    }
    rpc_loop_clear_timer(loop, &timers[2].timer);
    rpc_loop_clear_timer(loop, &timers[2].timer); /* nothing */
    rpc_loop_set_timer(loop, &timers[6].timer, start + 15 * 1000000);
    while (order_count < 6)
        rpc_loop_run_once(loop, -1);
    static const int expected[] = {10, 10, 60, 20, 30, 50};
    assert_memory_equal(order, expected, sizeof(expected));
    assert_true(rpc_loop_update_now(loop) >= start + 50 * 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        server_test(answers_and_errors),
        server_test(malformed_messages),
        server_test(long_ids_and_deep_documents),
        server_test(oversize_ends_the_connection),
        server_test(one_byte_at_a_time),
        server_test(pipelined_beyond_the_limit),
        server_test(answers_out_of_order),
        server_test(answer_after_the_client_has_gone),
        server_test(answer_after_the_server_has_gone),
        server_test(a_shut_half_still_gets_answers),
        server_test(a_paused_client_that_goes_is_noticed),
        server_test(a_connection_made_blocking_blocks_nobody),
        server_test(slow_readers_are_not_waited_for),
        server_test(descriptors_there_and_back),
        server_test(descriptors_nobody_wants),
        server_test(timers_come_in_their_order),
    };

    alarm(60); /* a server that does not answer is a failure, not a wait */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
