/* Topics and their subscribers: what they are told, in which order, and what becomes of those who
 * do not listen. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <rpc/subscription.h>
#include <schema/management.h>

static struct rpc_loop *loop;
static struct rpc_server *server;
static struct rpc_topic *topic;
static char *socket_path;

/* ---- a server with a topic ---- */

/* Odd ones are asked for by this action. */
static bool matches(const void *filter, const void *event)
{
    const struct api_event_filters *filters = filter;

    return strv_contains(filters->action, ((const struct api_event *)event)->action);
}

static void on_subscribe(struct rpc_request *request, const void *params, void *context)
{
    const struct api_events_subscribe *what = params;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_subscribed done;
    struct rpc_subscribe how = {
        .since = what->since,
        .has_since = what->has_since,
        .boot = what->boot,
        .since_time = what->since_time,
        .has_since_time = what->has_since_time,
    };

    if (what->filters) {
        struct api_event_filters *filters = xnew(struct api_event_filters);
        filters->action = strv_copy(what->filters->action);
        filters->action_count = what->filters->action_count;
        how.filter = filters;
    }
    if (rpc_subscribe(topic, request, &how, &done, &err) < 0) {
        rpc_fail_errno(request, &err);
        return;
    }
    struct api_events_subscribed subscribed = {.subscription = done.id,
                                               .boot = (char *)(uintptr_t)rpc_topic_boot(topic),
                                               .next = done.next,
                                               .oldest = done.oldest};
    rpc_reply(request, &subscribed, NULL, 0);
}

static void on_unsubscribe(struct rpc_request *request, const void *params, void *context)
{
    const struct api_events_unsubscribe *which = params;
    struct api_events_unsubscribed done = {0};
    _cleanup_error_ struct error err = ERROR_INIT;

    if (rpc_unsubscribe(topic, rpc_request_connection(request), which->subscription, &done.next,
                        &err) < 0)
        rpc_fail_errno(request, &err);
    else
        rpc_reply(request, &done, NULL, 0);
}

static const struct json_method subscribe_type = {.name = "events.subscribe",
                                                  .params = &api_events_subscribe_type,
                                                  .result = &api_events_subscribed_type};
static const struct json_method unsubscribe_type = {.name = "events.unsubscribe",
                                                    .params = &api_events_unsubscribe_type,
                                                    .result = &api_events_unsubscribed_type};
static const struct rpc_method methods[] = {{&subscribe_type, on_subscribe},
                                            {&unsubscribe_type, on_unsubscribe}};

static void make_topic(size_t events, size_t bytes)
{
    struct rpc_topic_options options = {
        .event_method = "events.event",
        .lost_method = "events.lost",
        .event_type = &api_event_type,
        .filter_type = &api_event_filters_type,
        .matches = matches,
        .events_max = events,
        .bytes_max = bytes,
        .subscriptions_max = 3,
    };

    rpc_topic_destroy(topic);
    rpc_topic_create(loop, &options, &topic);
}

static void make_server(int fd, const struct rpc_limits *limits)
{
    struct rpc_server_options options = {0};

    if (limits)
        options.limits = *limits;
    assert_int_equal(rpc_server_create(loop, &options, &server, NULL), 0);
    assert_int_equal(rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), NULL), 0);
    assert_int_equal(rpc_server_listen(server, fd, NULL, NULL), 0);
}

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
    static char folder[64];

    strcpy(folder, "/tmp/cloche-test-topic-XXXXXX");
    assert_non_null(mkdtemp(folder));
    socket_path = xasprintf("%s/sock", folder);
    assert_int_equal(rpc_loop_create(&loop, NULL), 0);
    fds_before = open_fds();
    int fd = socket_listen_unix(socket_path, SOCK_STREAM, 0600, NULL);
    assert_true(fd >= 0);
    make_server(fd, NULL);
    make_topic(0, 0);
    return 0;
}

static int tear_down(void **state)
{
    rpc_topic_destroy(steal_ptr(topic));
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

/* The event says its own number, and is so many bytes long. */
static void publish(size_t size)
{
    struct api_event *event = xnew(struct api_event);
    uint64_t number = rpc_topic_next(topic);
    _cleanup_free_ char *padding = xcalloc(size + 1, 1);

    memset(padding, 'x', size);
    event->time = (int64_t)number * 1000;
    event->type = xstrdup("container");
    event->action = xstrdup(number % 2 ? "odd" : "even");
    event->id = xasprintf("%ju", (uintmax_t)number);
    json_string_map_set(&event->attributes, "padding", padding);
    assert_int_equal(rpc_topic_publish(topic, event, event->time), number);
}

static void publish_many(unsigned count, size_t size)
{
    while (count--)
        publish(size);
}

/* ---- clients ---- */

struct client {
    int fd;
    struct buffer in;
    char *line;
};

static void client_open(struct client *client)
{
    int small = 4096;

    *client =
        (struct client){.fd = socket_connect_unix(socket_path, SOCK_STREAM | SOCK_NONBLOCK, NULL)};
    assert_true(client->fd >= 0);
    setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
}

static void client_close(struct client *client)
{
    close_fd(client->fd);
    buffer_finish(&client->in);
    free(client->line);
    *client = (struct client){.fd = -1};
}

static void turn(int times)
{
    while (times--)
        rpc_loop_run_once(loop, 0);
}

static void say(struct client *client, const char *format, ...) _printf_(2, 3);
static void say(struct client *client, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *text = xvasprintf(format, args);
    va_end(args);
    assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(3);
}

static void read_some(struct client *client, size_t limit)
{
    char data[65536];
    ssize_t n = recv(client->fd, data, limit < sizeof(data) ? limit : sizeof(data), MSG_DONTWAIT);

    if (n > 0)
        buffer_append(&client->in, data, (size_t)n);
}

/* The next line, if it is there; valid until the next call. */
static const char *next_line(struct client *client)
{
    char *end = client->in.length ? memchr(client->in.data, '\n', client->in.length) : NULL;

    if (!end)
        return NULL;
    free(client->line);
    client->line = xstrndup(client->in.data, (size_t)(end - client->in.data));
    buffer_consume(&client->in, (size_t)(end - client->in.data) + 1);
    return client->line;
}

static const char *hear(struct client *client)
{
    for (int i = 0; i < 50; i++) {
        const char *line = next_line(client);
        if (line)
            return line;
        turn(1);
        read_some(client, 65536);
    }
    return "";
}

static uint64_t number_of(const char *line, const char *member)
{
    _cleanup_free_ char *key = xasprintf("\"%s\":", member);
    const char *at = strstr(line, key);

    if (!at)
        fail_msg("no %s in %s", member, line);
    return strtoull(at + strlen(key), NULL, 10);
}

static bool is_event(const char *line)
{
    return strstr(line, "\"method\":\"events.event\"") != NULL;
}

static bool is_lost(const char *line)
{
    return strstr(line, "\"method\":\"events.lost\"") != NULL;
}

#define assert_contains(line, text)                                                                \
    do {                                                                                           \
        const char *heard_ = (line);                                                               \
        if (!strstr(heard_, text))                                                                 \
            fail_msg("'%s' is not in '%s'", text, heard_);                                         \
    } while (0)

#define SUBSCRIBE(params)                                                                          \
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.subscribe\",\"params\":" params "}\n"

static void assert_event(struct client *client, uint64_t sequence)
{
    const char *line = hear(client);

    if (!is_event(line))
        fail_msg("not an event: %s", line);
    assert_int_equal(number_of(line, "sequence"), sequence);
}

/* ---- tests ---- */

static void answer_replay_and_live_come_in_this_order(void **state)
{
    struct client client;

    client_open(&client);
    publish_many(5, 10);
    say(&client, SUBSCRIBE("{\"since\":3}"));
    publish_many(2, 10);
    const char *answer = hear(&client);
    assert_contains(answer, "\"result\"");
    assert_int_equal(number_of(answer, "subscription"), 1);
    assert_int_equal(number_of(answer, "next"), 6);
    assert_int_equal(number_of(answer, "oldest"), 1);
    assert_contains(answer, rpc_topic_boot(topic));
    for (uint64_t i = 3; i <= 7; i++)
        assert_event(&client, i);
    publish(10);
    assert_event(&client, 8);
    assert_string_equal(hear(&client), "");
    client_close(&client);
}

static void without_a_number_only_what_comes_is_told(void **state)
{
    struct client client;

    client_open(&client);
    publish_many(5, 10);
    say(&client, SUBSCRIBE("{}"));
    assert_contains(hear(&client), "\"next\":6");
    publish(10);
    assert_event(&client, 6);
    client_close(&client);
}

static void a_time_is_found_among_what_is_kept(void **state)
{
    struct client client;

    client_open(&client);
    publish_many(5, 10);
    say(&client, SUBSCRIBE("{\"sinceTime\":3500}"));
    assert_contains(hear(&client), "\"result\"");
    assert_event(&client, 4);
    assert_event(&client, 5);
    client_close(&client);
}

/* How many of that time there were nobody knows. */
static void a_time_that_is_not_kept_is_told_as_lost(void **state)
{
    struct client client;

    make_topic(4, 0);
    client_open(&client);
    publish_many(10, 10);
    say(&client, SUBSCRIBE("{\"sinceTime\":3500}"));
    assert_contains(hear(&client), "\"result\"");
    const char *lost = hear(&client);
    assert_true(is_lost(lost));
    assert_int_equal(number_of(lost, "from"), 7);
    assert_int_equal(number_of(lost, "count"), 0);
    assert_contains(lost, "\"reason\":\"gone\"");
    for (uint64_t i = 7; i <= 10; i++)
        assert_event(&client, i);
    say(&client, SUBSCRIBE("{\"sinceTime\":6500}")); /* all of that time are there */
    assert_contains(hear(&client), "\"result\"");
    assert_event(&client, 7);
    client_close(&client);
}

/* What connections hold is bounded by user, and filters can be long. */
static void filters_count_for_their_user(void **state)
{
    static const struct rpc_limits limits = {.peer_bytes = 16000};
    _cleanup_buffer_ struct buffer words = BUFFER_INIT;
    struct client client;

    rpc_server_destroy(server);
    unlink(socket_path);
    make_server(socket_listen_unix(socket_path, SOCK_STREAM, 0600, NULL), &limits);
    for (int i = 0; i < 64; i++)
        buffer_printf(&words, "%s\"%060d\"", i ? "," : "", i);
    client_open(&client);
    for (int i = 0; i < 2; i++) {
        say(&client, SUBSCRIBE("{\"filters\":{\"action\":[%s]}}"), buffer_text(&words));
        assert_contains(hear(&client), i ? "\"code\":-12," : "\"result\"");
    }
    say(&client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.unsubscribe\","
                 "\"params\":{\"subscription\":1}}\n");
    assert_contains(hear(&client), "\"result\"");
    say(&client, SUBSCRIBE("{\"filters\":{\"action\":[%s]}}"), buffer_text(&words));
    assert_contains(hear(&client), "\"result\"");
    client_close(&client);
}

static void filters_choose_and_numbers_stay(void **state)
{
    struct client client;

    client_open(&client);
    publish_many(4, 10);
    say(&client, SUBSCRIBE("{\"since\":0,\"filters\":{\"action\":[\"odd\"]}}"));
    assert_contains(hear(&client), "\"result\"");
    assert_event(&client, 1);
    assert_event(&client, 3);
    publish_many(2, 10);
    assert_event(&client, 5);
    assert_string_equal(hear(&client), "");
    client_close(&client);
}

static void what_is_not_kept_is_told_as_lost(void **state)
{
    struct client client;

    make_topic(4, 0);
    client_open(&client);
    publish_many(10, 10);
    say(&client, SUBSCRIBE("{\"since\":2}"));
    assert_contains(hear(&client), "\"oldest\":7");
    const char *lost = hear(&client);
    assert_true(is_lost(lost));
    assert_int_equal(number_of(lost, "from"), 2);
    assert_int_equal(number_of(lost, "count"), 5);
    assert_contains(lost, "\"reason\":\"gone\"");
    for (uint64_t i = 7; i <= 10; i++)
        assert_event(&client, i);
    say(&client, SUBSCRIBE("{\"since\":0}"));
    assert_contains(hear(&client), "\"result\"");
    assert_event(&client, 7); /* 0 asks for what there is, and misses nothing */
    client_close(&client);
}

static void numbers_of_another_boot_are_told_as_lost(void **state)
{
    struct client client;

    client_open(&client);
    publish_many(3, 10);
    say(&client, SUBSCRIBE("{\"since\":2,\"boot\":\"of-yesterday\"}"));
    assert_contains(hear(&client), "\"result\"");
    const char *lost = hear(&client);
    assert_true(is_lost(lost));
    assert_contains(lost, "\"reason\":\"restarted\"");
    assert_int_equal(number_of(lost, "from"), 1);
    assert_int_equal(number_of(lost, "count"), 0);
    for (uint64_t i = 1; i <= 3; i++)
        assert_event(&client, i);
    client_close(&client);
    client_open(&client);
    say(&client, SUBSCRIBE("{\"since\":400}")); /* no boot, and a number that was never given */
    assert_contains(hear(&client), "\"result\"");
    assert_contains(hear(&client), "\"reason\":\"restarted\"");
    client_close(&client);
}

static void subscriptions_of_a_connection_are_apart_and_limited(void **state)
{
    struct client client;

    client_open(&client);
    say(&client, SUBSCRIBE("{}"));
    assert_int_equal(number_of(hear(&client), "subscription"), 1);
    say(&client, SUBSCRIBE("{\"filters\":{\"action\":[\"even\"]}}"));
    assert_int_equal(number_of(hear(&client), "subscription"), 2);
    publish_many(2, 10);
    unsigned heard[3] = {0};
    for (int i = 0; i < 3; i++)
        heard[number_of(hear(&client), "subscription")]++;
    assert_int_equal(heard[1], 2);
    assert_int_equal(heard[2], 1);
    say(&client, SUBSCRIBE("{}"));
    assert_int_equal(number_of(hear(&client), "subscription"), 3);
    say(&client, SUBSCRIBE("{}"));
    assert_contains(hear(&client), "\"code\":-12");
    say(&client, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"events.unsubscribe\",\"params\":{"
                 "\"subscription\":1}}\n");
    assert_int_equal(number_of(hear(&client), "next"), 3);
    say(&client, SUBSCRIBE("{}"));
    assert_int_equal(number_of(hear(&client), "subscription"), 4); /* no number twice */
    assert_int_equal(rpc_topic_subscriptions(topic), 3);
    client_close(&client);
    turn(3);
    assert_int_equal(rpc_topic_subscriptions(topic), 0);
}

static void nothing_comes_behind_the_end_of_a_subscription(void **state)
{
    struct client client;

    client_open(&client);
    say(&client, SUBSCRIBE("{}"));
    assert_contains(hear(&client), "\"result\"");
    publish(10);
    /* In one round with the event. */
    say(&client, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"events.unsubscribe\",\"params\":{"
                 "\"subscription\":1}}\n");
    publish(10);
    uint64_t seen = 0;
    const char *line = hear(&client);
    for (; is_event(line); line = hear(&client))
        seen = number_of(line, "sequence");
    assert_int_equal(number_of(line, "next"), seen + 1);
    assert_string_equal(hear(&client), "");
    say(&client, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"events.unsubscribe\",\"params\":{"
                 "\"subscription\":1}}\n");
    assert_contains(hear(&client), "\"code\":-1,");
    client_close(&client);
}

/* Its answer would come behind that of the slowest call of the batch. */
static void a_batch_cannot_subscribe(void **state)
{
    struct client client;

    client_open(&client);
    say(&client, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.subscribe\"}]\n");
    assert_contains(hear(&client), "\"code\":-2");
    say(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"events.subscribe\"}\n");
    publish(10);
    assert_string_equal(hear(&client), "");
    client_close(&client);
}

static void the_ring_keeps_to_its_bytes(void **state)
{
    make_topic(1000, 100 * 1000);
    publish_many(500, 1000);
    assert_true(rpc_topic_bytes(topic) <= 100 * 1000);
    assert_true(rpc_topic_next(topic) - rpc_topic_oldest(topic) > 30);
    publish(300 * 1000); /* larger than all of it: the last one is kept */
    assert_int_equal(rpc_topic_next(topic) - rpc_topic_oldest(topic), 1);
    publish(10);
    assert_int_equal(rpc_topic_next(topic) - rpc_topic_oldest(topic), 1);
    assert_true(rpc_topic_bytes(topic) <= 100 * 1000);
}

/* AddressSanitizer keeps what was freed. */
static size_t resident(void)
{
#ifdef __SANITIZE_ADDRESS__
    return 0;
#endif
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long total, pages = 0;

    assert_int_equal(fscanf(file, "%lu %lu", &total, &pages), 2);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Eight clients that never read, one that does: it hears everything, and the memory does not grow
 * with what the others have not read. */
static void slow_readers_cost_nobody_anything(void **state)
{
    enum { SLOW = 8, EVENTS = 40000, SIZE = 1000 };
    struct client slow[SLOW], quick;
    uint64_t expected = 1;

    make_topic(256, 0);
    for (int i = 0; i < SLOW; i++) {
        client_open(&slow[i]);
        say(&slow[i], SUBSCRIBE("{}"));
    }
    client_open(&quick);
    say(&quick, SUBSCRIBE("{}"));
    assert_contains(hear(&quick), "\"result\"");
    size_t before = 0;
    for (unsigned i = 0; i < EVENTS; i++) {
        publish(SIZE);
        turn(1);
        read_some(&quick, 65536);
        for (const char *line = next_line(&quick); line; line = next_line(&quick))
            assert_int_equal(number_of(line, "sequence"), expected++);
        if (i == EVENTS / 4)
            before = resident();
    }
    for (int i = 0; i < 20; i++) {
        turn(1);
        read_some(&quick, 65536);
        for (const char *line = next_line(&quick); line; line = next_line(&quick))
            assert_int_equal(number_of(line, "sequence"), expected++);
    }
    assert_int_equal(expected, EVENTS + 1);
    size_t after = resident();
    if (after > before + (4 << 20))
        fail_msg("memory grew from %zu to %zu", before, after);
    /* A slow one that wakes up gets what was on its way, then how many it has lost, then the rest.
     */
    uint64_t next = 0, lost = 0;
    assert_contains(hear(&slow[0]), "\"result\"");
    for (const char *line = hear(&slow[0]); line[0]; line = hear(&slow[0])) {
        if (is_lost(line)) {
            assert_contains(line, "\"reason\":\"slow\"");
            assert_int_equal(number_of(line, "from"), next);
            lost += number_of(line, "count");
            next += number_of(line, "count");
            continue;
        }
        assert_true(next == 0 || number_of(line, "sequence") == next);
        next = number_of(line, "sequence") + 1;
    }
    assert_int_equal(next, EVENTS + 1);
    assert_true(lost > EVENTS / 2);
    for (int i = 0; i < SLOW; i++)
        client_close(&slow[i]);
    client_close(&quick);
}

/* ---- the property ---- */

struct reader {
    struct client client;
    bool open, subscribed, filtered;
    uint64_t next; /* every number before it has been accounted for */
    uint64_t heard, lost, replays;
};

/* What a filter leaves out is not asked for: no word of it comes. */
static void pass_unasked(struct reader *reader, uint64_t number)
{
    if (reader->filtered && number == reader->next + 1 && reader->next % 2 == 0)
        reader->next++;
}

static void reader_take(struct reader *reader, const char *line)
{
    if (!reader->subscribed) {
        assert_contains(line, "\"result\""); /* before anything else */
        reader->subscribed = true;
    } else if (is_lost(line)) {
        pass_unasked(reader, number_of(line, "from"));
        assert_int_equal(number_of(line, "from"), reader->next);
        assert_true(number_of(line, "count") > 0);
        reader->next += number_of(line, "count");
        reader->lost += number_of(line, "count");
    } else {
        _cleanup_free_ char *id = NULL;
        uint64_t sequence = number_of(line, "sequence");
        assert_true(is_event(line));
        pass_unasked(reader, sequence);
        if (sequence != reader->next)
            fail_msg("%ju comes where %ju is expected", (uintmax_t)sequence,
                     (uintmax_t)reader->next);
        id = xasprintf("\"id\":\"%ju\"", (uintmax_t)sequence);
        assert_contains(line, id);
        assert_true(!reader->filtered || sequence % 2);
        reader->next++;
        reader->heard++;
    }
}

static void reader_connect(struct reader *reader)
{
    client_open(&reader->client);
    reader->open = true;
    reader->subscribed = false;
    reader->replays++;
    say(&reader->client,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.subscribe\",\"params\":{\"since\":%ju,"
        "\"boot\":\"%s\"%s}}\n",
        (uintmax_t)reader->next, rpc_topic_boot(topic),
        reader->filtered ? ",\"filters\":{\"action\":[\"odd\"]}" : "");
}

static void reader_step(struct reader *reader, int patience)
{
    if (!reader->open) {
        if (rand() % 8 == 0)
            reader_connect(reader);
        return;
    }
    if (rand() % 400 == 0) { /* in the middle of a line, too */
        client_close(&reader->client);
        reader->open = false;
        return;
    }
    if (rand() % patience == 0)
        read_some(&reader->client, (size_t)(1 + rand() % 65536));
    for (const char *line = next_line(&reader->client); line; line = next_line(&reader->client))
        reader_take(reader, line);
}

/* Whatever the readers do, every number is told to each of them once: as an event or as lost. */
static void every_number_is_told_once(void **state)
{
    enum { READERS = 6, STEPS = 12000 };
    struct reader readers[READERS] = {0};
    const char *given = getenv("CLOCHE_TEST_SEED");
    unsigned seed = given ? (unsigned)atoi(given) : (unsigned)getpid();
    uint64_t lost = 0, heard = 0;

    print_message("CLOCHE_TEST_SEED=%u\n", seed);
    srand(seed);
    make_topic(100, 150 * 1000);
    for (int i = 0; i < READERS; i++) {
        readers[i].next = 1;
        readers[i].filtered = i % 3 == 2;
    }
    for (int step = 0; step < STEPS; step++) {
        for (int i = rand() % 4; i > 0; i--)
            publish((size_t)(rand() % 3000));
        turn(rand() % 3);
        for (int i = 0; i < READERS; i++)
            reader_step(&readers[i], 1 + i * i * 4);
    }
    for (int i = 0; i < READERS; i++) {
        struct reader *reader = &readers[i];
        if (!reader->open)
            reader_connect(reader);
        for (const char *line = hear(&reader->client); line[0]; line = hear(&reader->client))
            reader_take(reader, line);
        if (reader->filtered && reader->next < rpc_topic_next(topic))
            reader->next++; /* the last one was not asked for */
        assert_int_equal(reader->next, rpc_topic_next(topic));
        assert_true(reader->replays > 1);
        lost += reader->lost;
        heard += reader->heard;
        client_close(&reader->client);
    }
    assert_true(lost > 0 && heard > 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(answer_replay_and_live_come_in_this_order),
        TEST(without_a_number_only_what_comes_is_told),
        TEST(a_time_is_found_among_what_is_kept),
        TEST(a_time_that_is_not_kept_is_told_as_lost),
        TEST(filters_count_for_their_user),
        TEST(filters_choose_and_numbers_stay),
        TEST(what_is_not_kept_is_told_as_lost),
        TEST(numbers_of_another_boot_are_told_as_lost),
        TEST(subscriptions_of_a_connection_are_apart_and_limited),
        TEST(nothing_comes_behind_the_end_of_a_subscription),
        TEST(a_batch_cannot_subscribe),
        TEST(the_ring_keeps_to_its_bytes),
        TEST(slow_readers_cost_nobody_anything),
        TEST(every_number_is_told_once),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("subscription", tests, NULL, NULL);
}
