/* The server on a loop of its own, spoken to through raw sockets and through the client. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/channel.h>
#include <rpc/client.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/management.h>

/* ---- a server with methods that show what it can do ---- */

static struct rpc_loop *loop;
static struct rpc_server *server;
static char *socket_path;
static struct rpc_request *held[256];
static size_t held_count, gone_count, called_count;
static uid_t last_uid;

static void on_echo(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_ref *ref = params;
    struct api_container_created result = {.id = ref->container};

    called_count++;
    last_uid = rpc_request_uid(request);
    rpc_reply(request, &result, NULL, 0);
}

static void on_fail(struct rpc_request *request, const void *params, void *context)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EBUSY, "it is in use");
    error_hint(&err, "try later");
    rpc_fail(request, RPC_CONFLICT, &err);
}

static void on_gone(struct rpc_request *request, void *data)
{
    gone_count++;
    assert_ptr_equal(data, &gone_count);
}

static void on_hold(struct rpc_request *request, const void *params, void *context)
{
    held[held_count++] = request;
    rpc_request_on_cancel(request, on_gone, &gone_count);
}

/* Answers with the read end of a pipe that holds the word it was sent in a descriptor. */
static void on_pipe(struct rpc_request *request, const void *params, void *context)
{
    char word[64];
    int pipe_fds[2], fd = rpc_request_take_fd(request, 0);

    assert_int_equal(rpc_request_fds_count(request), 1);
    assert_int_equal(rpc_request_take_fd(request, 0), -1);
    assert_int_equal(rpc_request_take_fd(request, 1), -1);
    ssize_t n = read(fd, word, sizeof(word));
    close(fd);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(write(pipe_fds[1], word, (size_t)n), n);
    close(pipe_fds[1]);
    rpc_reply(request, NULL, &pipe_fds[0], 1);
}

/* Twice half a megabyte. */
static void on_large(struct rpc_request *request, const void *params, void *context)
{
    char *text = xmalloc(1 << 20);
    struct api_container_created result = {.id = text};

    memset(text, 'x', (1 << 20) - 1);
    text[(1 << 20) - 1] = '\0';
    rpc_reply(request, &result, NULL, 0);
    free(text);
}

static const struct json_method echo_type = {
    .name = "echo", .params = &api_container_ref_type, .result = &api_container_created_type};
static const struct json_method fail_type = {
    .name = "fail", .params = &api_empty_type, .result = &api_empty_type};
static const struct json_method hold_type = {
    .name = "hold", .params = &api_empty_type, .result = &api_empty_type, .is_long = true};
static const struct json_method pipe_type = {.name = "pipe",
                                             .params = &api_empty_type,
                                             .result = &api_empty_type,
                                             .param_fds = 1,
                                             .result_fds = 1};
static const struct json_method large_type = {
    .name = "large", .params = &api_empty_type, .result = &api_container_created_type};

static const struct rpc_method methods[] = {
    {&echo_type, on_echo}, {&fail_type, on_fail},   {&hold_type, on_hold},
    {&pipe_type, on_pipe}, {&large_type, on_large},
};

static size_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static size_t fds_before;

static int set_up(void **state)
{
    static char folder[] = "/tmp/cloche-test-rpc-XXXXXX";

    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    socket_path = xasprintf("%s/sock", folder);
    held_count = gone_count = called_count = 0;
    assert_int_equal(rpc_loop_create(&loop, NULL), 0);
    fds_before = open_fds();
    int fd = socket_listen_unix(socket_path, SOCK_STREAM, 0600, NULL);
    assert_true(fd >= 0);
    assert_int_equal(rpc_server_create(loop, NULL, &server, NULL), 0);
    assert_int_equal(rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), NULL), 0);
    assert_int_equal(rpc_server_listen(server, fd, NULL, NULL), 0);
    return 0;
}

/* Every test ends without a descriptor too many and with nothing on the loop. */
static int tear_down(void **state)
{
    rpc_server_destroy(server);
    rpc_loop_run_once(loop, 0);
    assert_int_equal(open_fds(), fds_before);
    rpc_loop_destroy(loop);
    unlink(socket_path);
    *strrchr(socket_path, '/') = '\0';
    rmdir(socket_path);
    free(steal_ptr(socket_path));
    return 0;
}

/* ---- raw clients ---- */

static int connect_raw(void)
{
    int fd = socket_connect_unix(socket_path, SOCK_STREAM | SOCK_NONBLOCK, NULL);

    assert_true(fd >= 0);
    return fd;
}

static void turn(int times)
{
    while (times--)
        rpc_loop_run_once(loop, 0);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(5);
}

/* Everything the server has sent so far. */
static const char *hear(int fd)
{
    static struct buffer heard;
    char data[4096];
    ssize_t n;

    buffer_clear(&heard);
    for (int quiet = 0; quiet < 3;) {
        turn(2);
        n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n > 0)
            buffer_append(&heard, data, (size_t)n);
        else
            quiet++;
    }
    static char *kept;
    free(kept);
    kept = buffer_steal(&heard);
    return kept;
}

static bool is_closed(int fd)
{
    char byte;

    turn(5);
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0 ||
           (errno != EAGAIN && errno != EWOULDBLOCK);
}

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

static int word_pipe(const char *word)
{
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(write(fds[1], word, strlen(word)), strlen(word));
    close(fds[1]);
    return fds[0];
}

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

#define server_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

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
        server_test(timers_come_in_their_order),
        server_test(any_loop_can_poll_a_loop),
    };

    alarm(60); /* a server that does not answer is a failure, not a wait */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
