/*
 * For test_rpc_generator.py: a server and, in the parent, its client, both made of the schemas that
 * the test writes. Knows nothing of this tree but what is installed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wide.h"

/* ---- server ---- */

static void sum(struct cloche_rpc_request *request, const struct wide_numbers *params,
                void *context)
{
    struct wide_total total = {0};

    (void)context;
    for (size_t i = 0; i < params->count; i++)
        total.total += params->items[i];
    wide_sum_reply(request, &total);
}

static void echo(struct cloche_rpc_request *request, const struct wide_bag *params, void *context)
{
    (void)context;
    wide_echo_reply(request, params);
}

static void move(struct cloche_rpc_request *request, const struct common_point *params,
                 void *context)
{
    const struct common_point moved = {.x = params->x + 1, .y = params->y + 1};

    (void)context;
    wide_move_reply(request, &moved);
}

static int file_with(const char *text)
{
    int fd = memfd_create("text", MFD_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        exit(EXIT_FAILURE);
    return fd;
}

static void show_file(int fd)
{
    char text[64];
    ssize_t length = pread(fd, text, sizeof(text), 0);

    printf("%.*s\n", (int)length, text);
    fflush(stdout);
    close(fd);
}

static void swap_file(struct cloche_rpc_request *request, const void *params, void *context)
{
    (void)params;
    (void)context;
    show_file(cloche_rpc_take_fd(request, 0));
    wide_swap_file_reply(request, file_with("file from the server"));
}

static void on_cancel(struct cloche_rpc_request *request, void *data)
{
    (void)data;
    wide_sleep_reply(request);
}

static void rest(struct cloche_rpc_request *request, const void *params, void *context)
{
    (void)params;
    (void)context;
    cloche_rpc_on_cancel(request, on_cancel, NULL);
}

static const struct wide_handlers handlers = {
    .sum = sum, .echo = echo, .move = move, .swap_file = swap_file, .sleep = rest};

static void serve(const char *path)
{
    const struct cloche_rpc_settings settings = {.size = sizeof(settings),
                                                 .document = wide_openrpc};
    struct cloche_rpc_loop *loop;
    struct cloche_rpc_server *server;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cloche_rpc_loop_create(&loop) < 0 ||
        cloche_rpc_server_create(loop, &settings, &server) < 0 ||
        wide_serve(server, &handlers) < 0 || cloche_rpc_server_listen(server, path, 0600) < 0)
        _exit(EXIT_FAILURE);
    for (;;)
        cloche_rpc_loop_run_once(loop, -1);
}

/* ---- client ---- */

static void expect(int r, const struct cloche_error *error)
{
    if (r >= 0)
        return;
    printf("%d: %s\n", r, error->message ? error->message : "no words");
    exit(EXIT_FAILURE);
}

static void call_echo(struct cloche_client *client, struct cloche_error *error)
{
    static const char text[] =
        "{\"class\":\"lion\",\"any\":[1,{\"a\":null}],\"labels\":{\"b\":\"c\"},\"raw\":{\"d\":[2]},"
        "\"path\":[{\"x\":1,\"y\":2},{\"x\":3,\"y\":4},{\"x\":5,\"y\":6}],\"maybe\":null,\"e\":5}";
    struct wide_bag *bag = NULL, *back = NULL;

    expect(wide_bag_parse(text, strlen(text), &bag, error), error);
    expect(wide_echo(client, bag, &back, error), error);
    char *written = wide_bag_write(back);
    const char *kept = strcmp(written, text) == 0 ? "{\"e\":5}" : written;
    printf("echo %s %s b=%s d=%s %zu points, %s, kept %s\n", back->class_, back->any,
           cloche_string_map_get(back->labels, "b"), cloche_string_map_get(back->raw, "d"),
           back->path_count, back->null_maybe ? "null" : "something", kept);
    free(written);
    wide_bag_free(bag);
    wide_bag_free(back);
}

static void call_others(struct cloche_client *client, struct cloche_error *error)
{
    double items[] = {1, 2, 3.5};
    const struct wide_numbers numbers = {.items = items, .count = 3};
    const struct common_point point = {.x = 2, .y = 3};
    struct wide_total *total;
    struct common_point *moved;

    expect(wide_sum(client, &numbers, &total, error), error);
    printf("sum %g\n", total->total);
    wide_total_free(total);
    call_echo(client, error);
    expect(wide_move(client, &point, &moved, error), error);
    printf("move %d %d\n", moved->x, moved->y);
    common_point_free(moved);
}

static void swap_files(struct cloche_client *client, struct cloche_error *error)
{
    int fd = file_with("file from the client"), theirs;

    fflush(stdout);
    expect(wide_swap_file(client, fd, &theirs, error), error);
    show_file(theirs);
    close(fd);
}

static void on_sleep(void *data, const struct cloche_error *error)
{
    printf("sleep was %s\n", error && error->code == -ECANCELED ? "cancelled" : "not cancelled");
    *(int *)data = 1;
}

static void on_echo(void *data, struct wide_bag *result, const struct cloche_error *error)
{
    printf("echo again %s\n", result ? result->class_ : error->message);
    wide_bag_free(result);
    *(int *)data = 1;
}

static void wait_for(struct cloche_client *client, const int *ended)
{
    while (!*ended) {
        struct pollfd ready = {.fd = cloche_client_fd(client), .events = POLLIN};
        poll(&ready, 1, -1);
        cloche_client_dispatch(client);
    }
}

static void call_back(struct cloche_client *client, struct cloche_error *error)
{
    const struct wide_bag bag = {.class_ = (char *)"lion"};
    int slept = 0, echoed = 0;

    int64_t number = wide_sleep_async(client, 0, on_sleep, &slept);
    if (number < 0 || !cloche_client_cancel(client, number))
        exit(EXIT_FAILURE);
    wait_for(client, &slept);
    if (wide_absent(client, error) == 0)
        exit(EXIT_FAILURE);
    printf("absent: %d\n", error->fault);
    if (wide_echo_async(client, &bag, 0, on_echo, &echoed) < 0)
        exit(EXIT_FAILURE);
    wait_for(client, &echoed);
}

int main(int argc, char **argv)
{
    const char *const endpoints[] = {argc > 1 ? argv[1] : "", NULL};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings), .endpoints = endpoints, .polled = true};
    struct cloche_error error = {0};
    struct cloche_client *client;

    pid_t server = fork();
    if (server == 0)
        serve(endpoints[0]);
    expect(cloche_client_open(&settings, &client, &error), &error);
    call_others(client, &error); /* which wait until the server listens */
    swap_files(client, &error);
    call_back(client, &error);
    cloche_error_finish(&error);
    cloche_client_close(client);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return EXIT_SUCCESS;
}
