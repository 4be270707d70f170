/*
 * Exec sessions: further processes in the container, each with streams and one client of its own.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>

#include "monitor_internal.h"

enum {
    EXEC_GRACE_MS = 500, /* for what outlives the process and holds its streams */
    CHECK_MS = 250,
    EXIT_ENGINE_FAILED = 125,
    EXIT_KILLED = 137,
};

struct session *exec_find(struct monitor *monitor, const char *id)
{
    struct session *session = monitor->execs;

    while (session && strcmp(session->id, id) != 0)
        session = session->next;
    return session;
}

/* Both become parts of file names. */
static bool is_name(const char *text, size_t size)
{
    size_t length = strnlen(text, size);

    if (length == 0 || length == size || text[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i]))
            return false;
    }
    return true;
}

static int check(struct monitor *monitor, const struct monitor_exec *exec, int stream,
                 struct error *err)
{
    if (!is_name(exec->id, sizeof(exec->id)) || !is_name(exec->process, sizeof(exec->process)))
        return error_set(err, -EINVAL, "exec: malformed name");
    if (!(exec->flags & MONITOR_EXEC_DETACH) != (stream >= 0))
        return error_set(err, -EINVAL, "exec: a stream is wanted unless detached");
    if (monitor->phase != PHASE_RUNNING)
        return error_set(err, -ESRCH, "the container is not running");
    if (exec_find(monitor, exec->id))
        return error_set(err, -EEXIST, "exec session %s exists", exec->id);
    if (monitor->execs_count >= MONITOR_EXECS_MAX)
        return error_set(err, -EMFILE, "there are %d exec sessions already", MONITOR_EXECS_MAX);
    return 0;
}

static struct session *exec_create(struct monitor *monitor, const struct monitor_exec *exec)
{
    struct session *session = xnew(struct session);
    bool detached = exec->flags & MONITOR_EXEC_DETACH;

    session_init(session, exec->id);
    session->phase = SESSION_STARTING;
    session->tty = exec->flags & MONITOR_EXEC_TTY;
    session->with_stdin = (exec->flags & MONITOR_EXEC_STDIN) && !detached;
    session->with_output = !detached;
    session->stdin_once = true;
    session->rows = exec->rows;
    session->columns = exec->columns;
    session->document = xstrdup(exec->process);
    session->next = monitor->execs;
    monitor->execs = session;
    monitor->execs_count++;
    return session;
}

static void exec_free(struct monitor *monitor, struct session *session)
{
    struct session **at = &monitor->execs;

    clients_session_over(monitor, session);
    session_close_streams(monitor, session);
    runtime_remove_files(monitor, session);
    while (*at != session)
        at = &(*at)->next;
    *at = session->next;
    monitor->execs_count--;
    free(session->document);
    free(session);
}

static uint32_t client_flags(const struct monitor_exec *exec)
{
    return (exec->flags & MONITOR_EXEC_STDIN ? (uint32_t)MONITOR_ATTACH_STDIN : 0) |
           (exec->flags & MONITOR_EXEC_NO_STDOUT ? 0 : (uint32_t)MONITOR_ATTACH_STDOUT) |
           (exec->flags & MONITOR_EXEC_NO_STDERR ? 0 : (uint32_t)MONITOR_ATTACH_STDERR);
}

int exec_start(struct monitor *monitor, uint32_t request, const struct monitor_exec *exec,
               int *stream, struct error *err)
{
    struct session_stdio stdio;
    int r = check(monitor, exec, *stream, err);

    if (r < 0)
        return r;
    struct session *session = exec_create(monitor, exec);
    session->request = request;
    session->asked_by = monitor->daemon_generation;
    r = session_open_streams(monitor, session, &stdio, err);
    if (r == 0)
        r = runtime_exec(monitor, session, &stdio, err);
    if (r == 0 && *stream >= 0)
        r = client_add(monitor, CLIENT_EXEC, session, client_flags(exec),
                       &(struct log_place){.until = UINT64_MAX}, steal_fd(stream), err);
    if (r == 0 && session->tty && monitor->clients && monitor->clients->session == session)
        client_set_detach(monitor->clients, &exec->detach);
    if (r < 0)
        exec_free(monitor, session);
    return r;
}

static int begin(struct monitor *monitor, struct session *session, int status, struct error *err)
{
    if (status != 0)
        return runtime_failure(monitor, session, status, err);
    int r = runtime_read_pid(monitor, session, &session->pid, err);
    return r < 0 ? r : session_begin(monitor, session, err);
}

/* Without a daemon the session stays, empty, for the next one. */
static void tell(struct monitor *monitor, struct session *session)
{
    struct monitor_exec_exited exited = {.exit_code = session->exit_code};

    memcpy(exited.id, session->id, sizeof(exited.id));
    if (control_send(monitor, MONITOR_EXEC_EXITED, 0, &exited, sizeof(exited)) == 0)
        exec_free(monitor, session);
}

/* A daemon that took over meanwhile knows the session as running: for it, it ends. */
static void start_failed(struct monitor *monitor, struct session *session, int code,
                         uint32_t request, const char *text)
{
    if (request) {
        control_send_error(monitor, MONITOR_ERROR, request, code, text);
        exec_free(monitor, session);
        return;
    }
    session->phase = SESSION_ENDED;
    session->pid = 0;
    session->exit_code = code > 0 ? code : EXIT_ENGINE_FAILED;
    exec_drained(monitor, session);
}

void exec_helper_ended(struct monitor *monitor, struct session *session, int status)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    uint32_t request = control_request_for(monitor, session);

    int r = begin(monitor, session, status, &err);
    if (r != 0) {
        start_failed(monitor, session, r, request, error_message(&err));
        return;
    }
    runtime_remove_files(monitor, session);
    const struct monitor_pid started = {.pid = session->pid, .started = (uint64_t)clock_now()};
    if (request)
        control_send(monitor, MONITOR_OK, request, &started, sizeof(started));
}

void exec_process_ended(struct monitor *monitor, struct session *session, int status)
{
    session->pid = 0;
    session->exit_code = process_exit_code(status);
    session->phase = SESSION_ENDED;
    session->ended = clock_milliseconds();
    session_drain(monitor, session);
    if (session_streams_open(session))
        deadline_set(monitor, DEADLINE_SESSIONS, CHECK_MS);
    else
        exec_drained(monitor, session);
}

static bool is_over(const struct session *session)
{
    return session->phase == SESSION_ENDED && !session_streams_open(session);
}

void exec_drained(struct monitor *monitor, struct session *session)
{
    clients_session_over(monitor, session);
    session_close_streams(monitor, session);
    tell(monitor, session);
}

static void tell_running(struct monitor *monitor, const struct session *session)
{
    struct monitor_exec_running running = {.pid = session->pid};

    memcpy(running.id, session->id, sizeof(running.id));
    control_send(monitor, MONITOR_EXEC_RUNNING, 0, &running, sizeof(running));
}

void execs_tell(struct monitor *monitor)
{
    struct session *next;

    for (struct session *session = monitor->execs; session; session = next) {
        next = session->next;
        if (is_over(session))
            tell(monitor, session);
        else
            tell_running(monitor, session);
    }
}

static void check_ended(struct monitor *monitor, struct session *session)
{
    if (session->phase != SESSION_ENDED || is_over(session))
        return;
    /* A client that is slow gets all of it; waiting is for those that hold the pipes. */
    if (clients_exec_blocked(monitor, session) ||
        clock_milliseconds() - session->ended < EXEC_GRACE_MS) {
        deadline_set(monitor, DEADLINE_SESSIONS, CHECK_MS);
        return;
    }
    session_drain(monitor, session);
    if (!clients_exec_blocked(monitor, session))
        exec_drained(monitor, session);
    else
        deadline_set(monitor, DEADLINE_SESSIONS, CHECK_MS);
}

void sessions_check(struct monitor *monitor)
{
    struct session *next;

    session_retry_hung(monitor, &monitor->container);
    for (struct session *session = monitor->execs; session; session = next) {
        next = session->next;
        session_retry_hung(monitor, session);
        check_ended(monitor, session);
    }
}

/* The container has ended and with it all in it. */
void execs_finish(struct monitor *monitor)
{
    while (monitor->execs) {
        struct session *session = monitor->execs;
        runtime_give_up(session);
        if (session->phase != SESSION_ENDED)
            session->exit_code = EXIT_KILLED;
        session_drain(monitor, session);
        tell(monitor, session);
        if (monitor->execs == session)
            exec_free(monitor, session);
    }
}
