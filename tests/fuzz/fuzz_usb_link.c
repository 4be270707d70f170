/*
 * What the process of a stick says to the daemon, whoever it is by now. The first byte: 1, the link
 * is destroyed with the first event; 2, with the first answer; 4, time passes before anything
 * comes; 8, time passes afterwards; 16, the other end hangs up. The second: in pieces of how many
 * bytes it comes. The rest is what comes: lines. Seconds are the target's.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "usb_link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    BY_EVENT = 1,
    BY_ANSWER = 2,
    LATE_AT_ONCE = 4,
    LATE = 8,
    HANGS_UP = 16,
    PATIENCE = 2,
    SECONDS = 20,
    REQUESTS = 6,
};

static struct {
    struct usb_link *link;
    uint8_t how;
    unsigned answers, closed;
    uv_timer_t *clock;
    uv_timer_cb second;
} run;

static char path[64];
static int listener = -1;

static void remove_path(void)
{
    unlink(path);
}

static void begin(void)
{
    if (listener >= 0)
        return;
    snprintf(path, sizeof(path), "/tmp/fuzz-usb-link.%d", getpid());
    listener = socket_listen_unix(path, SOCK_STREAM | SOCK_CLOEXEC, 0600, NULL);
    if (listener < 0)
        abort();
    atexit(remove_path);
}

/* In the place of uv_timer_start(). */
int fuzz_timer_start(uv_timer_t *clock, uv_timer_cb second, uint64_t timeout, uint64_t repeat)
{
    (void)timeout, (void)repeat;
    run.clock = clock;
    run.second = second;
    return 0;
}

static void destroy(void)
{
    usb_link_destroy(steal_ptr(run.link));
}

static void let_time_pass(void)
{
    for (int i = 0; i < SECONDS && run.link && run.closed == 0 && run.second; i++)
        run.second(run.clock);
}

/* Whatever is told to a person does nothing to a terminal. */
static void expect_harmless(const char *text)
{
    for (; text && *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7F)
            abort();
}

static void on_event(const struct usb_stick_event *event, void *data)
{
    struct buffer text = BUFFER_INIT;
    (void)data;
    usb_stick_event_write(event, &text);
    buffer_finish(&text);
    if (run.how & BY_EVENT)
        destroy();
}

static void on_closed(const char *why, bool is_late, void *data)
{
    (void)is_late, (void)data;
    if (!why || run.closed++ || run.answers != REQUESTS)
        abort();
}

static void on_answer(const struct error *err, const struct usb_stick_result *result, void *data)
{
    struct buffer text = BUFFER_INIT;
    bool *answered = data;
    if (*answered)
        abort();
    *answered = true;
    run.answers++;
    if (err && err->code >= 0)
        abort();
    expect_harmless(err ? error_message(err) : NULL);
    expect_harmless(err ? err->hint : NULL);
    if (result)
        usb_stick_result_write(result, &text);
    buffer_finish(&text);
    if (run.how & BY_ANSWER)
        destroy();
}

static void ask(bool *answered)
{
    struct usb_stick_nothing nothing = {0};
    struct usb_stick_request requests[REQUESTS] = {
        {.status = &nothing}, {.stats = &nothing}, {.sync = &nothing},
        {.status = &nothing}, {.end = &nothing},   {.stats = &nothing},
    };
    for (int i = 0; i < REQUESTS; i++)
        usb_link_request(run.link, &requests[i], i == 2 ? listener : -1, on_answer, answered + i);
    usb_link_hurry(run.link, 5, 1);
}

static void say(uv_loop_t *loop, int fd, const uint8_t *data, size_t size, size_t piece)
{
    while (size > 0) {
        size_t some = piece < size ? piece : size;
        ssize_t sent = send(fd, data, some, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            break;
        data += sent;
        size -= (size_t)sent;
        uv_run(loop, UV_RUN_NOWAIT);
    }
    uv_run(loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct usb_link_handlers handlers = {.event = on_event, .closed = on_closed};
    bool answered[REQUESTS] = {false};
    uv_loop_t loop;
    if (size < 2)
        return 0;
    begin();
    memset(&run, 0, sizeof(run));
    run.how = data[0];
    uv_loop_init(&loop);
    if (usb_link_connect(&loop, path, PATIENCE, &handlers, NULL, &run.link, NULL) != 0)
        abort();
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ask(answered);
    uv_run(&loop, UV_RUN_NOWAIT);
    if (run.how & LATE_AT_ONCE)
        let_time_pass();
    say(&loop, fd, data + 2, size - 2, data[1] ? data[1] : size);
    if (run.how & LATE)
        let_time_pass();
    if (run.how & HANGS_UP)
        shutdown(fd, SHUT_RDWR);
    uv_run(&loop, UV_RUN_NOWAIT);
    destroy();
    if (run.answers != REQUESTS)
        abort();
    close(fd);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0)
        abort();
    return 0;
}
