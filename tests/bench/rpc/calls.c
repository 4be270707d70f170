/*
 * Round trips over a Unix socket, 128 bytes of payload each way.
 *
 *     calls server SOCKET               ours
 *     calls sync SOCKET COUNT           one call after the other, blocking
 *     calls async SOCKET COUNT WIDTH    WIDTH calls in flight
 *     calls long SOCKET COUNT WIDTH     the same, with a line and a wait for one on standard input
 * after a tenth of the calls and after all calls idle SOCKET COUNT           COUNT connections,
 * each used once, until standard input says so; before them a line with the own memory in KiB, and
 * one when they are there calls echo-server SOCKET          the bound: bytes there and back, no
 * messages calls echo-sync SOCKET COUNT
 *
 * Prints the seconds that COUNT calls took.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <base/socket.h>
#include <base/text.h>
#include <rpc/channel.h>
#include <rpc/client.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/echo.h>

#include "pooled.h"

enum { PAYLOAD = 128, ECHO_SIZE = 4096 };

static struct bench_payload payload;
static char payload_text[PAYLOAD + 1];

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void die(const char *what, const struct error *err)
{
    fprintf(stderr, "calls: %s: %s\n", what, error_message(err));
    exit(EXIT_FAILURE);
}

static int connect_to(const char *path)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int fd = socket_connect_unix(path, SOCK_STREAM | SOCK_CLOEXEC, &err);

    if (fd < 0)
        die("connect", &err);
    return fd;
}

static int listen_on(const char *path)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    unlink(path);
    int fd = socket_listen_unix(path, SOCK_STREAM | SOCK_CLOEXEC, 0600, &err);
    if (fd < 0)
        die("listen", &err);
    return fd;
}

/* ---- servers ---- */

static void on_echo(struct rpc_request *request, const void *params, void *context _unused_)
{
    rpc_reply(request, params, NULL, 0);
}

static void serve(const char *path)
{
    static const struct rpc_method methods[] = {{&echo_methods[0], on_echo}};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_server *server;
    struct rpc_loop *loop;

    if (rpc_loop_create(&loop, &err) < 0 || rpc_server_create(loop, NULL, &server, &err) < 0 ||
        rpc_server_add_methods(server, methods, 1, &err) < 0 ||
        rpc_server_listen(server, listen_on(path), NULL, &err) < 0)
        die("serve", &err);
    for (;;)
        rpc_loop_run_once(loop, -1);
}

static void echo_connection(int fd)
{
    char data[ECHO_SIZE];
    ssize_t n;

    while ((n = read(fd, data, sizeof(data))) > 0 && write(fd, data, (size_t)n) == n)
        ;
    close(fd);
}

static void serve_echo(const char *path)
{
    int listen_fd = listen_on(path), fd;

    while ((fd = accept(listen_fd, NULL, NULL)) >= 0)
        echo_connection(fd);
}

/* ---- clients ---- */

static void call_sync(const char *path, long count)
{
    _cleanup_rpc_client_ struct rpc_client *client = rpc_client_from_fd(connect_to(path));
    const struct json_method *method = &echo_methods[0];

    while (count-- > 0) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct bench_payload *result = NULL;
        if (rpc_client_call(client, method->name, method->params, &payload, method->result,
                            (void **)&result, NULL, 0, NULL, NULL, &err) < 0)
            die("call", &err);
        if (!text_equal(result->data, payload_text))
            abort();
        bench_payload_free(result);
    }
}

struct run {
    struct rpc_channel *channel;
    long to_send, to_come;
};

static void send_one(struct run *run);

static void on_done(void *data, const struct rpc_outcome *outcome)
{
    struct run *run = data;

    if (outcome->code < 0)
        die("call", outcome->error);
    bench_payload_free(outcome->result);
    run->to_come--;
    if (run->to_send > 0)
        send_one(run);
}

static void send_one(struct run *run)
{
    int64_t r = rpc_channel_call(run->channel, &(struct rpc_call){.method = &echo_methods[0],
                                                                  .params = &payload,
                                                                  .timeout_ms = 60000,
                                                                  .done = on_done,
                                                                  .data = run});
    if (r < 0)
        abort();
    run->to_send--;
}

static struct rpc_loop *create_loop(void)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_loop *loop;

    if (rpc_loop_create(&loop, &err) < 0)
        die("loop", &err);
    return loop;
}

static struct rpc_channel *open_channel(struct rpc_loop *loop, const char *path)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_channel *channel;

    if (rpc_channel_open(loop, connect_to(path), NULL, &channel, &err) < 0)
        die("open", &err);
    return channel;
}

static void run_calls(struct rpc_loop *loop, struct run *run, long count, long width)
{
    run->to_send = run->to_come = count;
    while (width-- > 0 && run->to_send > 0)
        send_one(run);
    while (run->to_come > 0)
        rpc_loop_run_once(loop, -1);
}

static void call_async(const char *path, long count, long width)
{
    struct rpc_loop *loop = create_loop();
    struct run run = {.channel = open_channel(loop, path)};

    run_calls(loop, &run, count, width);
    rpc_channel_close(run.channel);
    rpc_loop_destroy(loop);
}

/* ---- memory ---- */

static void say_and_wait(const char *what)
{
    char line[16];

    puts(what);
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        exit(EXIT_SUCCESS);
}

static void call_long(const char *path, long count, long width)
{
    struct rpc_loop *loop = create_loop();
    struct run run = {.channel = open_channel(loop, path)};

    run_calls(loop, &run, count / 10, width);
    say_and_wait("a tenth");
    run_calls(loop, &run, count - count / 10, width);
    say_and_wait("all");
    rpc_channel_close(run.channel);
    rpc_loop_destroy(loop);
}

static long own_memory(void)
{
    char line[128];
    long total = 0, size;
    FILE *file = fopen("/proc/self/smaps_rollup", "re");

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "Private_Clean: %ld", &size) == 1 ||
            sscanf(line, "Private_Dirty: %ld", &size) == 1)
            total += size;
    }
    if (file)
        fclose(file);
    return total;
}

static void hold_idle(const char *path, long count)
{
    struct rpc_loop *loop = create_loop();
    struct run *runs = calloc((size_t)count, sizeof(*runs));

    if (!runs)
        abort();
    printf("%ld\n", own_memory());
    fflush(stdout);
    for (long i = 0; i < count; i++) {
        runs[i].channel = open_channel(loop, path);
        run_calls(loop, &runs[i], 1, 1);
    }
    say_and_wait("all are there");
}

static void call_echo(const char *path, long count)
{
    char data[PAYLOAD];
    int fd = connect_to(path);

    memset(data, 'x', sizeof(data));
    while (count-- > 0) {
        if (write(fd, data, sizeof(data)) != sizeof(data) ||
            read(fd, data, sizeof(data)) != sizeof(data))
            abort();
    }
    close(fd);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    long count = argc > 3 ? atol(argv[3]) : 0, width = argc > 4 ? atol(argv[4]) : 1;

    memset(payload_text, 'x', PAYLOAD);
    payload.data = payload_text;
    double start = now();
    if (text_equal(mode, "server"))
        serve(argv[2]);
    else if (text_equal(mode, "echo-server"))
        serve_echo(argv[2]);
    else if (text_equal(mode, "sync"))
        call_sync(argv[2], count);
    else if (text_equal(mode, "async"))
        call_async(argv[2], count, width);
    else if (text_equal(mode, "long"))
        call_long(argv[2], count, width);
    else if (text_equal(mode, "idle"))
        hold_idle(argv[2], count);
    else if (text_equal(mode, "client-sync") || text_equal(mode, "cbor-sync"))
        pooled_sync(argv[2], payload_text, count, mode[1] == 'b');
    else if (text_equal(mode, "client-async") || text_equal(mode, "cbor-async"))
        pooled_async(argv[2], payload_text, count, width, true, mode[1] == 'b');
    else if (text_equal(mode, "thread-async"))
        pooled_async(argv[2], payload_text, count, width, false, false);
    else if (text_equal(mode, "echo-sync"))
        call_echo(argv[2], count);
    else {
        fprintf(stderr, "usage: calls server|echo-server|sync|async|long|idle|echo-sync SOCKET "
                        "[COUNT [WIDTH]]\n");
        return EXIT_FAILURE;
    }
    printf("%.6f\n", now() - start);
    return EXIT_SUCCESS;
}
