/*
 * What the tests of the client library share: servers with a thread each, real ones and ones that
 * follow a script, a client of the first of them, and calls.
 */
#ifndef TESTS_UNIT_RPC_PEERS_H
#define TESTS_UNIT_RPC_PEERS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <cloche/management.h>
#include <rpc/loop.h>
#include <rpc/pool.h>
#include <rpc/server.h>
#include <schema/management.h>

/* ---- servers: a thread each, real ones and ones that follow a script ---- */

enum { ENDPOINTS = 3 };

struct peer {
    char *path;
    int listener, tcp; /* tcp: a second listening socket of its own; 0: none */
    pthread_t thread;
    bool running;
    _Atomic bool stop;
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct rpc_request *held[512];
    size_t held_count;
    _Atomic unsigned ended, cancelled; /* calls that nobody waited for any more */
    _Atomic bool busy;                 /* refuses what is asked of `busy` */
    _Atomic unsigned visits;
    _Atomic unsigned calls;                    /* that reached a handler or a script */
    void (*script)(struct peer *peer, int fd); /* for each connection; it closes fd */
};

static char folder[64];
static struct peer peers[ENDPOINTS];
static const char *paths[ENDPOINTS + 1];
static struct cloche_client *client;
static struct cloche_error error;

static inline void on_echo(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_ref *ref = params;
    struct api_container_created result = {.id = ref->container};
    struct peer *peer = context;

    peer->calls++;
    rpc_reply(request, &result, NULL, 0);
}

static inline void on_fail(struct rpc_request *request, const void *params, void *context)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EBUSY, "it is in use");
    error_hint(&err, "try later");
    rpc_fail(request, RPC_CONFLICT, &err);
}

static inline void on_cancel(struct rpc_request *request, void *data)
{
    struct peer *peer = data;

    peer->ended += rpc_request_wanted(request) == RPC_TIME_IS_OVER;
    peer->cancelled += rpc_request_wanted(request) == RPC_CALL_ENDED;
    for (size_t i = 0; i < peer->held_count; i++) {
        if (peer->held[i] == request)
            peer->held[i--] = peer->held[--peer->held_count];
    }
    rpc_reply(request, NULL, NULL, 0);
}

static inline void on_hold(struct rpc_request *request, const void *params, void *context)
{
    struct peer *peer = context;

    peer->calls++;
    peer->held[peer->held_count++] = request;
    rpc_request_on_cancel(request, on_cancel, peer);
}

static inline void answer_held(struct peer *peer)
{
    struct api_container_created result = {.id = (char *)"late"};

    while (peer->held_count)
        rpc_reply(peer->held[--peer->held_count], &result, NULL, 0);
}

/* Answers what is held, then itself. */
static inline void on_let_go(struct rpc_request *request, const void *params, void *context)
{
    answer_held(context);
    rpc_reply(request, NULL, NULL, 0);
}

/* Gives back a descriptor to what it was sent. */
static inline void on_pass(struct rpc_request *request, const void *params, void *context)
{
    int fd = rpc_request_take_fd(request, 0);

    rpc_reply(request, NULL, &fd, 1);
}

/* Has no room, or does it. */
static inline void on_busy(struct rpc_request *request, const void *params, void *context)
{
    const struct peer *peer = context;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!peer->busy) {
        on_echo(request, params, context);
        return;
    }
    error_set(&err, -ENOBUFS, "there is no room");
    rpc_fail(request, RPC_TOO_MANY, &err);
}

/* Tells how far it is, twice. */
static inline void on_steps(struct rpc_request *request, const void *params, void *context)
{
    rpc_request_progress(request, 1, 2, "steps", "the first");
    rpc_request_progress(request, 2, 2, "steps", "the second");
    rpc_reply(request, NULL, NULL, 0);
}

static const struct json_method echo_method = {.name = "echo",
                                               .params = &api_container_ref_type,
                                               .result = &api_container_created_type,
                                               .idempotent = true};
static const struct json_method once_method = {
    .name = "once", .params = &api_container_ref_type, .result = &api_container_created_type};
static const struct json_method busy_method = {
    .name = "busy", .params = &api_container_ref_type, .result = &api_container_created_type};
static const struct json_method fail_method = {
    .name = "fail", .params = &api_empty_type, .result = &api_empty_type};
static const struct json_method hold_method = {
    .name = "hold", .params = &api_empty_type, .result = &api_container_created_type};
static const struct json_method steps_method = {
    .name = "steps", .params = &api_empty_type, .result = &api_empty_type};
static const struct json_method let_go_method = {
    .name = "letGo", .params = &api_empty_type, .result = &api_empty_type};
static const struct json_method pass_method = {.name = "pass",
                                               .params = &api_empty_type,
                                               .result = &api_empty_type,
                                               .param_fds = 1,
                                               .result_fds = 1};

static inline void on_list(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_list *list = params;
    char *names[] = {(char *)"shop", (char *)"till", NULL};
    struct api_container_summary summary = {.id = (char *)"0123", .names = names, .names_count = 2};
    struct api_container_summary *summaries[] = {&summary};
    struct api_container_summaries result = {.containers = summaries,
                                             .containers_count = list->all && list->has_all};

    summary.image = summary.image_id = summary.command = summary.created_at = (char *)"";
    summary.state = summary.status = (char *)"running";
    json_string_map_set(&summary.labels, "shelf", "3");
    rpc_reply(request, &result, NULL, 0);
    json_string_map_free(summary.labels);
}

/* With a stream, as one who attaches wants it. */
static inline void on_attach(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_attach *attach = params;
    struct api_attached result = {0};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    result.tty = text_equal(attach->container, "terminal");
    rpc_reply(request, &result, &fd, 1);
}

static inline const struct json_method *managed(const char *name)
{
    for (size_t i = 0; i < management_methods_count; i++) {
        if (text_equal(management_methods[i].name, name))
            return &management_methods[i];
    }
    return NULL;
}

static struct rpc_method methods[] = {
    {&steps_method, on_steps}, {NULL, on_list},
    {NULL, on_attach},         {&echo_method, on_echo},
    {&once_method, on_echo},   {&fail_method, on_fail},
    {&hold_method, on_hold},   {&let_go_method, on_let_go},
    {&pass_method, on_pass},   {&busy_method, on_busy},
};

static inline void *serve(void *data)
{
    struct peer *peer = data;

    while (!peer->stop)
        rpc_loop_run_once(peer->loop, -1);
    rpc_server_destroy(peer->server);
    answer_held(peer);
    rpc_loop_run_once(peer->loop, 0);
    rpc_loop_destroy(peer->loop);
    return NULL;
}

struct visit {
    struct peer *peer;
    int fd;
};

static inline void *play_to_one(void *data)
{
    struct visit *visit = data;
    struct peer *peer = visit->peer;

    peer->script(peer, visit->fd);
    free(visit);
    peer->visits--;
    return NULL;
}

static inline void *play(void *data)
{
    struct peer *peer = data;
    pthread_t thread;
    int fd;

    while (((fd = accept(peer->listener, NULL, NULL)) >= 0 || errno == EMFILE) && !peer->stop) {
        if (fd < 0) { /* the test's own doing, for a while */
            poll(NULL, 0, 1);
            continue;
        }
        struct visit *visit = xnew(struct visit);
        *visit = (struct visit){.peer = peer, .fd = fd};
        peer->visits++;
        if (pthread_create(&thread, NULL, play_to_one, visit) != 0)
            abort();
        pthread_detach(thread);
    }
    close_fd(fd);
    return NULL;
}

static inline void start(struct peer *peer)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    unlink(peer->path);
    peer->stop = false;
    peer->running = true;
    peer->listener = socket_listen_unix(peer->path, SOCK_STREAM, 0600, &err);
    assert_true(peer->listener >= 0);
    if (peer->script) {
        assert_int_equal(pthread_create(&peer->thread, NULL, play, peer), 0);
        return;
    }
    assert_int_equal(rpc_loop_create(&peer->loop, &err), 0);
    const struct rpc_server_options options = {.context = peer};
    assert_int_equal(rpc_server_create(peer->loop, &options, &peer->server, &err), 0);
    assert_int_equal(rpc_server_add_methods(peer->server, methods, ARRAY_SIZE(methods), &err), 0);
    assert_int_equal(rpc_server_listen(peer->server, peer->listener, NULL, &err), 0);
    if (peer->tcp)
        assert_int_equal(rpc_server_listen(peer->server, peer->tcp, NULL, &err), 0);
    assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

static inline void stop(struct peer *peer)
{
    if (!peer->running)
        return;
    peer->stop = true;
    if (peer->script)
        shutdown(peer->listener, SHUT_RDWR);
    else
        rpc_loop_wake(peer->loop);
    pthread_join(peer->thread, NULL);
    while (peer->visits)
        poll(NULL, 0, 1);
    if (peer->script)
        close(peer->listener);
    peer->running = false;
    unlink(peer->path);
}

static inline void start_script(struct peer *peer, void (*script)(struct peer *, int))
{
    peer->script = script;
    start(peer);
}

/* ---- set-up ---- */

static inline size_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static size_t fds_before;

static inline int set_up(void **state)
{
    snprintf(folder, sizeof(folder), "/tmp/cloche-test-pool-XXXXXX");
    assert_non_null(mkdtemp(folder));
    fds_before = open_fds();
    for (size_t i = 0; i < ENDPOINTS; i++) {
        peers[i] = (struct peer){.path = xasprintf("%s/%zu", folder, i)};
        paths[i] = peers[i].path;
    }
    client = NULL;
    return 0;
}

/* Every test ends without a descriptor too many. */
static inline int tear_down(void **state)
{
    cloche_client_close(client);
    cloche_error_finish(&error);
    for (size_t i = 0; i < ENDPOINTS; i++) {
        stop(&peers[i]);
        free(peers[i].path);
    }
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(open_fds(), fds_before);
    return 0;
}

/* A client of the first endpoints. */
static inline void open_client(size_t endpoints, struct cloche_client_settings settings)
{
    const char *first[ENDPOINTS + 1] = {NULL};

    memcpy(first, paths, endpoints * sizeof(*first));
    settings.size = sizeof(settings);
    settings.endpoints = first;
    assert_int_equal(cloche_client_open(&settings, &client, &error), 0);
}

#define open_with(count, ...)                                                                      \
    open_client((count), (struct cloche_client_settings){.size = 0, __VA_ARGS__})

static inline int call(const char *method, uint64_t timeout_ms)
{
    const struct cloche_call_options options = {.size = sizeof(options), .timeout_ms = timeout_ms};

    return cloche_client_call(client, method, NULL, &options, NULL, &error);
}

/* An echo that must come back as it went. The method is idempotent, or not. */
static inline int echo_by(const struct json_method *method, const char *word, uint64_t timeout_ms)
{
    const struct cloche_call_options options = {.size = sizeof(options), .timeout_ms = timeout_ms};
    struct api_container_ref ref = {.container = (char *)word};
    _cleanup_api_container_created_ struct api_container_created *created = NULL;

    int r = rpc_stub_call(client, method, &ref, -1, &options, (void **)&created, NULL, &error);
    if (r == 0 && !text_equal(created->id, word))
        fail();
    return r;
}

static inline int echo(const char *word)
{
    return echo_by(&echo_method, word, 0);
}

static inline struct cloche_endpoint_counts endpoint_counts(size_t index)
{
    struct cloche_endpoint_counts counts;

    assert_int_equal(cloche_client_endpoint(client, index, &counts, sizeof(counts)), 0);
    return counts;
}

static inline struct cloche_client_counts counts_now(void)
{
    struct cloche_client_counts counts;

    cloche_client_counts(client, &counts, sizeof(counts));
    return counts;
}

static inline void nap(int ms)
{
    poll(NULL, 0, ms);
}

static inline void wait_for_state(size_t index, enum cloche_endpoint_state state)
{
    for (int i = 0; i < 2000 && endpoint_counts(index).state != state; i++)
        nap(5);
    assert_int_equal(endpoint_counts(index).state, state);
}

/* ---- scripts ---- */

/* Reads a line; false at the end. */
static inline bool read_line(int fd, char *line, size_t size)
{
    size_t length = 0;
    char c;

    while (read(fd, &c, 1) == 1 && c != '\n') {
        if (length + 1 < size)
            line[length++] = c;
    }
    line[length] = '\0';
    return length > 0;
}

static inline long id_of(const char *line)
{
    const char *id = strstr(line, "\"id\":");

    return id ? atol(id + 5) : 0;
}

static inline bool answer_line(int fd, const char *line, const char *result)
{
    char answer[256];
    int length = snprintf(answer, sizeof(answer),
                          "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}\n", id_of(line), result);

    return write(fd, answer, (size_t)length) == length;
}

/* As a server does that knows no rpc.hello. */
static inline bool answer_hello(int fd, const char *line)
{
    char answer[128];
    int length = snprintf(answer, sizeof(answer),
                          "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"error\":{\"code\":-32601,"
                          "\"message\":\"what?\"}}\n",
                          id_of(line));

    return write(fd, answer, (size_t)length) == length;
}

/* The next line that is not rpc.hello. */
static inline bool read_call(int fd, char *line, size_t size)
{
    while (read_line(fd, line, size)) {
        if (!strstr(line, "rpc.hello"))
            return true;
        if (!answer_hello(fd, line))
            return false;
    }
    return false;
}

/* One that knows nothing of deadlines. */
static inline void answer_late(struct peer *peer, int fd)
{
    char line[4096];

    while (read_line(fd, line, sizeof(line))) {
        bool slow = strstr(line, "\"hold\"");
        if (slow)
            poll(NULL, 0, 80);
        if (!answer_line(fd, line, slow ? "{\"id\":\"late\"}" : "{\"id\":\"word\"}"))
            break;
    }
    close(fd);
}

static inline void read_and_break_off(struct peer *peer, int fd)
{
    char line[4096];

    if (read_call(fd, line, sizeof(line)))
        peer->calls++;
    close(fd);
}

static inline void answer_pings_only(struct peer *peer, int fd)
{
    char line[4096];

    while (read_call(fd, line, sizeof(line)) && strstr(line, "rpc.ping") &&
           answer_line(fd, line, "{}"))
        ;
    close(fd);
}

static inline void answer_nothing_but_pings(struct peer *peer, int fd)
{
    char line[4096];

    while (read_call(fd, line, sizeof(line))) {
        if (strstr(line, "rpc.ping") && !answer_line(fd, line, "{}"))
            break;
    }
    close(fd);
}

static int unanswered[256];
static _Atomic size_t unanswered_count;

static inline void never_answer(struct peer *peer, int fd)
{
    if (unanswered_count >= ARRAY_SIZE(unanswered)) {
        close(fd);
        return;
    }
    unanswered[unanswered_count++] = fd;
}

/* The end of a server of that kind, and of the client. */
static inline void end_unanswered(struct peer *peer)
{
    cloche_client_close(steal_ptr(client));
    stop(peer);
    while (unanswered_count)
        close(unanswered[--unanswered_count]);
}

/* ---- asynchronous calls ---- */

struct seen {
    _Atomic int times;
    int code, fault;
    char result[64];
    int fd;
};

static inline void on_done(void *data, const char *result, int *fds, size_t fds_count,
                           const struct cloche_error *why)
{
    struct seen *seen = data;

    assert_true(!result == !!why);
    seen->code = why ? why->code : 0;
    seen->fault = why ? why->fault : 0;
    snprintf(seen->result, sizeof(seen->result), "%s", result ? result : why->message);
    if (fds_count == 1)
        seen->fd = steal_fd(&fds[0]);
    seen->times++;
}

static inline int64_t begin_with(const char *method, const char *params, uint64_t timeout_ms,
                                 bool idempotent, struct seen *seen)
{
    const struct cloche_call_options options = {
        .size = sizeof(options), .timeout_ms = timeout_ms, .idempotent = idempotent};

    return cloche_client_call_async(client, method, params, &options, on_done, seen);
}

static inline int64_t begin(const char *method, const char *params, uint64_t timeout_ms,
                            struct seen *seen)
{
    return begin_with(method, params, timeout_ms, false, seen);
}

static inline void wait_for(struct seen *seen)
{
    for (int i = 0; i < 4000 && !seen->times; i++)
        nap(5);
    assert_int_equal(seen->times, 1);
}

static inline void run_polled(struct seen *seen)
{
    struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};

    for (int i = 0; i < 4000 && !seen->times; i++) {
        if (poll(&ready, 1, 5) > 0)
            cloche_client_dispatch(client);
    }
    assert_int_equal(seen->times, 1);
}

/* Before the tests run. */
static inline void prepare_peers(void)
{
    methods[1].type = managed("container.list");
    methods[2].type = managed("container.attach");
    signal(SIGPIPE, SIG_IGN); /* of the scripts */
    alarm(120);               /* a call that hangs is a failure, not a wait */
}

#define pool_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

#endif
