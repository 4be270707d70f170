/* What travels: positional parameters, deadlines, cancellation, progress, limits and the methods of
 * the protocol itself, spoken byte by byte. */
#include "rpc_wired.h"

/* ---- parameters by position ---- */

static void parameters_by_position(void **state)
{
    static const struct {
        const char *params, *expected;
    } cases[] = {
        {"[\"a\"]", "{\"id\":\"a\",\"warnings\":[\"-1\"]}"},
        {"[\"a\",500]", "{\"id\":\"a\",\"warnings\":[\"500\"]}"},
        {" [ \"a\" , null ] ", "{\"id\":\"a\",\"warnings\":[\"-1\"]}"},
        {"[]", "\"code\":-32602"},
        {"[1]", "\"code\":-32602"},
        {"[\"a\",1,2,3,4]", "\"code\":-32602"},
        {"[\"a\",1,2,3,4]", "more than"},
        {"[[\"a\"]]", "\"code\":-32602"},
    };
    serve();
    int fd = connect_one();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_free_ char *line = xasprintf(CALL("\"echo\",\"params\":%s"), cases[i].params);
        say(fd, line);
        const char *answer = hear(fd);
        if (!strstr(answer, cases[i].expected))
            fail_msg("%s -> %s", cases[i].params, answer);
    }
    say(fd, CALL("\"rpc.ping\",\"params\":[]"));
    assert_string_equal(hear(fd), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    say(fd, CALL("\"rpc.ping\""));
    assert_string_equal(hear(fd), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    close(fd);
}

static void ids_come_back_as_they_were(void **state)
{
    static const char *const ids[] = {
        "null", "0",        "-1",    "1.5",         "1e3",
        "\"\"", "\"a\\n\"", "\"1\"", "\"\\u00e4\"", "12345678901234567890"};

    serve();
    int fd = connect_one();
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        _cleanup_free_ char *line =
            xasprintf("{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"rpc.ping\"}\n", ids[i]);
        _cleanup_free_ char *answer =
            xasprintf("{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}\n", ids[i]);
        say(fd, line);
        assert_string_equal(hear(fd), answer);
    }
    close(fd);
}

/* ---- deadlines, cancellation, progress ---- */

static void a_deadline_is_answered_once(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, CALL("\"hold\",\"timeoutMs\":20"));
    assert_int_equal(held_count, 1);
    assert_true(rpc_request_deadline(held[0]) > 0);
    assert_string_equal(hear(fd), "");
    wait_a_while();
    const char *answer = hear(fd);
    assert_non_null(strstr(answer, "\"code\":-10,"));
    assert_non_null(strstr(answer, "\"what\":\"deadlineExceeded\",\"where\":\"hold\",\"hint\":"));
    assert_int_equal(gone_count, 1);
    assert_int_equal(reason, RPC_TIME_IS_OVER);
    assert_int_equal(rpc_server_in_flight(server), 1);
    release_held();
    assert_int_equal(rpc_server_in_flight(server), 0);
    assert_string_equal(hear(fd), "");
    say(fd, CALL("\"hold\",\"timeoutMs\":0"));
    assert_non_null(strstr(hear(fd), "\"code\":-10,"));
    assert_int_equal(held_count, 0);
    close(fd);
}

static void a_deadline_that_is_met_is_nothing(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, CALL("\"hold\",\"timeoutMs\":30"));
    release_held();
    assert_non_null(strstr(hear(fd), "\"result\":{}"));
    wait_a_while();
    assert_string_equal(hear(fd), "");
    assert_int_equal(gone_count, 0);
    say(fd, CALL("\"hold\",\"timeoutMs\":-1"));
    assert_non_null(strstr(hear(fd), "-32600"));
    say(fd, CALL("\"hold\",\"timeoutMs\":1.5"));
    assert_non_null(strstr(hear(fd), "-32600"));
    say(fd, CALL("\"hold\",\"timeoutMs\":99999999999999999999"));
    assert_non_null(strstr(hear(fd), "-32600"));
    close(fd);
}

static void a_cancelled_call_is_answered_once(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":\"long\",\"method\":\"hold\"}\n");
    say(fd, CALL("\"rpc.cancel\",\"params\":{\"id\":\"other\"}"));
    assert_non_null(strstr(hear(fd), "{\"cancelled\":false}"));
    say(fd, CALL("\"rpc.cancel\",\"params\":[\"long\"]"));
    const char *answers = hear(fd);
    assert_ptr_equal(
        strstr(answers, "{\"jsonrpc\":\"2.0\",\"id\":\"long\",\"error\":{\"code\":-11,"), answers);
    assert_non_null(
        strstr(answers, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"cancelled\":true}}"));
    assert_int_equal(reason, RPC_CALL_ENDED);
    say(fd, CALL("\"rpc.cancel\",\"params\":{\"id\":\"long\"}"));
    assert_non_null(strstr(hear(fd), "{\"cancelled\":false}"));
    release_held();
    assert_string_equal(hear(fd), "");
    assert_int_equal(gone_count, 1);
    close(fd);
}

/* The other answers of its batch do not wait for a handler that goes on. */
static void a_call_of_a_batch_can_be_cancelled(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, "[{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"hold\"},"
            "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"rpc.ping\"}]\n");
    assert_string_equal(hear(fd), "");
    say(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.cancel\",\"params\":{\"id\":7}}\n");
    const char *answer = hear(fd);
    assert_int_equal(answer[0], '[');
    assert_non_null(strstr(answer, "\"id\":8,\"result\""));
    assert_non_null(strstr(answer, "\"id\":7,\"error\":{\"code\":-11"));
    release_held();
    assert_string_equal(hear(fd), "");
    close(fd);
}

static void a_cancelled_call_and_a_client_that_goes(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, CALL("\"hold\",\"timeoutMs\":100000"));
    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hold\"}\n");
    say(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.cancel\",\"params\":{\"id\":1}}\n");
    close(fd);
    turn(5);
    assert_int_equal(gone_count, 2);
    assert_int_equal(reason, RPC_PEER_GONE);
    assert_true(rpc_connection_closed(rpc_request_connection(held[0])));
    assert_int_equal(rpc_connection_peer(rpc_request_connection(held[0]))->uid, getuid());
    release_held();
    assert_int_equal(rpc_server_in_flight(server), 0);
}

static void progress_is_told_to_who_asked(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, CALL("\"step\""));
    assert_string_equal(hear(fd), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    say(fd, CALL("\"step\",\"progress\":true"));
    assert_string_equal(
        hear(fd),
        "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.progress\",\"params\":{\"id\":1,\"done\":1,"
        "\"total\":3,\"unit\":\"steps\",\"text\":\"the first\"}}\n"
        "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.progress\",\"params\":{\"id\":1,\"done\":2}}\n"
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    say(fd, CALL("\"step\",\"progress\":1"));
    assert_non_null(strstr(hear(fd), "-32600"));
    close(fd);
}

/* ---- the protocol's own methods ---- */

static void stats_and_discovery(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, CALL("\"rpc.discover\""));
    assert_non_null(strstr(hear(fd), "\"result\":{\"openrpc\":\"1.3.2\",\"methods\":[]}}\n"));
    say(fd, "nonsense\n" CALL("\"nothing\"") CALL("\"echo\"") CALL("\"hold\",\"timeoutMs\":0"));
    hear(fd);
    say(fd, CALL("\"rpc.stats\""));
    const char *line = hear(fd), *at = strstr(line, "\"result\":");
    struct rpc_stats *stats;
    assert_non_null(at);
    at += strlen("\"result\":");
    assert_int_equal(rpc_stats_parse(at, strlen(at) - 2, NULL, &stats, NULL), 0);
    assert_int_equal(stats->connections, 1);
    assert_int_equal(stats->malformed, 1);
    assert_int_equal(stats->unknown, 1);
    for (size_t i = 0; i < stats->methods_count; i++) {
        const struct rpc_method_stats *method = stats->methods[i];
        assert_int_equal(method->calls, 1);
        assert_int_equal(method->timeouts, text_equal(method->method, "hold"));
        assert_int_equal(method->in_flight, text_equal(method->method, "rpc.stats"));
    }
    assert_int_equal(stats->methods_count, 4);
    rpc_stats_free(stats);
    close(fd);
}

static void calls_have_to_be_allowed(void **state)
{
    serve();
    int fd = connect_one();

    denied_code = -EACCES;
    say(fd, CALL("\"echo\",\"params\":[\"a\"]"));
    assert_non_null(strstr(hear(fd), "\"code\":-4,\"message\":\"not for you\""));
    say(fd, CALL("\"rpc.stats\""));
    assert_non_null(strstr(hear(fd), "\"code\":-4,"));
    say(fd, CALL("\"rpc.ping\""));
    assert_non_null(strstr(hear(fd), "\"result\""));
    close(fd);
}

/* ---- limits ---- */

static void limits_are_told_and_kept(void **state)
{
    options.limits = (struct rpc_limits){
        .message = 200, .depth = 4, .batch = 2, .in_flight = 3, .connections = 2, .output = 1000};
    serve();
    int fd = connect_one(), other;

    say(fd, CALL("\"rpc.hello\""));
    assert_string_equal(hear(fd), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"encoding\":\"json\","
                                  "\"version\":\"1.0\",\"limits\":{\"message\":200,\"depth\":4,"
                                  "\"batch\":2,\"inFlight\":3,\"connections\":2,\"output\":1000,"
                                  "\"fds\":16}}}\n");
    say(fd, "[1,2,3]\n");
    assert_non_null(strstr(hear(fd), "\"code\":-12,"));
    say(fd, CALL("\"echo\",\"params\":{\"container\":[[[[1]]]]}"));
    assert_non_null(strstr(hear(fd), "\"code\":-12,"));
    _cleanup_free_ char *line = xasprintf("%300s\n", "");
    assert_int_equal(send(fd, line, 301, 0), 301); /* whole: the connection stays */
    const char *answer = hear(fd);
    assert_non_null(strstr(answer, "\"code\":-12,\"message\":\"the message is too long\""));
    assert_non_null(strstr(answer, "at most 200 bytes"));
    say(fd, CALL("\"rpc.ping\""));
    assert_non_null(strstr(hear(fd), "\"result\""));
    other = connect_one();
    close(connect_one());
    int third = connect_one();
    assert_non_null(strstr(hear(third), "\"code\":-12,\"message\":\"too many connections\""));
    assert_int_equal(recv(third, line, 1, 0), 0);
    close(third);
    close(other);
    assert_int_equal(send(fd, line, 250, 0), 250); /* never whole */
    assert_non_null(strstr(hear(fd), "at most 200 bytes"));
    assert_int_equal(recv(fd, line, 1, 0), 0);
    close(fd);
    turn(3);
    assert_int_equal(rpc_server_connections(server), 0);
    rpc_server_destroy(server);
    options.limits = (struct rpc_limits){.message = RPC_MESSAGE_MAX + 1};
    assert_int_equal(rpc_server_create(loop, &options, &server, NULL), -EINVAL);
    server = NULL;
}

/* Of all its connections together: partial messages, and calls that are not answered. */
static void a_user_gets_so_much_memory(void **state)
{
    _cleanup_free_ char *blanks = xasprintf("%8000s", "");
    _cleanup_free_ char *call = xasprintf(CALL("\"hold\",\"params\":{%250s}"), "");

    options.limits = (struct rpc_limits){.peer_bytes = 21000};
    serve();
    int fds[4] = {connect_one(), connect_one(), connect_one(), connect_one()};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(send(fds[i], blanks, 8000, 0), 8000);
        assert_string_equal(hear(fds[i]), "");
    }
    assert_int_equal(send(fds[2], call, strlen(call), 0), strlen(call));
    assert_non_null(strstr(hear(fds[2]), "\"code\":-12,\"message\":\"too much is on its way"));
    assert_int_equal(held_count, 1);
    close(fds[0]); /* that makes room */
    assert_int_equal(send(fds[3], call, strlen(call), 0), strlen(call));
    assert_string_equal(hear(fds[3]), "");
    assert_int_equal(held_count, 2);
    release_held();
    assert_int_equal(send(fds[1], "\n", 1, 0), 1);
    assert_int_equal(send(fds[3], call, strlen(call), 0), strlen(call));
    assert_non_null(strstr(hear(fds[3]), "\"result\""));
    assert_int_equal(held_count, 1);
    for (int i = 1; i < 4; i++)
        close(fds[i]);
    turn(5);
    assert_int_equal(rpc_server_connections(server), 0);
}

/* An answer that is too much for a reader ends the connection: its own handler is not told then,
 * which may answer once more, in the middle of answering. */
static void an_answer_that_ends_its_connection(void **state)
{
    options.limits = (struct rpc_limits){.output = 1000};
    serve();
    int fd = connect_one();
    int room = 1;
    _cleanup_free_ char *much = xasprintf("\"%0800000d\"", 0);

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    say(fd, CALL("\"hold\""));
    for (int i = 0; i < 2; i++)
        say(fd, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hold\"}\n");
    assert_int_equal(held_count, 3);
    /* One answer goes beyond the limit: whoever reads gets it. */
    rpc_reply_json(held[2], much, strlen(much), NULL, 0);
    assert_int_equal(rpc_server_connections(server), 1);
    rpc_request_on_cancel(held[0], on_gone, held);
    rpc_request_on_cancel(held[1], on_gone, NULL);
    rpc_reply_json(held[0], much, strlen(much), NULL, 0);
    assert_int_equal(rpc_server_connections(server), 0);
    assert_int_equal(gone_count, 1); /* the other's */
    assert_int_equal(rpc_server_in_flight(server), 1);
    held[0] = held[1];
    held_count = 1;
    release_held();
    assert_int_equal(rpc_server_in_flight(server), 0);
    close(fd);
}

/* Descriptors whose message never ends are held only so long as they are few. */
static void descriptors_do_not_wait_in_great_number(void **state)
{
    enum { CONNECTIONS = 20 };
    int fds[CONNECTIONS], gift[RPC_FDS_MAX];

    serve();
    for (size_t i = 0; i < RPC_FDS_MAX; i++)
        gift[i] = STDIN_FILENO;
    for (size_t i = 0; i < CONNECTIONS; i++) {
        fds[i] = connect_one();
        for (int n = 0; n < 3; n++) {
            socket_send(fds[i], " ", 1, gift, RPC_FDS_MAX); /* or it has been ended */
            turn(2);
        }
    }
    assert_in_range(rpc_server_connections(server), 1, 12);
    for (size_t i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
    turn(3);
    int fd = connect_one();
    say(fd, CALL("\"rpc.ping\""));
    assert_non_null(strstr(hear(fd), "\"result\""));
    close(fd);
}

static size_t drained_count, closed_count;

static void on_drained(struct rpc_connection_watch *watch)
{
    drained_count++;
}

static void on_closed(struct rpc_connection_watch *watch)
{
    closed_count++;
}

static struct rpc_connection *last_opened;

static void on_opened(struct rpc_connection *connection, void *context)
{
    last_opened = connection;
}

static void notifications_stop_for_a_slow_reader(void **state)
{
    struct rpc_connection_watch watch = {.drained = on_drained, .closed = on_closed};
    struct rpc_progress progress = {.id = (char *)"1"};
    size_t sent = 0, lines = 0;

    drained_count = closed_count = 0;
    options.opened = on_opened;
    serve();
    int fd = connect_one(), r;
    rpc_connection_watch(last_opened, &watch);
    while ((r = rpc_connection_notify(last_opened, "note", &rpc_progress_type, &progress)) == 0)
        sent++;
    assert_int_equal(r, -ENOBUFS);
    assert_true(rpc_connection_queued(last_opened) < 2 * RPC_NOTIFY_PAUSE);
    turn(3);
    assert_int_equal(drained_count, 0);
    while (lines < sent) {
        const char *heard = hear(fd);
        for (size_t i = 0; i < heard_length; i++)
            lines += heard[i] == '\n';
    }
    turn(3);
    assert_int_equal(drained_count, 1);
    assert_int_equal(rpc_connection_queued(last_opened), 0);
    close(fd);
    turn(3);
    assert_int_equal(closed_count, 1);
    rpc_connection_unwatch(&watch); /* nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        wire_test(parameters_by_position),
        wire_test(ids_come_back_as_they_were),
        wire_test(a_deadline_is_answered_once),
        wire_test(a_deadline_that_is_met_is_nothing),
        wire_test(a_cancelled_call_is_answered_once),
        wire_test(a_call_of_a_batch_can_be_cancelled),
        wire_test(a_cancelled_call_and_a_client_that_goes),
        wire_test(progress_is_told_to_who_asked),
        wire_test(stats_and_discovery),
        wire_test(calls_have_to_be_allowed),
        wire_test(limits_are_told_and_kept),
        wire_test(a_user_gets_so_much_memory),
        wire_test(an_answer_that_ends_its_connection),
        wire_test(descriptors_do_not_wait_in_great_number),
        wire_test(notifications_stop_for_a_slow_reader),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
