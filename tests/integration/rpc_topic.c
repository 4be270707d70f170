/*
 * For test_rpc_library.py: a server with a topic; each call of `sell` is told to who has
 * subscribed. Knows nothing of this tree but what is installed.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <cloche/rpc.h>

static struct cloche_rpc_loop *loop;
static struct cloche_rpc_topic *sales;
static volatile sig_atomic_t stopped;

static void sell(struct cloche_rpc_request *request, void *context)
{
    (void)context;
    int64_t number = cloche_rpc_topic_publish(sales, cloche_rpc_params(request));
    if (number < 0)
        cloche_rpc_fail(request, CLOCHE_RPC_INVALID_ARGUMENT, "that is no object", NULL);
    else
        cloche_rpc_reply_format(request, "%lld", (long long)number);
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
    cloche_rpc_loop_wake(loop);
}

int main(int argc, char **argv)
{
    const struct cloche_rpc_method method = {
        .size = sizeof(method), .name = "sell", .handler = sell};
    struct cloche_rpc_server *server;
    struct cloche_rpc_topic *again;

    if (argc != 2 || cloche_rpc_loop_create(&loop) < 0 ||
        cloche_rpc_server_create(loop, NULL, &server) < 0 ||
        cloche_rpc_server_add(server, &method) < 0 ||
        cloche_rpc_topic_create(server, "sales", &sales) < 0 ||
        cloche_rpc_topic_create(server, "sales", &again) == 0 ||
        cloche_rpc_server_listen(server, argv[1], 0600) < 0)
        return EXIT_FAILURE;
    signal(SIGTERM, on_signal);
    puts("ready");
    fflush(stdout);
    while (!stopped)
        cloche_rpc_loop_run_once(loop, -1);
    cloche_rpc_server_destroy(server);
    cloche_rpc_loop_destroy(loop);
    remove(argv[1]);
    return EXIT_SUCCESS;
}
