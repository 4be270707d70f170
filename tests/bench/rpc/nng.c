/*
 * nng's request and reply over a Unix socket, as its own demonstrations do it: contexts, each with
 * one asynchronous operation at a time.
 *
 *     nng server SOCKET WIDTH             WIDTH requests at once
 *     nng sync SOCKET COUNT               one after the other
 *     nng async SOCKET COUNT WIDTH        WIDTH in flight
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>

enum { PAYLOAD = 128, WIDTH_MAX = 1024 };

static char payload[PAYLOAD];

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void check(int r)
{
    if (r == 0)
        return;
    fprintf(stderr, "nng: %s\n", nng_strerror(r));
    exit(EXIT_FAILURE);
}

/* A worker of either side: what its operation in flight was tells what comes next. */
struct worker {
    nng_ctx context;
    nng_aio *aio;
    bool sending;
};

static struct worker workers[WIDTH_MAX];
static atomic_long to_send, to_come;
static nng_mtx *mutex;
static nng_cv *finished;

/* ---- server ---- */

static void on_served(void *data)
{
    struct worker *worker = data;

    if (nng_aio_result(worker->aio) != 0)
        return;
    worker->sending = !worker->sending;
    if (worker->sending)
        nng_ctx_send(worker->context, worker->aio); /* the message received goes back */
    else
        nng_ctx_recv(worker->context, worker->aio);
}

static void serve(nng_socket socket, const char *url, long width)
{
    check(nng_rep0_open(&socket));
    for (long i = 0; i < width; i++) {
        check(nng_aio_alloc(&workers[i].aio, on_served, &workers[i]));
        check(nng_ctx_open(&workers[i].context, socket));
    }
    check(nng_listen(socket, url, NULL, 0));
    for (long i = 0; i < width; i++)
        nng_ctx_recv(workers[i].context, workers[i].aio);
    for (;;)
        pause();
}

/* ---- clients ---- */

static void call_sync(nng_socket socket, long count)
{
    char answer[PAYLOAD];
    size_t length;

    while (count-- > 0) {
        check(nng_send(socket, payload, PAYLOAD, 0));
        length = sizeof(answer);
        check(nng_recv(socket, answer, &length, 0));
        if (length != PAYLOAD)
            abort();
    }
}

static void send_one(struct worker *worker)
{
    nng_msg *message;

    check(nng_msg_alloc(&message, PAYLOAD));
    memcpy(nng_msg_body(message), payload, PAYLOAD);
    nng_aio_set_msg(worker->aio, message);
    worker->sending = true;
    nng_ctx_send(worker->context, worker->aio);
}

static void on_called(void *data)
{
    struct worker *worker = data;

    check(nng_aio_result(worker->aio));
    if (worker->sending) {
        worker->sending = false;
        nng_ctx_recv(worker->context, worker->aio);
        return;
    }
    nng_msg_free(nng_aio_get_msg(worker->aio));
    if (atomic_fetch_sub(&to_send, 1) > 0)
        send_one(worker);
    if (atomic_fetch_sub(&to_come, 1) == 1) {
        nng_mtx_lock(mutex);
        nng_cv_wake(finished);
        nng_mtx_unlock(mutex);
    }
}

static void call_async(nng_socket socket, long count, long width)
{
    check(nng_mtx_alloc(&mutex));
    check(nng_cv_alloc(&finished, mutex));
    to_send = count - width;
    to_come = count;
    for (long i = 0; i < width; i++) {
        check(nng_aio_alloc(&workers[i].aio, on_called, &workers[i]));
        check(nng_ctx_open(&workers[i].context, socket));
        send_one(&workers[i]);
    }
    nng_mtx_lock(mutex);
    while (to_come > 0)
        nng_cv_wait(finished);
    nng_mtx_unlock(mutex);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 3 ? argv[1] : "";
    nng_socket socket = NNG_SOCKET_INITIALIZER;
    char url[512];

    if (argc < 4) {
        fprintf(stderr, "usage: nng server SOCKET WIDTH | sync SOCKET COUNT | "
                        "async SOCKET COUNT WIDTH\n");
        return EXIT_FAILURE;
    }
    snprintf(url, sizeof(url), "ipc://%s", argv[2]);
    long number = atol(argv[3]), width = argc > 4 ? atol(argv[4]) : 1;
    if (number < 1 || width < 1 || width > WIDTH_MAX)
        return EXIT_FAILURE;
    memset(payload, 'x', sizeof(payload));
    if (strcmp(mode, "server") == 0)
        serve(socket, url, number < WIDTH_MAX ? number : WIDTH_MAX);
    check(nng_req0_open(&socket));
    check(nng_dial(socket, url, NULL, 0));
    double start = now();
    if (strcmp(mode, "sync") == 0)
        call_sync(socket, number);
    else
        call_async(socket, number, width < number ? width : number);
    printf("%.6f\n", now() - start);
    return EXIT_SUCCESS;
}
