/*
 * The container's life, in the order in which it happens: started by the runtime, running, ended,
 * its streams read out, deleted, told. monitor->phase says where it stands.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>
#include <monitor/status.h>

#include "monitor_internal.h"

enum {
    DRAIN_GRACE_MS = 500, /* for processes that outlive init and hold its streams (host pid
                             namespace only: else the kernel has ended them all) */
    CGROUP_FILE_MAX = 4096,
    EXIT_ENGINE_FAILED = 125,
};

void container_fill_status(const struct monitor *monitor, struct monitor_status *ret)
{
    static const enum monitor_state states[] = {
        [PHASE_CREATED] = MONITOR_STATE_CREATED,  [PHASE_STARTING] = MONITOR_STATE_STARTING,
        [PHASE_RUNNING] = MONITOR_STATE_RUNNING,  [PHASE_DRAINING] = MONITOR_STATE_RUNNING,
        [PHASE_DELETING] = MONITOR_STATE_RUNNING, [PHASE_LINGERING] = MONITOR_STATE_EXITED,
        [PHASE_DONE] = MONITOR_STATE_EXITED,
    };

    *ret = (struct monitor_status){
        .state = states[monitor->phase],
        .pid = monitor->container.pid,
        .monitor_pid = getpid(),
        .exit_code = monitor->exit_code,
        .oom = monitor->oom,
        .started = monitor->started,
        .finished = monitor->finished,
        .log_size = monitor->log.size,
    };
}

static void write_status(struct monitor *monitor)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct monitor_status status;

    container_fill_status(monitor, &status);
    monitor_status_format(&status, monitor->failure.message, &text);
    if (file_replace_at(monitor->bundle_fd, "status", text.data, text.length, 0600, &err) < 0)
        log_failure(LOG_ERROR, &err, "container %s", monitor->options->id);
}

/* ---- the end: everything is released, then everybody is told ---- */

static void tell_end(struct monitor *monitor)
{
    const struct monitor_exited exited = {
        .exit_code = monitor->exit_code,
        .oom = monitor->oom,
        .started = monitor->started,
        .finished = monitor->finished,
    };

    if (monitor->failure.code)
        control_send_error(monitor, MONITOR_START_FAILED,
                           control_request_for(monitor, &monitor->container), monitor->exit_code,
                           error_message(&monitor->failure));
    else
        control_send(monitor, MONITOR_EXITED, 0, &exited, sizeof(exited));
}

static void finish(struct monitor *monitor)
{
    session_close_streams(monitor, &monitor->container);
    execs_finish(monitor);
    isolate_release_mounts(monitor->options);
    runtime_remove_files(monitor, &monitor->container);
    monitor->phase = PHASE_LINGERING;
    write_status(monitor);
    control_stop_listening(monitor);
    tell_end(monitor);
    clients_session_over(monitor, &monitor->container);
    deadline_set(monitor, DEADLINE_LINGER, LINGER_MS);
}

static void delete (struct monitor *monitor)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    monitor->phase = PHASE_DELETING;
    if (runtime_knows_container(monitor) && runtime_delete(monitor, &err) == 0)
        return;
    if (err.code)
        log_failure(LOG_ERROR, &err, "container %s", monitor->options->id);
    finish(monitor);
}

void container_delete_ended(struct monitor *monitor, int status)
{
    if (status != 0) {
        _cleanup_error_ struct error err = ERROR_INIT;
        runtime_failure(monitor, &monitor->container, status, &err);
        log_failure(LOG_ERROR, &err, "container %s: delete", monitor->options->id);
    }
    finish(monitor);
}

/* The counter is the cgroup's own: the kernel counts from its creation, for this run. v2:
 * memory.events (Linux 4.13), v1: memory.oom_control. */
static bool was_oom_killed(const struct monitor *monitor)
{
    static const char *const files[] = {"memory.events", "memory.oom_control"};
    static const char key[] = "oom_kill ";

    for (size_t i = 0; i < ARRAY_SIZE(files) && monitor->options->memory_cgroup; i++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", monitor->options->memory_cgroup, files[i]);
        _cleanup_free_ char *text = NULL;
        if (file_read_at(AT_FDCWD, path, CGROUP_FILE_MAX, &text, NULL, NULL) < 0)
            continue;
        const char *line = text_starts_with(text, key) ? text : strstr(text, "\noom_kill ");
        if (line)
            return line[strcspn(line, " ") + 1] != '0';
    }
    return false;
}

/* ---- the start ---- */

static void fail(struct monitor *monitor, int exit_code)
{
    monitor->exit_code = exit_code;
    monitor->finished = (uint64_t)clock_now();
    monitor->container.phase = SESSION_ENDED;
    monitor->container.pid = 0;
    session_close_streams(monitor, &monitor->container);
    delete (monitor);
}

void container_start(struct monitor *monitor, uint32_t request)
{
    struct session *session = &monitor->container;
    struct session_stdio stdio;

    session->request = request;
    session->asked_by = monitor->daemon_generation;
    monitor->phase = PHASE_STARTING;
    session->phase = SESSION_STARTING;
    if (monitor->failure.code == 0 &&
        session_open_streams(monitor, session, &stdio, &monitor->failure) == 0)
        runtime_run(monitor, session, &stdio, &monitor->failure);
    if (monitor->failure.code)
        fail(monitor, EXIT_ENGINE_FAILED);
}

static int take_over(struct monitor *monitor, struct error *err)
{
    struct session *session = &monitor->container;

    int r = runtime_read_pid(monitor, session, &session->pid, err);
    return r < 0 ? r : session_begin(monitor, session, err);
}

void container_helper_ended(struct monitor *monitor, int status)
{
    struct session *session = &monitor->container;

    if (status != 0) {
        fail(monitor, runtime_failure(monitor, session, status, &monitor->failure));
        return;
    }
    if (take_over(monitor, &monitor->failure) < 0) {
        fail(monitor, EXIT_ENGINE_FAILED);
        return;
    }
    monitor->phase = PHASE_RUNNING;
    monitor->started = (uint64_t)clock_now();
    write_status(monitor);
    const struct monitor_pid started = {.pid = session->pid, .started = monitor->started};
    control_send(monitor, MONITOR_STARTED, control_request_for(monitor, session), &started,
                 sizeof(started));
}

/* ---- running ---- */

static int send_signal(struct monitor *monitor, int signal, struct error *err)
{
    if (monitor->phase != PHASE_RUNNING)
        return error_set(err, -ESRCH, "the container is not running");
    /* Our child: its number is not given away before we have reaped it. */
    if (kill(monitor->container.pid, signal) < 0)
        return error_errno(err, errno, "send signal %d", signal);
    return 0;
}

int container_signal(struct monitor *monitor, uint32_t signal, struct error *err)
{
    if (signal < 1 || signal > 64)
        return error_set(err, -EINVAL, "there is no signal %u", signal);
    return send_signal(monitor, (int)signal, err);
}

int container_stop(struct monitor *monitor, uint32_t signal, int32_t timeout_ms, struct error *err)
{
    if (signal > 64)
        return error_set(err, -EINVAL, "there is no signal %u", signal);
    if (timeout_ms == 0)
        signal = SIGKILL;
    int r = send_signal(monitor, signal ? (int)signal : monitor->options->stop_signal, err);
    if (r == 0 && timeout_ms > 0)
        deadline_set(monitor, DEADLINE_STOP, timeout_ms);
    return r;
}

void container_stop_overdue(struct monitor *monitor)
{
    send_signal(monitor, SIGKILL, NULL);
}

/* ---- ended ---- */

void container_init_ended(struct monitor *monitor, int status)
{
    struct session *session = &monitor->container;

    monitor->exit_code = process_exit_code(status);
    monitor->finished = (uint64_t)clock_now();
    monitor->phase = PHASE_DRAINING;
    session->phase = SESSION_ENDED;
    session->pid = 0;
    deadline_clear(monitor, DEADLINE_STOP);
    session_drain(monitor, session);
    if (session_streams_open(session))
        deadline_set(monitor, DEADLINE_DRAIN, DRAIN_GRACE_MS);
    else
        container_drained(monitor, false);
}

void container_drained(struct monitor *monitor, bool give_up)
{
    if (monitor->phase != PHASE_DRAINING)
        return;
    deadline_clear(monitor, DEADLINE_DRAIN);
    if (give_up)
        session_drain(monitor, &monitor->container);
    session_close_streams(monitor, &monitor->container);
    monitor->oom = was_oom_killed(monitor);
    delete (monitor);
}
