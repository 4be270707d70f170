#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <monitor/status.h>
#include <rpc/client.h>
#include <schema/management.h>

#include "session.h"

enum {
    RECONNECT_MILLISECONDS = 250, /* between looks for a new daemon */
    STATUS_LOOKS = 100,           /* at the status file, STATUS_MILLISECONDS apart */
    STATUS_MILLISECONDS = 20,
};

int session_check_terminal(bool with_stdin, bool tty, struct error *err)
{
    if (with_stdin && tty && !isatty(STDIN_FILENO))
        return error_set(err, -ENOTTY, "the input device is not a TTY");
    return 0;
}

static const char *wait_method(const struct session *session)
{
    return session->exec_id ? "container.execWait" : "container.wait";
}

/* Sends the request on the connection there is. */
static int send_wait(struct session *session, struct error *err)
{
    const struct api_container_wait wait = {
        .container = (char *)session->container,
        .condition = (char *)session->condition,
    };
    const struct api_exec_ref exec = {.exec_id = (char *)session->exec_id};
    const void *params = session->exec_id ? (const void *)&exec : &wait;

    return cli_send(session->cli, wait_method(session), params, &session->wait_id, err);
}

int session_begin(struct session *session, struct error *err)
{
    session->reconnect_timer = -1;
    return send_wait(session, err);
}

static void drop_connection(struct session *session)
{
    rpc_client_destroy(session->cli->client);
    session->cli->client = NULL;
    session->wait_id = 0;
}

/* ---- while the stream runs */

/* There is a connection again: asks it for the end. */
static void resume(struct session *session)
{
    if (text_equal(session->condition, "next-exit"))
        session->condition = "not-running"; /* it may have ended meanwhile */
    if (send_wait(session, NULL) < 0)
        drop_connection(session);
    else
        close_fd(steal_fd(&session->reconnect_timer));
}

/* The daemon is gone: look from time to time for its successor, but do not start one. Somebody
 * may have stopped it on purpose. */
static void look_for_daemon(struct session *session)
{
    uint64_t expirations;

    if (read(session->reconnect_timer, &expirations, sizeof(expirations)) > 0 &&
        cli_connect_running(session->cli))
        resume(session);
}

static void start_looking(struct session *session)
{
    const struct timespec interval = {.tv_nsec = RECONNECT_MILLISECONDS * 1000000L};
    const struct itimerspec timer = {.it_interval = interval, .it_value = interval};

    drop_connection(session);
    if (session->exec_id || session->reconnect_timer >= 0)
        return; /* an exec session's end is asked for afterwards: see exec_exit_code() */
    session->reconnect_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (session->reconnect_timer >= 0)
        timerfd_settime(session->reconnect_timer, 0, &timer, NULL);
}

static int watched_fd(void *context)
{
    struct session *session = context;

    if (session->reconnect_timer >= 0)
        return session->reconnect_timer;
    if (!session->cli->client || session->answered)
        return -1;
    return rpc_client_fd(session->cli->client);
}

static void watched(void *context)
{
    struct session *session = context;

    if (session->reconnect_timer >= 0) {
        look_for_daemon(session);
        return;
    }
    int r = rpc_client_ready(session->cli->client, session->wait_id, NULL);
    if (r < 0)
        start_looking(session);
    session->answered = r > 0;
}

/* A call beside the stream. What the engine refuses is no reason to end (the program may have
 * ended just now); a broken connection is noticed. */
static void call_beside(struct session *session, const char *method, const void *params)
{
    if (session->cli->client && cli_call(session->cli, method, params, NULL, NULL) < 0 &&
        !rpc_client_error_code(session->cli->client) && !session->answered)
        start_looking(session);
}

static void resize(void *context, uint16_t rows, uint16_t columns)
{
    struct session *session = context;
    const struct api_container_resize size = {
        .container = (char *)session->container,
        .exec_id = (char *)session->exec_id,
        .rows = rows,
        .columns = columns,
    };

    call_beside(session, "container.resize", &size);
}

static void pass_signal(void *context, int number)
{
    struct session *session = context;
    char name[16];
    const struct api_container_kill kill = {
        .container = (char *)session->container,
        .signal = name,
    };

    snprintf(name, sizeof(name), "%d", number);
    call_beside(session, "container.kill", &kill);
    if (session->cli->client || session->answered)
        return;
    /* The daemon is gone, and somebody wants something of the container now: that starts one. */
    if (cli_connect(session->cli, NULL) < 0)
        return;
    resume(session);
    call_beside(session, "container.kill", &kill);
}

static const struct stream_events container_events = {
    .resize = resize,
    .signal = pass_signal,
    .watched_fd = watched_fd,
    .watched = watched,
};

/* The engine has no way to signal an exec session: what would be passed on ends us, as with
 * docker. */
static const struct stream_events exec_events = {
    .resize = resize,
    .watched_fd = watched_fd,
    .watched = watched,
};

int session_run(struct session *session, struct stream *stream, int signals,
                enum stream_end *ret_end, struct error *err)
{
    stream->events = session->exec_id ? &exec_events : &container_events;
    stream->context = session;
    int r = stream_run(stream, signals, ret_end, err);
    close_fd(steal_fd(&session->reconnect_timer));
    return r;
}

/* ---- afterwards */

static int receive_wait(struct session *session, int *ret_code, struct error *err)
{
    _cleanup_api_container_waited_ struct api_container_waited *waited = NULL;

    int r = cli_receive(session->cli, wait_method(session), session->wait_id, &waited, err);
    if (r < 0)
        return r;
    session->wait_id = 0;
    if (!text_empty(waited->error))
        fprintf(stderr, "cloche: %s\n", waited->error);
    *ret_code = waited->exit_code;
    return 0;
}

/* What the monitor wrote when the container, or a run of one that is restarted, ended, for the time
 * when there is no daemon. */
static int read_status(const struct session *session, int *ret_code)
{
    _cleanup_free_ char *path =
        xasprintf("%s/containers/%s", session->cli->instance.run, session->container);
    _cleanup_close_ int bundle = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct monitor_status status;

    for (int i = 0; bundle >= 0 && i < STATUS_LOOKS; i++) {
        _cleanup_free_ char *reason = NULL;
        if (monitor_status_read(bundle, &status, &reason, NULL) >= 0 &&
            (status.state == MONITOR_STATE_EXITED || status.restarts)) {
            *ret_code = status.exit_code;
            return 0;
        }
        poll(NULL, 0, STATUS_MILLISECONDS);
    }
    return -ENOENT;
}

/* A daemon that did not start an exec session knows it from its end on, which the monitor tells as
 * soon as there is a daemon: it may come just after our question. */
static int exec_exit_code(struct session *session, int *ret_code, struct error *err)
{
    int r = cli_connect(session->cli, err);

    for (int i = 0; r >= 0 && i < STATUS_LOOKS; i++) {
        r = send_wait(session, err);
        if (r >= 0)
            r = receive_wait(session, ret_code, err);
        if (r != -ENOENT)
            return r;
        poll(NULL, 0, STATUS_MILLISECONDS);
        r = 0;
    }
    return r < 0 ? r
                 : error_set(err, -ENOENT,
                             "how the program ended is not known: the daemon "
                             "was started anew meanwhile");
}

int session_exit_code(struct session *session, int *ret_code, struct error *err)
{
    if (session->cli->client && session->wait_id) {
        int r = receive_wait(session, ret_code, err);
        if (r >= 0 || rpc_client_error_code(session->cli->client))
            return r;
        drop_connection(session);
    }
    if (session->exec_id)
        return exec_exit_code(session, ret_code, err);
    if (read_status(session, ret_code) >= 0)
        return 0;
    int r = cli_connect(session->cli, err);
    session->condition = "not-running";
    if (r >= 0)
        r = send_wait(session, err);
    return r < 0 ? r : receive_wait(session, ret_code, err);
}

int session_finish(struct session *session, const struct stream *stream, enum stream_end end,
                   int detached)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int code;

    if (end == STREAM_DETACHED) {
        fprintf(stderr, "read escape sequence\n");
        return detached;
    }
    if (end == STREAM_INTERRUPTED)
        return 128 + stream->signal;
    if (session_exit_code(session, &code, &err) < 0) {
        cli_fail(&err);
        return EXIT_ENGINE;
    }
    return code;
}
