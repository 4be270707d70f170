#include "helper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/loop.h>
#include <base/socket.h>
#include <base/text.h>

#include "outbox.h"

enum {
    AGAIN_MS = 100, /* before a program that has ended is started again; doubled each time */
    AGAIN_MAX_MS = 30 * 1000,
    SOUND_MS = 10 * 1000, /* who lives this long has ended for another reason than the last time */
    SLOW_MS = 100,        /* that the daemon waits for one that does not read fast enough */
    PROGRAM_FDS = HELPER_LISTEN_FD + 1,
    ANSWER_MAX = 256,     /* bytes */
    ANSWERS_AT_ONCE = 64, /* before others have their turn */
};

struct helper {
    struct engine *engine;
    const struct helper_kind *kind;
    const char *program;
    int fd;
    uv_poll_t *poll; /* owned while fd is open; freed when the loop has let go of it */
    struct outbox outbox;
    uv_timer_t timer;  /* until it is started again */
    uint64_t again_ms; /* what it was or will be set to */
    uint64_t connected_ms;
    bool failed; /* it could not be started, or did not read: nobody tries before the timer's end */
};

static char *socket_path(const struct engine *engine, const struct helper_kind *kind)
{
    return xasprintf("%s/%s", engine->instance->run, kind->socket);
}

static int start_program(struct helper *helper, int control_fd, struct error *err)
{
    struct engine *engine = helper->engine;
    _cleanup_free_ char *path = socket_path(engine, helper->kind);
    _cleanup_free_ char *name = xstrdup(helper->kind->name);
    _cleanup_close_ int listen_fd = -1;
    char *const argv[] = {name, NULL};
    char *const environment[] = {NULL};
    struct process process;

    unlink(path);
    listen_fd = socket_listen_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    const int fds[PROGRAM_FDS] = {
        -1, -1, STDERR_FILENO, [HELPER_CONTROL_FD] = control_fd, [HELPER_LISTEN_FD] = listen_fd};
    const struct process_spec spec = {
        .path = helper->program,
        .argv = argv,
        .environment = environment,
        .fds = fds,
        .fds_count = PROGRAM_FDS,
        .directory = "/",
        .new_session = true,
    };
    int r = process_spawn(&spec, &process, err);
    return r < 0 ? r : loop_watch_child(engine->loop, &process, 0, NULL, NULL, err);
}

static int start_or_connect(struct helper *helper, int *ret_fd, struct error *err)
{
    const int flags = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
    _cleanup_free_ char *path = socket_path(helper->engine, helper->kind);
    int pair[2];

    int fd = socket_connect_unix(path, flags, NULL);
    if (fd < 0) {
        if (socketpair(AF_UNIX, flags, 0, pair) < 0)
            return error_errno(err, errno, "make the socket of %s", helper->kind->name);
        int r = start_program(helper, pair[1], err);
        close_fd(pair[1]);
        if (r < 0) {
            close_fd(pair[0]);
            return r;
        }
        fd = pair[0];
    }
    *ret_fd = fd;
    return 0;
}

/* Whoever needs it starts it. */
static void on_timer(uv_timer_t *timer)
{
    struct helper *helper = timer->data;

    helper->failed = false;
    helper->kind->again(helper->engine);
}

static void try_later(struct helper *helper)
{
    if (uv_is_active((uv_handle_t *)&helper->timer) || !helper->kind->is_missed(helper->engine))
        return;
    log_warning("%s is gone or does not read; it is tried again in %" PRIu64 " ms",
                helper->kind->name, helper->again_ms);
    uv_timer_start(&helper->timer, on_timer, helper->again_ms, 0);
    helper->again_ms = helper->again_ms * 2 < AGAIN_MAX_MS ? helper->again_ms * 2 : AGAIN_MAX_MS;
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void disconnect(struct helper *helper)
{
    if (helper->fd < 0)
        return;
    uv_poll_stop(helper->poll);
    uv_close((uv_handle_t *)steal_ptr(helper->poll), on_poll_closed);
    outbox_clear(&helper->outbox);
    close_fd(steal_fd(&helper->fd));
}

static void lose(struct helper *helper)
{
    disconnect(helper);
    if (uv_now(helper->engine->loop) - helper->connected_ms >= SOUND_MS)
        helper->again_ms = AGAIN_MS;
    try_later(helper);
}

static void watch(struct helper *helper);

/* -errno when its end has come, as for one that says something and never should. */
static int read_answers(struct helper *helper)
{
    for (int i = 0; i < ANSWERS_AT_ONCE; i++) {
        char message[ANSWER_MAX];
        int fd = -1;
        size_t count = 1;
        ssize_t size = socket_receive_now(helper->fd, message, sizeof(message), &fd, &count);

        if (size == -EAGAIN || size == -EINTR || size == -EMFILE || size == -EMSGSIZE)
            return 0;
        if (size > 0 && helper->kind->answered)
            helper->kind->answered(helper->engine, message, (size_t)size, count > 0 ? fd : -1);
        else
            return size < 0 ? (int)size : -EPIPE;
    }
    return 0;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct helper *helper = poll->data;

    if (status < 0 || (events & UV_DISCONNECT && !(events & UV_READABLE)) ||
        (events & UV_READABLE && read_answers(helper) < 0) ||
        outbox_flush(&helper->outbox, helper->fd) < 0)
        lose(helper);
    else
        watch(helper);
}

static void watch(struct helper *helper)
{
    int events = UV_READABLE | UV_DISCONNECT;

    uv_poll_start(helper->poll, outbox_waits(&helper->outbox) ? events | UV_WRITABLE : events,
                  on_ready);
}

struct helper *helper_create(struct engine *engine, const struct helper_kind *kind,
                             const char *program)
{
    struct helper *helper = xnew(struct helper);

    helper->engine = engine;
    helper->kind = kind;
    helper->program = program;
    helper->fd = -1;
    helper->again_ms = AGAIN_MS;
    uv_timer_init(engine->loop, &helper->timer);
    helper->timer.data = helper;
    return helper;
}

int helper_ensure(struct helper *helper, struct error *err)
{
    if (helper->fd >= 0)
        return 0;
    if (helper->failed && uv_is_active((uv_handle_t *)&helper->timer))
        return error_set(err, -EAGAIN,
                         "%s could not be started or does not read, and is tried again in a while",
                         helper->kind->name);
    int r = start_or_connect(helper, &helper->fd, err);
    if (r < 0) {
        helper->failed = true;
        try_later(helper);
        return r;
    }
    helper->connected_ms = uv_now(helper->engine->loop);
    helper->poll = xnew(uv_poll_t);
    uv_poll_init(helper->engine->loop, helper->poll, helper->fd);
    helper->poll->data = helper;
    watch(helper);
    if (helper->kind->connected)
        helper->kind->connected(helper);
    return 0;
}

/* With some hundred containers to tell of at once it does not read as fast as is written. */
void helper_send(struct helper *helper, const void *message, size_t size, const int *fds,
                 size_t count)
{
    if (helper->fd < 0)
        return;
    bool waited = outbox_waits(&helper->outbox);
    int r = outbox_send(&helper->outbox, helper->fd, message, size, fds, count);
    /* One that is told of more than may wait reads meanwhile, on a busy machine slowly; one that
     * stands still is met here once. */
    while (r == -ENOBUFS && outbox_drain(&helper->outbox, helper->fd, SLOW_MS) == 0)
        r = outbox_send(&helper->outbox, helper->fd, message, size, fds, count);
    if (r < 0) { /* what it misses it is told with all the rest when we come again */
        log_warning("%s does not read: %s", helper->kind->name, strerror(-r));
        helper->failed = true;
        lose(helper);
        return;
    }
    if (!waited && outbox_waits(&helper->outbox))
        watch(helper);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void helper_close(struct helper *helper)
{
    if (!helper)
        return;
    disconnect(helper);
    uv_close((uv_handle_t *)&helper->timer, on_closed);
}

void helper_unlink(const struct engine *engine, const struct helper_kind *kind)
{
    _cleanup_free_ char *path = socket_path(engine, kind);

    unlink(path);
}
