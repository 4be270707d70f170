/* What travels: positional parameters, deadlines, cancellation, progress, both encodings, limits
 * and the methods of the protocol itself, spoken byte by byte. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/cbor.h>
#include <schema/management.h>
#include <schema/rpc.h>

static struct rpc_loop *loop;
static struct rpc_server *server;
static struct rpc_request *held[16];
static size_t held_count, gone_count;
static int reason; /* enum rpc_wanted, of the last that was told */
static int denied_code;

/* ---- methods ---- */

static void on_echo(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_stop *how = params;
    struct api_container_created result = {.id = how->container};
    char *warnings[] = {xasprintf("%d", how->has_timeout ? (int)how->timeout : -1), NULL};

    result.warnings = warnings;
    result.warnings_count = 1;
    rpc_reply(request, &result, NULL, 0);
    free(warnings[0]);
}

static void on_gone(struct rpc_request *request, void *data)
{
    gone_count++;
    reason = (int)rpc_request_wanted(request);
    if (data)
        rpc_reply(request, NULL, NULL, 0);
}

static void on_hold(struct rpc_request *request, const void *params, void *context)
{
    held[held_count++] = request;
    rpc_request_on_cancel(request, on_gone, NULL);
}

static void on_step(struct rpc_request *request, const void *params, void *context)
{
    rpc_request_progress(request, 1, 3, "steps", "the first");
    rpc_request_progress(request, 2, 0, NULL, NULL);
    rpc_reply(request, NULL, NULL, 0);
}

static void on_pass(struct rpc_request *request, const void *params, void *context)
{
    int fd = rpc_request_take_fd(request, 0);

    rpc_reply(request, NULL, &fd, 1);
}

static const struct json_method types[] = {
    {.name = "echo", .params = &api_container_stop_type, .result = &api_container_created_type},
    {.name = "hold", .params = &api_empty_type, .result = &api_empty_type},
    {.name = "step", .params = &api_empty_type, .result = &api_empty_type},
    {.name = "pass",
     .params = &api_empty_type,
     .result = &api_empty_type,
     .param_fds = 1,
     .result_fds = 1},
};

static const struct rpc_method methods[] = {
    {&types[0], on_echo},
    {&types[1], on_hold},
    {&types[2], on_step},
    {&types[3], on_pass},
};

static int authorise(struct rpc_connection *connection, const struct json_method *method,
                     void *context, struct error *err)
{
    assert_int_equal(rpc_connection_peer(connection)->uid, getuid());
    return denied_code ? error_set(err, denied_code, "not for you") : 0;
}

static struct rpc_server_options options;

static int set_up(void **state)
{
    held_count = gone_count = 0;
    denied_code = 0;
    options = (struct rpc_server_options){.document = "{\"openrpc\":\"1.3.2\",\"methods\":[]}",
                                          .authorise = authorise};
    assert_int_equal(rpc_loop_create(&loop, NULL), 0);
    return 0;
}

static void serve(void)
{
    assert_int_equal(rpc_server_create(loop, &options, &server, NULL), 0);
    assert_int_equal(rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), NULL), 0);
}

static void release_held(void)
{
    while (held_count)
        rpc_reply(held[--held_count], NULL, NULL, 0);
}

static int tear_down(void **state)
{
    rpc_server_destroy(server);
    release_held();
    rpc_loop_run_once(loop, 0);
    rpc_loop_destroy(loop);
    return 0;
}

static void turn(int times)
{
    while (times--)
        rpc_loop_run_once(loop, 0);
}

static int connect_one(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(rpc_server_adopt(server, fds[0], NULL, NULL), 0);
    return fds[1];
}

static void say_bytes(int fd, const void *data, size_t length)
{
    const char *at = data;

    for (size_t i = 0; i < length; i++) {
        assert_int_equal(send(fd, at + i, 1, MSG_NOSIGNAL), 1);
        turn(1);
    }
    turn(3);
}

static void say(int fd, const char *text)
{
    say_bytes(fd, text, strlen(text));
}

static size_t heard_length;

/* Everything the server has sent so far. */
static const char *hear(int fd)
{
    static char data[1 << 16];

    turn(3);
    ssize_t n = recv(fd, data, sizeof(data) - 1, MSG_DONTWAIT);
    heard_length = n > 0 ? (size_t)n : 0;
    data[heard_length] = '\0';
    return data;
}

static void wait_a_while(void)
{
    uint64_t end = rpc_loop_update_now(loop) + 60 * 1000000;

    while (rpc_loop_update_now(loop) < end)
        rpc_loop_run_once(loop, 10);
}

#define CALL(rest) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":" rest "}\n"

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

/* ---- CBOR ---- */

static void say_cbor(int fd, const char *json)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    buffer_append(&out, "\0\0\0", 4);
    assert_int_equal(cbor_from_json(json, strlen(json), &out, NULL), 0);
    size_t length = out.length - 4;
    out.data[2] = (char)(length >> 8);
    out.data[3] = (char)length;
    say_bytes(fd, out.data, out.length);
}

static const char *hear_cbor(int fd)
{
    static struct buffer out;
    const char *data = hear(fd);

    buffer_clear(&out);
    for (size_t at = 0; at < heard_length;) {
        size_t length = (size_t)(unsigned char)data[at + 2] << 8 | (unsigned char)data[at + 3];
        assert_int_equal(data[at], 0);
        assert_true(at + 4 + length <= heard_length);
        assert_int_equal(cbor_to_json(data + at + 4, length, &out, NULL), 0);
        at += 4 + length;
    }
    static char kept[1 << 14];
    snprintf(kept, sizeof(kept), "%s", buffer_text(&out));
    buffer_finish(&out);
    return kept;
}

static void cbor_says_the_same(void **state)
{
    static const struct {
        const char *message, *answer;
    } cases[] = {
        {"{\"id\":5,\"method\":\"echo\",\"params\":{\"container\":\"\xc3\xa4\"}}",
         "{\"id\":5,\"result\":{\"id\":\"\xc3\xa4\",\"warnings\":[\"-1\"]}}"},
        {"{\"jsonrpc\":\"2.0\",\"id\":\"s\",\"method\":\"echo\",\"params\":[\"a\",7]}",
         "{\"id\":\"s\",\"result\":{\"id\":\"a\",\"warnings\":[\"7\"]}}"},
        {"{\"id\":null,\"method\":\"rpc.ping\"}", "{\"id\":null,\"result\":{}}"},
        {"{\"id\":1.5,\"method\":\"rpc.ping\",\"params\":[]}", "{\"id\":1.5,\"result\":{}}"},
        {"{\"method\":\"rpc.ping\"}", ""},
        {"{\"id\":-3,\"method\":\"none\"}",
         "{\"id\":-3,\"error\":{\"code\":-32601,\"message\":\"there is no method 'none'\","
         "\"data\":{\"what\":\"methodNotFound\",\"where\":\"none\"}}}"},
        {"[{\"id\":1,\"method\":\"rpc.ping\"},{\"method\":\"rpc.ping\"},7,{\"id\":2,\"method\":"
         "\"rpc.ping\"}]",
         "[{\"id\":1,\"result\":{}},{\"id\":null,\"error\":{\"code\":-32600,\"message\":\"a "
         "message is a map\",\"data\":{\"what\":\"invalidRequest\"}}},{\"id\":2,\"result\":{}}]"},
        {"[]", "{\"id\":null,\"error\":{\"code\":-32600,\"message\":\"a batch without calls\","
               "\"data\":{\"what\":\"invalidRequest\"}}}"},
        {"{\"id\":true,\"method\":\"rpc.ping\"}",
         "{\"id\":null,\"error\":{\"code\":-32600,\"message\":\"\\\"id\\\" is neither a text "
         "(UTF-8) nor a number\",\"data\":{\"what\":\"invalidRequest\",\"where\":\"rpc.ping\"}}}"},
        {"{\"id\":1,\"method\":\"step\",\"progress\":true}",
         "{\"method\":\"rpc.progress\",\"params\":{\"id\":1,\"done\":1,\"total\":3,\"unit\":"
         "\"steps\",\"text\":\"the first\"}}{\"method\":\"rpc.progress\",\"params\":{\"id\":1,"
         "\"done\":2}}{\"id\":1,\"result\":{}}"},
    };
    serve();
    int fd = connect_one();

    say(fd, CALL("\"rpc.hello\",\"params\":{\"encodings\":[\"best\",\"cbor\",\"json\"]}"));
    assert_non_null(strstr(hear(fd), "\"result\":{\"encoding\":\"cbor\","));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        say_cbor(fd, cases[i].message);
        assert_string_equal(hear_cbor(fd), cases[i].answer);
    }
    say_cbor(fd, "{\"id\":\"x\",\"method\":\"hold\"}");
    say_cbor(fd, "{\"id\":1,\"method\":\"rpc.cancel\",\"params\":{\"id\":\"x\"}}");
    assert_non_null(strstr(hear_cbor(fd), "{\"id\":1,\"result\":{\"cancelled\":true}}"));
    say_cbor(fd, "{\"id\":1,\"method\":\"rpc.hello\"}");
    assert_non_null(strstr(hear_cbor(fd), "-2")); /* the handler of x goes on */
    release_held();
    say_cbor(fd, "{\"id\":1,\"method\":\"rpc.hello\"}");
    assert_non_null(strstr(hear_cbor(fd), "\"encoding\":\"json\""));
    say(fd, CALL("\"rpc.ping\""));
    assert_string_equal(hear(fd), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    close(fd);
}

static void malformed_cbor(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *code;
    } cases[] = {
        {"\0\0\0\1\xff", 5, "-32700"},     {"\0\0\0\1\xa1", 5, "-32700"},
        {"\0\0\0\2\xf6\xf6", 6, "-32700"}, {"\0\0\0\1\xa0", 5, "-32600"},
        {"\0\0\0\1\xf6", 5, "-32600"},     {"\0\0\0\3\xa1\x01\x01", 7, "-32700"},
        {"\0\0\0\1\x9f", 5, "-32700"},     {"\0\0\0\2\x9f\xff", 6, "-32600"},
    };
    serve();
    int fd = connect_one();

    say(fd, CALL("\"rpc.hello\",\"params\":[[\"cbor\"]]"));
    hear(fd);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        say_bytes(fd, cases[i].bytes, cases[i].length);
        const char *answer = hear_cbor(fd);
        if (!strstr(answer, cases[i].code))
            fail_msg("%zu -> %s", i, answer);
    }
    say_bytes(fd, "\0\0\0\0\0\0\0\0", 8); /* nothing, twice */
    say_cbor(fd, "{\"id\":1,\"method\":\"rpc.ping\"}");
    assert_string_equal(hear_cbor(fd), "{\"id\":1,\"result\":{}}");
    say_bytes(fd, "\x7f\xff\xff\xff", 4);
    assert_non_null(strstr(hear_cbor(fd), "too long"));
    assert_int_equal(recv(fd, (char[1]){0}, 1, MSG_DONTWAIT), 0);
    close(fd);
}

static void hello_comes_alone(void **state)
{
    serve();
    int fd = connect_one();

    say(fd, "["
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.hello\",\"params\":[[\"cbor\"]]}"
            "]\n");
    assert_non_null(strstr(hear(fd), "\"code\":-2,"));
    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"hold\"}\n");
    say(fd, CALL("\"rpc.hello\",\"params\":[[\"cbor\"]]"));
    assert_non_null(strstr(hear(fd), "\"code\":-2,"));
    release_held();
    assert_non_null(strstr(hear(fd), "\"id\":7,\"result\""));
    close(fd);
}

/* ---- the channel ---- */

struct seen {
    int times, code, fault, steps;
    char *id;
};

static void on_done(void *data, const struct rpc_outcome *outcome)
{
    struct seen *seen = data;
    const struct api_container_created *created = outcome->result;

    seen->times++;
    seen->code = outcome->code;
    seen->fault = outcome->fault;
    if (created && created->id)
        seen->id = xstrdup(created->id);
    json_free(&api_container_created_type, outcome->result);
}

static void on_done_empty(void *data, const struct rpc_outcome *outcome)
{
    struct seen *seen = data;

    seen->times++;
    seen->code = outcome->code;
    seen->fault = outcome->fault;
    seen->steps += (int)outcome->fds_count * 100;
    json_free(&api_empty_type, outcome->result);
}

static void on_progress(void *data, const struct rpc_progress *progress)
{
    struct seen *seen = data;

    seen->steps += (int)progress->done;
}

static struct rpc_channel *open_channel(const char *encoding)
{
    struct rpc_channel *channel;

    assert_int_equal(rpc_channel_open(loop, connect_one(), NULL, &channel, NULL), 0);
    if (encoding)
        assert_int_equal(rpc_channel_negotiate(channel, encoding, 0), 0);
    return channel;
}

static void use_channel(const char *encoding)
{
    struct rpc_channel *channel = open_channel(encoding);
    struct api_container_stop stop = {.container = (char *)"shop"};
    struct seen echo = {0}, step = {0}, pass = {0}, late = {0}, ended = {0};
    int fd = dup(STDIN_FILENO);

    rpc_channel_call(
        channel,
        &(struct rpc_call){.method = &types[0], .params = &stop, .done = on_done, .data = &echo});
    rpc_channel_call(channel, &(struct rpc_call){.method = &types[2],
                                                 .done = on_done_empty,
                                                 .progress = on_progress,
                                                 .data = &step});
    rpc_channel_call(
        channel,
        &(struct rpc_call){
            .method = &types[3], .fds = &fd, .fds_count = 1, .done = on_done_empty, .data = &pass});
    close(fd);
    rpc_channel_call(
        channel, &(struct rpc_call){
                     .method = &types[1], .timeout_ms = 20, .done = on_done_empty, .data = &late});
    int64_t number = rpc_channel_call(
        channel, &(struct rpc_call){.method = &types[1], .done = on_done_empty, .data = &ended});
    turn(20);
    assert_int_equal(echo.code, 0);
    assert_string_equal(echo.id, "shop");
    free(echo.id);
    assert_int_equal(step.times, 1);
    assert_int_equal(step.steps, 3);
    assert_int_equal(pass.code, 0);
    assert_int_equal(pass.steps, 100);
    assert_int_equal(held_count, 2);
    assert_true(rpc_channel_cancel(channel, number));
    wait_a_while();
    assert_int_equal(ended.times, 1);
    assert_int_equal(ended.code, -ECANCELED);
    assert_int_equal(late.times, 1);
    assert_int_equal(late.code, -ETIMEDOUT);
    assert_int_equal(gone_count, 2); /* the server knows of both */
    assert_string_equal(rpc_channel_encoding(channel), encoding ? encoding : "json");
    rpc_channel_close(channel);
    release_held();
}

static void channels_speak_json(void **state)
{
    serve();
    use_channel(NULL);
}

static void channels_speak_cbor(void **state)
{
    serve();
    use_channel("cbor");
    struct rpc_channel *channel = open_channel(NULL);
    struct seen seen = {0};
    rpc_channel_call(channel,
                     &(struct rpc_call){.method = &types[2], .done = on_done_empty, .data = &seen});
    assert_int_equal(rpc_channel_negotiate(channel, "cbor", 0), -EBUSY);
    assert_int_equal(rpc_channel_negotiate(channel, "xml", 0), -EINVAL);
    rpc_channel_close(channel);
    assert_int_equal(seen.code, -ECANCELED);
    channel = open_channel("cbor"); /* closed before the answer: what is held is let go */
    int fd = dup(STDIN_FILENO);
    rpc_channel_call(
        channel,
        &(struct rpc_call){
            .method = &types[3], .fds = &fd, .fds_count = 1, .done = on_done_empty, .data = &seen});
    close(fd);
    rpc_channel_close(channel);
    assert_int_equal(seen.times, 2);
}

/* A server that has never heard of it. */
static void channels_stay_with_json(void **state)
{
    struct rpc_channel *channel;
    struct seen seen = {0};
    char line[512];
    int fds[2];

    serve();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(rpc_channel_open(loop, fds[0], NULL, &channel, NULL), 0);
    assert_int_equal(rpc_channel_negotiate(channel, "cbor", 0), 0);
    rpc_channel_call(channel,
                     &(struct rpc_call){.method = &types[2], .done = on_done_empty, .data = &seen});
    turn(3);
    ssize_t n = recv(fds[1], line, sizeof(line) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    line[n] = '\0';
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    static const char no[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601,\"message\":"
                             "\"what?\"}}\n{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n";
    assert_int_equal(send(fds[1], no, strlen(no), 0), strlen(no));
    turn(5);
    n = recv(fds[1], line, sizeof(line) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    line[n] = '\0';
    assert_string_equal(line, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"step\"}\n");
    assert_int_equal(seen.times, 1);
    assert_int_equal(seen.code, 0);
    rpc_channel_close(channel);
    close(fds[1]);
}

#define wire_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

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
        wire_test(cbor_says_the_same),
        wire_test(malformed_cbor),
        wire_test(hello_comes_alone),
        wire_test(channels_speak_json),
        wire_test(channels_speak_cbor),
        wire_test(channels_stay_with_json),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
