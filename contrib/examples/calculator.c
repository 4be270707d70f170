/*
 * A server of one's own, with libcloche-rpc: some arithmetic, and a call that takes its time.
 *
 *     cc calculator.c $(pkg-config --cflags --libs libcloche-rpc) -o calculator
 *     ./calculator /tmp/calculator.sock
 *     echo '{"jsonrpc":"2.0","id":1,"method":"subtract","params":[42,23]}' |
 *         nc -U -N /tmp/calculator.sock
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cloche/rpc.h>

static struct cloche_rpc_loop *loop;
static volatile sig_atomic_t stopped;

static void reply_number(struct cloche_rpc_request *request, double number)
{
    if (isfinite(number))
        cloche_rpc_reply_format(request, "%.15g", number);
    else
        cloche_rpc_fail(request, CLOCHE_RPC_INVALID_ARGUMENT, "there is no such number", NULL);
}

static void subtract(struct cloche_rpc_request *request, void *context)
{
    double minuend, subtrahend;

    (void)context;
    if (cloche_rpc_number(request, "minuend", &minuend) < 0 ||
        cloche_rpc_number(request, "subtrahend", &subtrahend) < 0)
        cloche_rpc_fail_params(request);
    else
        reply_number(request, minuend - subtrahend);
}

/* As many as there are: the parameters as text. */
static void sum(struct cloche_rpc_request *request, void *context)
{
    const char *at = cloche_rpc_params(request);
    double total = 0;

    (void)context;
    while (*at && *at != '"') {
        char *end;
        double number = strtod(at, &end);
        total += end == at ? 0 : number;
        at = end == at ? at + 1 : end;
    }
    reply_number(request, total);
}

static void get_data(struct cloche_rpc_request *request, void *context)
{
    (void)context;
    cloche_rpc_reply(request, "[\"hello\", 5]");
}

/* For notifications, and for greetings with a name. */
static void greet(struct cloche_rpc_request *request, void *context)
{
    const char *name;

    (void)context;
    if (cloche_rpc_string(request, "name", &name) < 0)
        name = "nobody";
    char *quoted = cloche_rpc_quote(name);
    cloche_rpc_reply_format(request, "{\"hello\": %s}", quoted);
    free(quoted);
}

/* Nobody wants it any more: whatever is at work would be stopped here. */
static void on_cancel(struct cloche_rpc_request *request, void *data)
{
    (void)data;
    fprintf(stderr, "a call was given up\n");
    cloche_rpc_reply(request, NULL);
}

static void take_long(struct cloche_rpc_request *request, void *context)
{
    (void)context;
    cloche_rpc_progress(request, 0, 2, "halves", "thinking");
    cloche_rpc_progress(request, 1, 2, "halves", NULL);
    cloche_rpc_on_cancel(request, on_cancel, NULL);
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
    cloche_rpc_loop_wake(loop);
}

static const char *const subtract_params[] = {"minuend", "subtrahend", NULL};
static const char *const greet_params[] = {"name", NULL};

static const struct cloche_rpc_method methods[] = {
    {.size = sizeof(struct cloche_rpc_method),
     .name = "subtract",
     .params = subtract_params,
     .handler = subtract},
    {.size = sizeof(struct cloche_rpc_method), .name = "sum", .handler = sum},
    {.size = sizeof(struct cloche_rpc_method), .name = "get_data", .handler = get_data},
    {.size = sizeof(struct cloche_rpc_method), .name = "update", .handler = get_data},
    {.size = sizeof(struct cloche_rpc_method),
     .name = "greet",
     .params = greet_params,
     .handler = greet},
    {.size = sizeof(struct cloche_rpc_method), .name = "take_long", .handler = take_long},
};

int main(int argc, char **argv)
{
    struct cloche_rpc_server *server;

    if (argc != 2 || cloche_rpc_loop_create(&loop) < 0 ||
        cloche_rpc_server_create(loop, NULL, &server) < 0)
        return EXIT_FAILURE;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (cloche_rpc_server_add(server, &methods[i]) < 0)
            return EXIT_FAILURE;
    }
    int r = cloche_rpc_server_listen(server, argv[1], 0600);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(-r));
        return EXIT_FAILURE;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    puts("ready");
    fflush(stdout);
    while (!stopped)
        cloche_rpc_loop_run_once(loop, -1);
    cloche_rpc_server_destroy(server);
    cloche_rpc_loop_destroy(loop);
    remove(argv[1]);
    return EXIT_SUCCESS;
}
