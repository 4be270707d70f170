/* One asynchronous connection, and the loop under it, against a peer that is written by hand. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/socket.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <rpc/server.h>

static struct rpc_loop *loop;
static struct rpc_channel *channel;
static int peer; /* the other end of the connection */
static struct {
    int times, code;
} ended;
static int ready_times, room_times;

static const struct json_method plain = {.name = "plain"};
static const struct json_method secret = {.name = "secret"};

static void on_ended(void *data, const struct error *why)
{
    ended.times++;
    ended.code = why->code;
}

static void on_ready(void *data)
{
    ready_times++;
}

static void on_room(void *data)
{
    room_times++;
}

static int set_up(void **state)
{
    const struct rpc_channel_events events = {
        .ended = on_ended, .ready = on_ready, .has_room = on_room};
    int fds[2], size = 4096;

    memset(&ended, 0, sizeof(ended));
    ready_times = room_times = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    assert_int_equal(rpc_loop_create(&loop, NULL), 0);
    assert_int_equal(rpc_channel_open(loop, fds[0], &events, &channel, NULL), 0);
    peer = fds[1];
    return 0;
}

static int tear_down(void **state)
{
    rpc_channel_close(channel);
    rpc_loop_destroy(loop);
    close(peer);
    return 0;
}

/* ---- both sides ---- */

struct seen {
    int times, code, fault;
    bool answered, unsent;
};

static void on_done(void *data, const struct rpc_outcome *outcome)
{
    struct seen *seen = data;

    seen->times++;
    seen->code = outcome->code;
    seen->fault = outcome->fault;
    seen->answered = outcome->answered;
    seen->unsent = outcome->unsent;
}

static int64_t begin(const struct json_method *method, uint64_t timeout_ms, struct seen *seen)
{
    return rpc_channel_call(
        channel, &(struct rpc_call){
                     .method = method, .timeout_ms = timeout_ms, .done = on_done, .data = seen});
}

static void run(void)
{
    for (int i = 0; i < 4; i++)
        rpc_loop_run_once(loop, 0);
}

static void run_until_ended(const struct seen *seen)
{
    for (int i = 0; i < 2000 && !seen->times; i++)
        rpc_loop_run_once(loop, 10);
    assert_int_equal(seen->times, 1);
}

static void answer(const char *text)
{
    assert_int_equal(send(peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    run();
}

/* What there is to be read, and what follows it, up to nothing. */
static void read_all(struct buffer *ret)
{
    ssize_t n = 1;

    while (n > 0) {
        run();
        buffer_reserve(ret, 65536);
        n = recv(peer, ret->data + ret->length, 65536, MSG_DONTWAIT);
        ret->length += n > 0 ? (size_t)n : 0;
        ret->data[ret->length] = '\0';
    }
}

static void notify(const char *text, size_t length)
{
    assert_int_equal(
        rpc_channel_call(channel,
                         &(struct rpc_call){.method = &plain, .text = text, .text_length = length}),
        0);
}

/* So much that some of it waits here. */
static void fill_the_socket(void)
{
    static char text[20000];

    memset(text, ' ', sizeof(text));
    text[0] = '[';
    text[sizeof(text) - 1] = ']';
    while (rpc_channel_counts(channel).bytes_queued < sizeof(text)) {
        notify(text, sizeof(text));
        run();
    }
}

static long resident_kb(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long all = 0, resident = 0;

    assert_int_equal(fscanf(file, "%ld %ld", &all, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- out ---- */

static void a_queue_that_is_never_empty_gives_memory_back(void **state)
{
    static char text[20000], taken[20000];
    uint64_t passed = 0;

    memset(text, ' ', sizeof(text));
    text[0] = '[';
    text[sizeof(text) - 1] = ']';
    fill_the_socket();
    long before = resident_kb();
    while (passed < 256 << 20) {
        if (rpc_channel_counts(channel).bytes_queued < 200000)
            notify(text, sizeof(text));
        run();
        ssize_t n = recv(peer, taken, sizeof(taken), MSG_DONTWAIT);
        passed += n > 0 ? (uint64_t)n : 0;
        assert_true(rpc_channel_counts(channel).bytes_queued > 0);
    }
    assert_true(resident_kb() - before < 64 * 1024);
}

static size_t count_of(const struct buffer *text, const char *word)
{
    size_t count = 0;

    for (const char *at = buffer_text(text); (at = strstr(at, word)); at++)
        count++;
    return count;
}

static void what_is_too_late_is_not_sent(void **state)
{
    _cleanup_buffer_ struct buffer sent = BUFFER_INIT;
    static struct seen late[3] = {{0}}, cancelled = {0}, kept[2] = {{0}};

    fill_the_socket();
    assert_true(begin(&secret, 20, &late[0]) > 0);
    assert_true(begin(&plain, 0, &kept[0]) > 0);
    int64_t number = begin(&secret, 0, &cancelled);
    assert_true(begin(&secret, 10, &late[1]) > 0);
    notify("[1]", 3);
    assert_true(begin(&plain, 0, &kept[1]) > 0);
    assert_true(begin(&secret, 15, &late[2]) > 0);
    assert_true(rpc_channel_is_unsent(channel, number));
    assert_true(rpc_channel_cancel(channel, number));
    for (int i = 0; i < 3; i++) {
        run_until_ended(&late[i]);
        assert_int_equal(late[i].code, -ETIMEDOUT);
        assert_true(late[i].unsent);
    }
    read_all(&sent);
    assert_int_equal(count_of(&sent, "secret"), 0);
    assert_int_equal(count_of(&sent, "rpc.cancel"), 0);
    assert_int_equal(count_of(&sent, "\"id\""), 2); /* those that were kept, whole */
    assert_int_equal(count_of(&sent, "[1]"), 1);
    assert_int_equal(rpc_channel_owed(channel), 0);
    assert_int_equal(rpc_channel_counts(channel).bytes_queued, 0);
}

static void descriptors_of_what_is_not_sent_are_closed(void **state)
{
    static struct seen late = {0};
    int fds[2];
    char c;

    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    fill_the_socket();
    assert_true(rpc_channel_call(channel, &(struct rpc_call){.method = &secret,
                                                             .timeout_ms = 10,
                                                             .fds = &fds[1],
                                                             .fds_count = 1,
                                                             .done = on_done,
                                                             .data = &late}) > 0);
    close(fds[1]);
    assert_int_equal(read(fds[0], &c, 1), -1); /* somebody could still write */
    run_until_ended(&late);
    assert_int_equal(read(fds[0], &c, 1), 0); /* nobody can */
    close(fds[0]);
}

/* Who was told that it is too late does not hear of it again, and the server is counted on. */
static void answers_that_are_owed_are_counted(void **state)
{
    _cleanup_buffer_ struct buffer sent = BUFFER_INIT;
    static struct seen late = {0}, cancelled = {0};

    assert_true(begin(&plain, 10, &late) == 1);
    int64_t number = begin(&plain, 0, &cancelled);
    run();
    assert_true(rpc_channel_cancel(channel, number));
    assert_false(cancelled.unsent);
    run_until_ended(&late);
    assert_false(late.unsent);
    assert_int_equal(rpc_channel_owed(channel), 2);
    answer("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    assert_int_equal(rpc_channel_owed(channel), 1);
    answer("{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-11,\"message\":\"cancelled\"}}\n");
    answer("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n"); /* once more than is owed */
    assert_int_equal(rpc_channel_owed(channel), 0);
    assert_int_equal(room_times, 2);
    assert_int_equal(rpc_channel_counts(channel).late, 3);
    read_all(&sent);
    assert_int_equal(count_of(&sent, "rpc.cancel"), 1);
}

/* ---- descriptors ---- */

enum { INNOCENT = 65534 };

/* Puts so many on their way that there may be no more: the limit is that of open files, of the user
 * (unix(7), ETOOMANYREFS). */
static int fill_with_descriptors(int hog)
{
    const struct rlimit few = {.rlim_cur = 32, .rlim_max = 32};
    int fds[SOCKET_FDS_MAX];

    for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
        fds[i] = STDERR_FILENO;
    if (setrlimit(RLIMIT_NOFILE, &few) < 0 || (geteuid() == 0 && seteuid(INNOCENT) < 0))
        return -1;
    for (int i = 0; i < 1000; i++) {
        ssize_t n = socket_send(hog, "x", 1, fds, SOCKET_FDS_MAX);
        if (n < 0)
            return (int)n;
    }
    return 0;
}

/* In a process of its own, since it gives up what it may. 0: all is well. */
static int call_with_too_many_on_their_way(void)
{
    struct seen refused = {0}, other = {0};
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return 2;
    int r = fill_with_descriptors(fds[0]);
    if (r != -ETOOMANYREFS)
        return r == 0 ? 77 : 3;
    rpc_channel_call(
        channel,
        &(struct rpc_call){
            .method = &secret, .fds = &fds[0], .fds_count = 1, .done = on_done, .data = &refused});
    if (begin(&plain, 0, &other) <= 0)
        return 4;
    run();
    if (refused.times != 1 || refused.code != -ETOOMANYREFS || !refused.unsent)
        return 5;
    return rpc_channel_is_open(channel) && other.times == 0 ? 0 : 6;
}

static void too_many_descriptors_on_their_way_end_only_their_call(void **state)
{
    _cleanup_buffer_ struct buffer sent = BUFFER_INIT;
    int status;

    pid_t child = fork();
    if (child == 0)
        _exit(call_with_too_many_on_their_way());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip(); /* this kernel takes as many as one likes */
    assert_int_equal(WEXITSTATUS(status), 0);
    read_all(&sent);
    assert_int_equal(count_of(&sent, "secret"), 0);
    assert_int_equal(count_of(&sent, "plain"), 1);
}

/* ---- errors ---- */

static void an_error_that_names_no_call_is_that_of_the_only_one(void **state)
{
    static struct seen only = {0}, next = {0};

    assert_true(begin(&plain, 0, &only) > 0);
    answer("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-12,\"message\":\"too long\"}}\n");
    assert_int_equal(only.times, 1);
    assert_int_equal(only.fault, RPC_TOO_MANY);
    assert_true(rpc_channel_is_open(channel));
    assert_true(begin(&plain, 0, &next) == 2);
    answer("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n");
    assert_int_equal(next.code, 0);
}

static void an_error_that_names_no_call_ends_all_that_were_sent(void **state)
{
    static struct seen sent[2] = {{0}}, unsent = {0};

    for (int i = 0; i < 2; i++)
        assert_true(begin(&plain, 0, &sent[i]) > 0);
    fill_the_socket();
    assert_true(begin(&plain, 0, &unsent) > 0);
    answer("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-12,\"message\":\"too long\"}}\n");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sent[i].times, 1);
        assert_int_equal(sent[i].fault, RPC_TOO_MANY);
    }
    assert_int_equal(unsent.times, 1);
    assert_int_equal(unsent.fault, 0);
    assert_true(unsent.unsent);
    assert_int_equal(ended.times, 1);
    assert_int_equal(ended.code, -ENOBUFS);
    assert_int_equal(rpc_channel_ended(channel), -ENOBUFS);
}

static void an_error_answer_always_has_a_code(void **state)
{
    static struct seen zero = {0}, none = {0};

    assert_true(begin(&plain, 0, &zero) == 1);
    assert_true(begin(&plain, 0, &none) == 2);
    answer("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":0,\"message\":\"nothing\"}}\n");
    assert_int_equal(zero.fault, RPC_INTERNAL_ERROR);
    assert_true(zero.answered);
    answer("{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":\"x\"}}\n");
    assert_int_equal(none.code, -EPROTO);
    assert_true(none.answered);
}

/* ---- the first question ---- */

static const char welcome[] =
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"encoding\":\"json\",\"version\":\"1.0\","
    "\"limits\":{\"message\":2000,\"depth\":32,\"batch\":8,\"inFlight\":8,\"connections\":9,"
    "\"output\":65536,\"fds\":1}}}\n";

static void the_servers_limits_are_kept(void **state)
{
    static char text[3000];
    static struct seen seen = {0};

    assert_int_equal(rpc_channel_negotiate(channel, "json", 60000), 0);
    assert_false(rpc_channel_is_ready(channel));
    run();
    answer(welcome);
    assert_int_equal(ready_times, 1);
    assert_true(rpc_channel_is_ready(channel));
    assert_int_equal(rpc_channel_width(channel), 7);
    assert_int_equal(rpc_channel_message_max(channel), 2000);
    memset(text, ' ', sizeof(text));
    text[0] = '[';
    text[sizeof(text) - 1] = ']';
    struct rpc_call call = {.method = &plain,
                            .text = text,
                            .text_length = sizeof(text),
                            .done = on_done,
                            .data = &seen};
    assert_int_equal(rpc_channel_call(channel, &call), -EFBIG);
    assert_true(begin(&plain, 0, &seen) > 0);
}

static void who_does_not_greet_is_left(void **state)
{
    _cleanup_buffer_ struct buffer sent = BUFFER_INIT;
    static struct seen held = {0};

    assert_int_equal(rpc_channel_negotiate(channel, "cbor", 20), 0);
    assert_true(begin(&secret, 0, &held) > 0);
    run_until_ended(&held);
    assert_true(held.unsent);
    assert_int_equal(ended.times, 1);
    assert_int_equal(ended.code, -ETIMEDOUT);
    assert_int_equal(ready_times, 0);
    read_all(&sent);
    assert_int_equal(count_of(&sent, "secret"), 0);
}

/* As a server does that has enough connections: it cannot say to which call. */
static void who_has_no_room_is_left(void **state)
{
    static struct seen held = {0};

    assert_int_equal(rpc_channel_negotiate(channel, "json", 60000), 0);
    assert_true(begin(&secret, 0, &held) > 0);
    run();
    answer("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-12,\"message\":\"too many\"}}\n");
    assert_int_equal(held.times, 1);
    assert_true(held.unsent);
    assert_int_equal(ended.times, 1);
    assert_int_equal(ended.code, -ENOBUFS);
}

static void what_is_held_ends_in_time(void **state)
{
    _cleanup_buffer_ struct buffer sent = BUFFER_INIT;
    static struct seen late = {0}, kept = {0};

    assert_int_equal(rpc_channel_negotiate(channel, "json", 60000), 0);
    assert_true(begin(&secret, 10, &late) > 0);
    assert_true(begin(&plain, 0, &kept) > 0);
    run_until_ended(&late);
    assert_int_equal(late.code, -ETIMEDOUT);
    assert_true(late.unsent);
    answer(welcome);
    read_all(&sent);
    assert_int_equal(count_of(&sent, "secret"), 0);
    assert_int_equal(count_of(&sent, "\"plain\""), 1);
}

/* ---- the loop ---- */

struct endless {
    struct rpc_task task;
    struct rpc_timer timer;
    bool over;
};

static void on_task(struct rpc_task *task)
{
    struct endless *endless = (struct endless *)task;

    if (!endless->over)
        rpc_loop_queue_later(loop, task);
}

static void on_time(struct rpc_timer *timer)
{
    ((struct endless *)((char *)timer - offsetof(struct endless, timer)))->over = true;
}

static void tasks_without_end_let_timers_run(void **state)
{
    struct endless endless = {.task.callback = on_task, .timer.callback = on_time};
    struct pollfd ready = {.fd = rpc_loop_fd(loop), .events = POLLIN};

    rpc_loop_set_timer(loop, &endless.timer, rpc_loop_update_now(loop) + 20000000);
    rpc_loop_queue_later(loop, &endless.task);
    for (int i = 0; i < 10 && !endless.over; i++) {
        assert_int_equal(poll(&ready, 1, 60000), 1); /* there is always more to do */
        rpc_loop_dispatch(loop);
    }
    while (!endless.over)
        rpc_loop_dispatch(loop);
    run();
}

#define channel_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        channel_test(a_queue_that_is_never_empty_gives_memory_back),
        channel_test(what_is_too_late_is_not_sent),
        channel_test(descriptors_of_what_is_not_sent_are_closed),
        channel_test(answers_that_are_owed_are_counted),
        channel_test(too_many_descriptors_on_their_way_end_only_their_call),
        channel_test(an_error_that_names_no_call_is_that_of_the_only_one),
        channel_test(an_error_that_names_no_call_ends_all_that_were_sent),
        channel_test(an_error_answer_always_has_a_code),
        channel_test(the_servers_limits_are_kept),
        channel_test(who_does_not_greet_is_left),
        channel_test(who_has_no_room_is_left),
        channel_test(what_is_held_ends_in_time),
        channel_test(tasks_without_end_let_timers_run),
    };

    alarm(120); /* what hangs is a failure, not a wait */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
