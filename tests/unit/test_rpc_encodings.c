/* Both encodings, spoken byte by byte and by the channel. */
#include "rpc_wired.h"

/* ---- CBOR ---- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        wire_test(cbor_says_the_same),  wire_test(malformed_cbor),
        wire_test(hello_comes_alone),   wire_test(channels_speak_json),
        wire_test(channels_speak_cbor), wire_test(channels_stay_with_json),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
