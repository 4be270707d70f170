/* Clients that mean ill, and handlers that do what handlers should not have to think about. */
#include <fcntl.h>
#include <stdio.h>

#include <cloche/rpc.h>
#include <schema/management.h>
#include <schema/rpc.h>

#include "rpc_talk.h"

static struct rpc_request *held[256];
static size_t held_count, gone_count;
static struct rpc_connection *last_opened;
static struct rpc_server_options options;

/* ---- methods ---- */

static void on_gone(struct rpc_request *request, void *data)
{
    gone_count++;
}

static void on_hold(struct rpc_request *request, const void *params, void *context)
{
    held[held_count++] = request;
    rpc_request_on_cancel(request, on_gone, NULL);
}

/* Answers the call that has waited longest, and waits itself. */
static void on_put(struct rpc_request *request, const void *params, void *context)
{
    struct rpc_request *other = held[0];

    memmove(held, held + 1, --held_count * sizeof(*held));
    rpc_reply(other, NULL, NULL, 0);
    held[held_count++] = request;
}

/* So many bytes of it. */
static void reply_long(struct rpc_request *request, size_t length)
{
    _cleanup_free_ char *text = xmalloc(length + 1);

    memset(text, 'x', length);
    text[0] = text[length - 1] = '"';
    text[length] = '\0';
    rpc_reply_json(request, text, length, NULL, 0);
}

static size_t long_length;

static void on_long(struct rpc_request *request, const void *params, void *context)
{
    reply_long(request, long_length);
}

static void on_gift(struct rpc_request *request, const void *params, void *context)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    rpc_reply(request, NULL, &fd, 1);
}

static const struct json_method types[] = {
    {.name = "hold", .params = &api_container_list_type, .result = &api_empty_type},
    {.name = "put", .params = &api_empty_type, .result = &api_empty_type},
    {.name = "long", .params = &api_empty_type, .result = &api_empty_type},
    {.name = "gift", .params = &api_empty_type, .result = &api_empty_type, .result_fds = 1},
};

static const struct rpc_method methods[] = {
    {&types[0], on_hold}, {&types[1], on_put}, {&types[2], on_long}, {&types[3], on_gift}};

static void on_opened(struct rpc_connection *connection, void *context)
{
    last_opened = connection;
}

static int set_up(void **state)
{
    held_count = gone_count = 0;
    options = (struct rpc_server_options){.opened = on_opened};
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
    rpc_server_destroy(steal_ptr(server));
    release_held();
    rpc_loop_run_once(loop, 0);
    rpc_loop_destroy(loop);
    return 0;
}

static size_t count_of(const char *text, const char *word)
{
    size_t count = 0;

    for (; (text = strstr(text, word)); text++)
        count++;
    return count;
}

/* ---- handlers in each other ---- */

/* An answer makes room for the next call of its connection, whose handler runs inside of the one
 * that answered. */
static void a_deadline_holds_when_handlers_nest(void **state)
{
    options.limits.in_flight = 1;
    serve();
    int takes = connect_one(), puts = connect_one();

    say_at_once(takes, CALL("\"hold\"") CALL("\"hold\""), 2 * strlen(CALL("\"hold\"")));
    assert_int_equal(held_count, 1);
    say(puts, CALL("\"put\",\"timeoutMs\":20"));
    assert_int_equal(held_count, 2); /* the second take, and put itself */
    wait_a_while();
    assert_non_null(strstr(hear(puts), "\"code\":-10,"));
    assert_null(strstr(hear(takes), "\"code\":-10,")); /* which has none */
    close(takes);
    close(puts);
    turn(3);
}

/* The last answer of a batch ends the connection, while the call is still its. */
static void a_call_is_counted_once_when_its_batch_ends_the_connection(void **state)
{
    serve();
    int fd = connect_one(), other = connect_one();

    say(fd, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}]\n");
    assert_int_equal(held_count, 1);
    close(fd); /* which the loop has not seen yet */
    release_held();
    assert_int_equal(rpc_server_connections(server), 1);
    assert_int_equal(gone_count, 0);
    say(other, CALL("\"rpc.stats\""));
    const char *stats = strstr(hear(other), "\"method\":\"hold\"");
    assert_non_null(stats);
    assert_memory_equal(strstr(stats, "\"answered\":"), "\"answered\":1", 12);
    assert_memory_equal(strstr(stats, "\"lost\":"), "\"lost\":0", 8);
    close(other);
    turn(3);
}

/* ---- answers ---- */

static void a_long_answer_reaches_who_reads_it(void **state)
{
    options.limits.output = 65536;
    serve();
    int fd = connect_one();

    long_length = 3 << 20;
    say(fd, CALL("\"long\""));
    _cleanup_free_ char *answer = hear_all(fd);
    assert_int_equal(strlen(answer), long_length + strlen(CALL("")) - strlen("\"method\":") +
                                         strlen("\"result\":"));
    say(fd, CALL("\"rpc.ping\""));
    assert_non_null(strstr(hear(fd), "\"result\""));
    close(fd);
    turn(3);
}

static void an_answer_that_no_client_takes_is_an_error(void **state)
{
    serve();
    int fd = connect_one();

    long_length = RPC_ANSWER_MAX;
    say(fd, CALL("\"rpc.ping\"") CALL("\"long\""));
    _cleanup_free_ char *answer = hear_all(fd);
    assert_non_null(strstr(answer, "\"result\":{}"));
    assert_non_null(strstr(answer, "\"code\":-12,\"message\":\"the answer is too long\""));
    assert_true(strlen(answer) < 1000);
    say(fd, CALL("\"rpc.ping\""));
    assert_non_null(strstr(hear(fd), "\"result\""));
    close(fd);
    turn(3);
}

/* What a batch holds until its last call is answered is bounded; what is too much is refused. */
static void batches_hold_no_more_than_the_limit(void **state)
{
    options.limits.output = 100000;
    serve();
    int fd = connect_one();

    long_length = 40000;
    for (int i = 0; i < 3; i++)
        say(fd, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"},"
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"long\"}]\n");
    assert_int_equal(held_count, 3);
    release_held();
    _cleanup_free_ char *answers = hear_all(fd);
    assert_int_equal(count_of(answers, "\"id\":2,\"result\""), 2);
    assert_int_equal(count_of(answers, "\"id\":1,\"result\""), 3);
    assert_int_equal(count_of(answers, "outside of a batch"), 1);
    close(fd);
    turn(3);
}

static void answers_to_nothing_are_dropped(void **state)
{
    static const char with_fd[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"fds\":1}\n";

    serve();
    int fd = connect_one(), word = dup(STDIN_FILENO);

    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1,\"message\":\"\"}}\n");
    say(fd, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}]\n");
    assert_int_equal(socket_send(fd, with_fd, strlen(with_fd), &word, 1), strlen(with_fd));
    close(word);
    assert_string_equal(hear(fd), "");
    say(fd, CALL("\"rpc.stats\""));
    assert_non_null(strstr(hear(fd), "\"malformed\":4"));
    close(fd);
    turn(3);
}

/* ---- what clients may hold ---- */

static size_t open_fds(void)
{
    size_t count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void unread_descriptors_are_few(void **state)
{
    serve();
    int fd = connect_one(), room = 1;
    size_t before = open_fds();

    setsockopt(rpc_connection_fd(last_opened), SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));

    for (int i = 0; i < 200; i++)
        say_at_once(fd, CALL("\"gift\""), strlen(CALL("\"gift\"")));
    /* Those in the socket are not ours any more. */
    assert_true(open_fds() < before + 100);
    _cleanup_free_ char *answers = hear_all(fd);
    assert_int_equal(count_of(answers, "\"result\""), 200);
    turn(3);
    assert_int_equal(open_fds(), before);
    close(fd);
    turn(3);
}

static void a_small_output_pauses_before_it_ends(void **state)
{
    size_t sent = 0;
    int r;

    options.limits.output = 65536;
    serve();
    int fd = connect_one();
    while ((r = rpc_connection_notify_json(last_opened, "note", "{\"a\":\"0123456789\"}")) == 0)
        sent++;
    assert_int_equal(r, -ENOBUFS);
    assert_int_equal(rpc_server_connections(server), 1);
    _cleanup_free_ char *notes = hear_all(fd);
    assert_int_equal(count_of(notes, "\"note\""), sent);
    close(fd);
    turn(3);
}

/* A message that never becomes whole has not much time, when descriptors wait with it; and one
 * client's do not count for others. */
static void waiting_descriptors_are_counted_by_peer(void **state)
{
    enum { CONNECTIONS = 8 };
    int fds[CONNECTIONS], gift[RPC_FDS_MAX];

    serve();
    for (size_t i = 0; i < RPC_FDS_MAX; i++)
        gift[i] = STDIN_FILENO;
    for (size_t i = 0; i < CONNECTIONS; i++) {
        fds[i] = connect_one();
        for (int n = 0; n < 2; n++) {
            socket_send(fds[i], " ", 1, gift, RPC_FDS_MAX); /* or it has been ended */
            turn(2);
        }
    }
    assert_in_range(rpc_server_connections(server), 1, 4);
    for (size_t i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
    turn(3);
}

static void batches_count_for_their_user(void **state)
{
    options.limits.peer_bytes = 100000;
    serve();
    int one = connect_one(), two = connect_one();
    static const char batch[] = "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"},"
                                "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"long\"}]\n";

    long_length = 60000;
    say_at_once(one, batch, strlen(batch));
    assert_int_equal(rpc_server_connections(server), 2);
    say_at_once(two, batch, strlen(batch));
    assert_int_equal(rpc_server_connections(server), 1);
    close(one);
    close(two);
    turn(3);
}

/* Also of clients that have gone, as long as their calls have not. */
static void calls_that_stay_count_for_their_user(void **state)
{
    _cleanup_free_ char *call = xasprintf(CALL("\"hold\",\"params\":{%2000s}"), "");

    options.limits.peer_bytes = 100000;
    serve();
    for (int i = 0; i < 20; i++) {
        int fd = connect_one();
        say_at_once(fd, call, strlen(call));
        close(fd);
        turn(3);
    }
    assert_in_range(held_count, 2, 6);
    assert_int_equal(rpc_server_connections(server), 0);
    int fd = connect_one();
    say_at_once(fd, CALL("\"put\""), strlen(CALL("\"put\"")));
    assert_non_null(strstr(hear(fd), "\"code\":-12,"));
    say_at_once(fd, CALL("\"rpc.ping\""), strlen(CALL("\"rpc.ping\"")));
    assert_non_null(strstr(hear(fd), "\"result\""));
    release_held(); /* that makes room */
    say(fd, CALL("\"long\""));
    assert_non_null(strstr(hear(fd), "\"result\""));
    close(fd);
    turn(3);
}

/* ---- CBOR ---- */

static void names_in_cbor_are_text(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        /* {"id": 1, "method": "rpc.ping\0"}, then with a byte that is not UTF-8 */
        {"\0\0\0\x17\xa2\x62id\x01\x66method\x69rpc.ping\0", 26},
        {"\0\0\0\x17\xa2\x62id\x01\x66method\x69rpc.ping\xff", 26},
        /* {"id": "a\0", "method": "rpc.ping"}, {"id": "a\xff", ...} */
        {"\0\0\0\x19\xa2\x62id\x63"
         "aa\0\x66method\x68rpc.ping",
         28},
        {"\0\0\0\x19\xa2\x62id\x63"
         "aa\xff\x66method\x68rpc.ping",
         28},
    };
    serve();
    int fd = connect_one();

    say(fd, CALL("\"rpc.hello\",\"params\":[[\"cbor\"]]"));
    hear(fd);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_free_ char *bytes = xmalloc(cases[i].length);
        memcpy(bytes, cases[i].bytes, cases[i].length);
        bytes[3] = (char)(cases[i].length - 4);
        say_bytes(fd, bytes, cases[i].length);
        const char *answer = hear_cbor(fd);
        if (!strstr(answer, "-32600"))
            fail_msg("%zu -> %s", i, answer);
    }
    say_cbor(fd, "{\"id\":1,\"method\":\"rpc.ping\"}");
    assert_string_equal(hear_cbor(fd), "{\"id\":1,\"result\":{}}");
    close(fd);
    turn(3);
}

/* ---- a program's callbacks that end what they are called for ---- */

static struct cloche_rpc_server *outer;
static size_t authorised;

static bool destroy_in_authorise(struct cloche_rpc_connection *connection, const char *method,
                                 void *context)
{
    authorised++;
    cloche_rpc_server_destroy(steal_ptr(outer));
    return context == NULL;
}

static bool close_in_authorise(struct cloche_rpc_connection *connection, const char *method,
                               void *context)
{
    authorised++;
    cloche_rpc_connection_close(connection);
    return context == NULL;
}

static void destroy_in_opened(struct cloche_rpc_connection *connection, void *context)
{
    authorised++;
    cloche_rpc_server_destroy(steal_ptr(outer));
}

static void on_named(struct cloche_rpc_request *request, void *context)
{
    int64_t a = -1, b = -1;
    int found = cloche_rpc_integer(request, "a", &a), other = cloche_rpc_integer(request, "b", &b);

    cloche_rpc_reply_format(request, "[%d,%d,%d,%d]", found, other, (int)a, (int)b);
}

static void make_outer(struct cloche_rpc_settings *settings, const char *const *params)
{
    const struct cloche_rpc_method method = {
        .size = sizeof(method), .name = "named", .params = params, .handler = on_named};

    settings->size = sizeof(*settings);
    assert_int_equal(cloche_rpc_server_create((struct cloche_rpc_loop *)loop, settings, &outer), 0);
    assert_int_equal(cloche_rpc_server_add(outer, &method), 0);
}

static int connect_outer(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(cloche_rpc_server_adopt(outer, fds[0]), 0);
    return fds[1];
}

static void a_connection_or_server_that_ends_in_authorise(void **state)
{
    static bool (*const ends[])(struct cloche_rpc_connection *, const char *,
                                void *) = {destroy_in_authorise, close_in_authorise};

    for (size_t i = 0; i < 4; i++) {
        struct cloche_rpc_settings settings = {.authorise = ends[i / 2],
                                               .context = i % 2 ? loop : NULL};
        make_outer(&settings, NULL);
        int fd = connect_outer();
        authorised = 0;
        say_at_once(fd, CALL("\"rpc.ping\"") CALL("\"named\"") CALL("\"named\""),
                    strlen(CALL("\"rpc.ping\"") CALL("\"named\"") CALL("\"named\"")));
        assert_true(has_ended(fd));
        assert_int_equal(authorised, 1);
        close(fd);
        cloche_rpc_server_destroy(steal_ptr(outer));
    }
}

static void a_server_that_ends_when_somebody_comes(void **state)
{
    struct cloche_rpc_settings settings = {.opened = destroy_in_opened};
    _cleanup_free_ char *path = xasprintf("/tmp/cloche-test-hostile-%d", (int)getpid());

    authorised = 0;
    make_outer(&settings, NULL);
    assert_int_equal(cloche_rpc_server_listen(outer, path, 0600), 0);
    int one = socket_connect_unix(path, SOCK_STREAM, NULL);
    int two = socket_connect_unix(path, SOCK_STREAM, NULL);
    assert_true(one >= 0 && two >= 0);
    assert_true(has_ended(one));
    assert_true(has_ended(two));
    assert_int_equal(authorised, 1);
    close(one);
    close(two);
    unlink(path);
}

static void parameters_without_places_are_not_found_by_position(void **state)
{
    static const char *const names[] = {"b", "a", NULL};
    struct cloche_rpc_settings settings = {0};
    int fd;

    make_outer(&settings, NULL);
    fd = connect_outer();
    say(fd, CALL("\"named\",\"params\":[7,8]"));
    assert_non_null(strstr(hear(fd), "\"result\":[-2,-2,-1,-1]"));
    say(fd, CALL("\"named\",\"params\":{\"a\":7,\"b\":8}"));
    assert_non_null(strstr(hear(fd), "\"result\":[0,0,7,8]"));
    close(fd);
    cloche_rpc_server_destroy(steal_ptr(outer));
    make_outer(&settings, names);
    fd = connect_outer();
    say(fd, CALL("\"named\",\"params\":[7,8]"));
    assert_non_null(strstr(hear(fd), "\"result\":[0,0,8,7]"));
    close(fd);
    cloche_rpc_server_destroy(steal_ptr(outer));
}

/* ---- the loop ---- */

struct again {
    struct rpc_task task;
    size_t times;
};

static void on_again(struct rpc_task *task)
{
    struct again *again = (struct again *)task;

    if (++again->times < 1000)
        rpc_loop_queue_later(loop, task);
}

/* As a client's that reads as fast as is written to it. */
static void a_task_that_comes_back_leaves_room_for_others(void **state)
{
    struct again again = {.task.callback = on_again};

    rpc_loop_queue_later(loop, &again.task);
    turn(5);
    assert_in_range(again.times, 1, 100);
    while (again.times < 1000)
        turn(1);
}

#define hostile_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        hostile_test(a_deadline_holds_when_handlers_nest),
        hostile_test(a_call_is_counted_once_when_its_batch_ends_the_connection),
        hostile_test(a_long_answer_reaches_who_reads_it),
        hostile_test(an_answer_that_no_client_takes_is_an_error),
        hostile_test(batches_hold_no_more_than_the_limit),
        hostile_test(answers_to_nothing_are_dropped),
        hostile_test(unread_descriptors_are_few),
        hostile_test(a_small_output_pauses_before_it_ends),
        hostile_test(waiting_descriptors_are_counted_by_peer),
        hostile_test(batches_count_for_their_user),
        hostile_test(calls_that_stay_count_for_their_user),
        hostile_test(names_in_cbor_are_text),
        hostile_test(a_connection_or_server_that_ends_in_authorise),
        hostile_test(a_server_that_ends_when_somebody_comes),
        hostile_test(parameters_without_places_are_not_found_by_position),
        hostile_test(a_task_that_comes_back_leaves_room_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
