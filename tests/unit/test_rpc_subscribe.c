/* Subscriptions of a client: servers with a topic that come, go and change places. */
#include <sys/socket.h>

#include <rpc/subscription.h>

#include "rpc_peers.h"

/* ---- servers with a topic, a thread each ---- */

struct host {
    struct peer *peer; /* for its path */
    pthread_t thread;
    bool running;
    _Atomic bool stop, cut;
    _Atomic unsigned publish; /* so many more are to happen */
    _Atomic unsigned subscribed;
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct rpc_topic *topic;
    size_t keeps;
    bool refuses;
};

static struct host hosts[2];

static void on_subscribe(struct rpc_request *request, const void *params, void *context)
{
    const struct api_events_subscribe *what = params;
    struct host *host = context;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_subscribed done;
    const struct rpc_subscribe how = {
        .since = what->since, .has_since = what->has_since, .boot = what->boot};

    if (host->refuses) {
        error_set(&err, -EACCES, "not for you");
        rpc_fail(request, RPC_PERMISSION_DENIED, &err);
        return;
    }
    assert_int_equal(rpc_subscribe(host->topic, request, &how, &done, &err), 0);
    struct api_events_subscribed subscribed = {.subscription = done.id,
                                               .boot =
                                                   (char *)(uintptr_t)rpc_topic_boot(host->topic),
                                               .next = done.next,
                                               .oldest = done.oldest};
    rpc_reply(request, &subscribed, NULL, 0);
    host->subscribed++;
}

static const struct json_method subscribe_type = {.name = "events.subscribe",
                                                  .params = &api_events_subscribe_type,
                                                  .result = &api_events_subscribed_type};
static const struct rpc_method host_methods[] = {{&subscribe_type, on_subscribe}};

static void open_server(struct host *host)
{
    const struct rpc_server_options options = {.context = host};

    int fd = socket_listen_unix(host->peer->path, SOCK_STREAM, 0600, NULL);
    assert_true(fd >= 0);
    assert_int_equal(rpc_server_create(host->loop, &options, &host->server, NULL), 0);
    assert_int_equal(rpc_server_add_methods(host->server, host_methods, 1, NULL), 0);
    assert_int_equal(rpc_server_listen(host->server, fd, NULL, NULL), 0);
}

static void close_server(struct host *host)
{
    rpc_server_destroy(host->server);
    unlink(host->peer->path);
}

static void publish_one(struct host *host)
{
    struct api_event *event = xnew(struct api_event);

    event->time = 1;
    event->type = xstrdup("container");
    event->action = xstrdup("start");
    event->id = xasprintf("%ju", (uintmax_t)rpc_topic_next(host->topic));
    rpc_topic_publish(host->topic, event, 1);
}

static void *run_host(void *data)
{
    struct host *host = data;

    while (!host->stop) {
        rpc_loop_run_once(host->loop, 20);
        for (; host->publish; host->publish--)
            publish_one(host);
        if (host->cut) { /* the topic stays: only the connections end */
            close_server(host);
            nap(30);
            for (int i = 0; i < 2; i++)
                publish_one(host);
            open_server(host);
            host->cut = false;
        }
    }
    close_server(host);
    rpc_topic_destroy(host->topic);
    rpc_loop_run_once(host->loop, 0);
    rpc_loop_destroy(host->loop);
    return NULL;
}

static void start_host(size_t index)
{
    struct host *host = &hosts[index];
    const struct rpc_topic_options options = {.event_method = "events.event",
                                              .lost_method = "events.lost",
                                              .event_type = &api_event_type,
                                              .filter_type = &api_event_filters_type,
                                              .events_max = host->keeps};

    host->peer = &peers[index];
    host->stop = false;
    host->running = true;
    assert_int_equal(rpc_loop_create(&host->loop, NULL), 0);
    rpc_topic_create(host->loop, &options, &host->topic);
    open_server(host);
    assert_int_equal(pthread_create(&host->thread, NULL, run_host, host), 0);
}

static void stop_host(size_t index)
{
    struct host *host = &hosts[index];

    if (!host->running)
        return;
    host->stop = true;
    rpc_loop_wake(host->loop);
    pthread_join(host->thread, NULL);
    host->running = false;
}

/* ---- what was told ---- */

struct told {
    _Atomic unsigned events, lost, restarts, live, cut, over;
    _Atomic uint64_t last, lost_count;
    _Atomic bool disorder;
    _Atomic unsigned naps;
    int fault;
    char boot[65];
    struct cloche_subscription *subscription;
    bool ends_itself;
};

static void on_event(void *data, const struct cloche_subscription_event *event)
{
    struct told *told = data;
    _cleanup_free_ char *id = xasprintf("\"id\":\"%ju\"", (uintmax_t)event->sequence);

    told->disorder = told->disorder || event->sequence <= told->last || !strstr(event->event, id);
    told->last = event->sequence;
    snprintf(told->boot, sizeof(told->boot), "%s", event->boot);
    if (told->naps)
        nap((int)told->naps);
    told->events++;
    if (told->ends_itself)
        cloche_subscription_end(told->subscription);
}

static void on_lost(void *data, const struct cloche_subscription_lost *lost)
{
    struct told *told = data;

    told->lost++;
    told->lost_count += lost->count;
    if (text_equal(lost->reason, "restarted")) {
        told->restarts++;
        told->last = 0;
    }
}

static void on_changed(void *data, enum cloche_subscription_state state,
                       const struct cloche_error *why)
{
    struct told *told = data;

    told->live += state == CLOCHE_SUBSCRIPTION_LIVE;
    told->cut += state == CLOCHE_SUBSCRIPTION_CUT;
    if (state == CLOCHE_SUBSCRIPTION_OVER)
        told->fault = why->fault;
    told->over += state == CLOCHE_SUBSCRIPTION_OVER;
}

static void subscribe(struct told *told, const char *params)
{
    const struct cloche_subscribe_options options = {.size = sizeof(options),
                                                     .changed = on_changed};

    assert_int_equal(cloche_client_subscribe(client, params, &options, on_event, on_lost, told,
                                             &told->subscription, &error),
                     0);
}

static void wait_until(const _Atomic unsigned *what, unsigned least)
{
    for (int i = 0; i < 4000 && *what < least; i++)
        nap(5);
    assert_true(*what >= least);
}

static void publish(size_t index, unsigned count)
{
    hosts[index].publish += count;
    rpc_loop_wake(hosts[index].loop);
}

/* ---- */

static void events_come_in_order(void **state)
{
    struct told told = {0};

    start_host(0);
    open_with(1, .timeout_ms = 20000);
    subscribe(&told, NULL);
    wait_until(&told.live, 1);
    publish(0, 100);
    wait_until(&told.events, 100);
    assert_false(told.disorder);
    assert_int_equal(told.last, 100);
    assert_int_equal(told.lost, 0);
    assert_int_equal(endpoint_counts(0).connections, 1);
    cloche_subscription_end(told.subscription);
    publish(0, 5);
    nap(50);
    assert_int_equal(told.events, 100);
    for (int i = 0; i < 1000 && endpoint_counts(0).connections; i++)
        nap(5);
    assert_int_equal(endpoint_counts(0).connections, 0);
}

static void a_cut_connection_loses_nothing(void **state)
{
    struct told told = {0};

    start_host(0);
    open_with(1, .timeout_ms = 20000);
    subscribe(&told, NULL);
    wait_until(&told.live, 1);
    for (unsigned i = 1; i <= 3; i++) {
        publish(0, 10);
        wait_until(&told.events, 12 * (i - 1) + 10);
        hosts[0].cut = true; /* two happen meanwhile */
        wait_until(&told.live, i + 1);
        wait_until(&told.events, 12 * i);
    }
    assert_int_equal(told.events, 36);
    assert_int_equal(told.cut, 3);
    assert_int_equal(told.lost, 0);
    assert_false(told.disorder);
    cloche_subscription_end(told.subscription);
}

static void another_server_is_told_as_a_restart(void **state)
{
    struct told told = {0};

    start_host(0);
    open_with(1, .timeout_ms = 20000);
    subscribe(&told, NULL);
    wait_until(&told.live, 1);
    publish(0, 5);
    wait_until(&told.events, 5);
    stop_host(0);
    wait_until(&told.cut, 1);
    hosts[0].keeps = 4;
    hosts[0].publish = 10; /* before anybody can ask */
    start_host(0);
    wait_until(&told.restarts, 1);
    for (int i = 0; i < 1000 && told.last < 10; i++)
        nap(5);
    assert_int_equal(told.last, 10);
    assert_int_equal(told.events - 5 + told.lost_count, 10);
    assert_false(told.disorder);
}

static void another_endpoint_takes_over(void **state)
{
    struct told told = {0};

    start_host(0);
    start_host(1);
    open_with(2, .timeout_ms = 20000);
    subscribe(&told, NULL);
    wait_until(&told.live, 1);
    size_t on = hosts[1].subscribed;
    publish(on, 3);
    wait_until(&told.events, 3);
    stop_host(on);
    wait_until(&told.live, 2);
    assert_int_equal(hosts[!on].subscribed, 1);
    wait_until(&told.restarts, 1);
    publish(!on, 4);
    wait_until(&told.events, 7);
    assert_int_equal(told.last, 4);
}

static void a_subscription_goes_on_from_a_number(void **state)
{
    struct told told = {0};
    char params[64];

    start_host(0);
    open_with(1, .timeout_ms = 20000);
    publish(0, 20);
    nap(60);
    snprintf(params, sizeof(params), " { \"filters\" : {} , \"since\" : 11 } ");
    subscribe(&told, params);
    wait_until(&told.events, 10);
    hosts[0].cut = true;
    wait_until(&told.events, 12);
    assert_int_equal(told.last, 22);
    assert_int_equal(told.lost, 0);
    assert_false(told.disorder);
}

static void what_was_too_much_is_told(void **state)
{
    struct told told = {.naps = 20};

    hosts[0].keeps = 8;
    start_host(0);
    open_with(1, .timeout_ms = 20000);
    publish(0, 30);
    nap(60);
    subscribe(&told, "{\"since\":1}");
    wait_until(&told.lost, 1);
    wait_until(&told.events, 8);
    assert_int_equal(told.lost_count, 22);
    /* a callback that runs is waited for, and no other begins */
    cloche_subscription_end(told.subscription);
    unsigned then = told.events;
    nap(100);
    assert_int_equal(told.events, then);
}

static void a_refusal_ends_it(void **state)
{
    struct told told = {0};

    hosts[0].refuses = true;
    start_host(0);
    open_with(1, .timeout_ms = 20000);
    subscribe(&told, NULL);
    wait_until(&told.over, 1);
    assert_int_equal(told.fault, RPC_PERMISSION_DENIED);
    nap(50);
    assert_int_equal(told.over, 1);
    hosts[0].refuses = false;
    cloche_subscription_end(told.subscription);
}

static void a_callback_may_end_it(void **state)
{
    struct told told = {.ends_itself = true};

    start_host(0);
    open_with(1, .timeout_ms = 20000);
    subscribe(&told, NULL);
    wait_until(&told.live, 1);
    publish(0, 10);
    wait_until(&told.events, 1);
    nap(50);
    assert_int_equal(told.events, 1);
}

static void any_loop_can_poll_it(void **state)
{
    struct told told = {0};

    start_host(0);
    open_with(1, .timeout_ms = 20000, .polled = true);
    struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};
    subscribe(&told, NULL);
    for (int i = 0; i < 4000 && told.events < 7; i++) {
        if (told.live == 1 && !told.events && !hosts[0].publish)
            publish(0, 7);
        if (poll(&ready, 1, 5) > 0)
            cloche_client_dispatch(client);
    }
    assert_int_equal(told.events, 7);
    hosts[0].cut = true;
    for (int i = 0; i < 4000 && told.events < 9; i++) {
        if (poll(&ready, 1, 5) > 0)
            cloche_client_dispatch(client);
    }
    assert_int_equal(told.events, 9);
    cloche_subscription_end(told.subscription);
}

/* Says hello and yes, and then nothing. */
static void subscribe_and_fall_silent(struct peer *peer, int fd)
{
    char line[4096];

    while (read_line(fd, line, sizeof(line))) {
        bool ours = strstr(line, "events.subscribe");
        peer->calls += ours;
        if (strstr(line, "rpc.ping"))
            continue;
        if (!answer_line(fd, line,
                         ours ? "{\"subscription\":1,\"boot\":\"b\",\"next\":1,\"oldest\":1}"
                              : "{\"encoding\":\"json\"}"))
            break;
    }
    close(fd);
}

static void a_silent_server_is_left(void **state)
{
    struct told told = {0};

    start_script(&peers[0], subscribe_and_fall_silent);
    open_with(1, .timeout_ms = 20000, .connect_timeout_ms = 20);
    subscribe(&told, NULL);
    wait_until(&told.cut, 1);
    wait_until(&told.live, 2);
}

static void what_cannot_be_a_subscription_is_refused(void **state)
{
    static const char *const bad[] = {"[]", "1", "{", "{\"since\":}"};
    struct cloche_subscription *subscription;
    const struct cloche_subscribe_options topic = {.size = sizeof(topic), .topic = "a b"};

    open_with(1, .timeout_ms = 20000);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(cloche_client_subscribe(client, bad[i], NULL, on_event, NULL, NULL,
                                                 &subscription, &error),
                         -EINVAL);
    assert_int_equal(
        cloche_client_subscribe(client, NULL, &topic, on_event, NULL, NULL, &subscription, &error),
        -EINVAL);
    assert_int_equal(
        cloche_client_subscribe(client, NULL, NULL, NULL, NULL, NULL, &subscription, &error),
        -EINVAL);
}

static int set_up_hosts(void **state)
{
    memset(hosts, 0, sizeof(hosts));
    return set_up(state);
}

static int tear_down_hosts(void **state)
{
    cloche_client_close(steal_ptr(client));
    stop_host(0);
    stop_host(1);
    return tear_down(state);
}

#define host_test(function) cmocka_unit_test_setup_teardown(function, set_up_hosts, tear_down_hosts)

int main(void)
{
    const struct CMUnitTest tests[] = {
        host_test(events_come_in_order),
        host_test(a_cut_connection_loses_nothing),
        host_test(another_server_is_told_as_a_restart),
        host_test(another_endpoint_takes_over),
        host_test(a_subscription_goes_on_from_a_number),
        host_test(what_was_too_much_is_told),
        host_test(a_refusal_ends_it),
        host_test(a_callback_may_end_it),
        host_test(any_loop_can_poll_it),
        host_test(a_silent_server_is_left),
        host_test(what_cannot_be_a_subscription_is_refused),
    };

    prepare_peers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
