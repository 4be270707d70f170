#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/text.h>
#include <cloche/client.h>
#include <rpc/pool.h>
#include <schema/echo.h>

#include "pooled.h"

struct run {
    struct cloche_client *client;
    struct bench_payload payload;
    long to_send, to_come;
};

static const struct cloche_call_options in_a_minute = {.size = sizeof(in_a_minute),
                                                       .timeout_ms = 60000};

static struct cloche_client *open_client(const char *path, bool polled, bool cbor)
{
    const char *const endpoints[] = {path, NULL};
    const struct cloche_client_settings settings = {
        .size = sizeof(settings),
        .endpoints = endpoints,
        .connections = 1,
        .polled = polled,
        .encoding = cbor ? CLOCHE_ENCODING_CBOR : CLOCHE_ENCODING_JSON,
    };
    struct cloche_error error = {0};
    struct cloche_client *client;

    if (cloche_client_open(&settings, &client, &error) < 0) {
        fprintf(stderr, "calls: %s\n", error.message);
        exit(EXIT_FAILURE);
    }
    return client;
}

void pooled_sync(const char *path, const char *payload, long count, bool cbor)
{
    const struct bench_payload params = {.data = (char *)(uintptr_t)payload};
    struct cloche_client *client = open_client(path, false, cbor);

    while (count-- > 0) {
        struct bench_payload *result = NULL;
        if (rpc_stub_call(client, &echo_methods[0], &params, -1, NULL, (void **)&result, NULL,
                          NULL) < 0 ||
            !text_equal(result->data, payload))
            abort();
        bench_payload_free(result);
    }
    cloche_client_close(client);
}

static void send_one(struct run *run);

static void on_done(void (*function)(void), void *data, void *result, int fd,
                    const struct cloche_error *error)
{
    struct run *run = data;

    (void)function;
    (void)fd;
    if (error || !text_equal(((struct bench_payload *)result)->data, run->payload.data))
        abort();
    bench_payload_free(result);
    if (run->to_send > 0)
        send_one(run);
    __atomic_fetch_sub(&run->to_come, 1, __ATOMIC_SEQ_CST);
}

static void nothing(void)
{
}

static void send_one(struct run *run)
{
    run->to_send--;
    if (rpc_stub_call_async(run->client, &echo_methods[0], &run->payload, -1, &in_a_minute, on_done,
                            nothing, run) < 0)
        abort();
}

void pooled_async(const char *path, const char *payload, long count, long width, bool polled,
                  bool cbor)
{
    struct run run = {.client = open_client(path, polled, cbor),
                      .payload = {.data = (char *)(uintptr_t)payload},
                      .to_send = count,
                      .to_come = count};
    struct pollfd ready = {.fd = cloche_client_fd(run.client), .events = POLLIN};

    /* The rest is sent from the callbacks: they may be running in the client's thread already. */
    run.to_send -= width;
    for (long i = 0; i < width; i++) {
        if (rpc_stub_call_async(run.client, &echo_methods[0], &run.payload, -1, &in_a_minute,
                                on_done, nothing, &run) < 0)
            abort();
    }
    while (__atomic_load_n(&run.to_come, __ATOMIC_SEQ_CST) > 0) {
        poll(&ready, ready.fd >= 0, polled ? -1 : 1);
        cloche_client_dispatch(run.client);
    }
    cloche_client_close(run.client);
}
