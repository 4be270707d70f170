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
    START_TIMEOUT_MS = 2 * 60 * 1000, /* as dockerd's of its containerd */
};

void container_fill_status(const struct monitor *monitor, struct monitor_status *ret)
{
    static const enum monitor_state states[] = {
        [PHASE_CREATED] = MONITOR_STATE_CREATED,  [PHASE_STARTING] = MONITOR_STATE_STARTING,
        [PHASE_RUNNING] = MONITOR_STATE_RUNNING,  [PHASE_DRAINING] = MONITOR_STATE_RUNNING,
        [PHASE_DELETING] = MONITOR_STATE_RUNNING, [PHASE_WAITING] = MONITOR_STATE_RESTARTING,
        [PHASE_LINGERING] = MONITOR_STATE_EXITED, [PHASE_DONE] = MONITOR_STATE_EXITED,
    };
    bool again = monitor->ran && monitor->phase == PHASE_STARTING;

    *ret = (struct monitor_status){
        .state = again ? MONITOR_STATE_RESTARTING : states[monitor->phase],
        .pid = monitor->container.pid,
        .monitor_pid = getpid(),
        .exit_code = monitor->exit_code,
        .oom = monitor->oom,
        .started = monitor->started,
        .finished = monitor->finished,
        .log_size = monitor->log.file ? monitor->log.file->size : 0,
        .health = monitor->health.status,
        .restarts = monitor->restart.restarts,
        .failing_streak = monitor->health.failing_streak,
        .next_start = monitor->restart.next_start,
    };
}

void container_write_status(struct monitor *monitor)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct monitor_status status;
    uint64_t began = 0;

    container_fill_status(monitor, &status);
    (void)process_start_time(getpid(), &began);
    monitor_status_format(&status, began, monitor->failure.message, &text);
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

    if (monitor->failure.code && !monitor->ran)
        control_send_error(monitor, MONITOR_START_FAILED,
                           control_request_for(monitor, &monitor->container), monitor->exit_code,
                           error_message(&monitor->failure));
    else
        control_send(monitor, MONITOR_EXITED, 0, &exited, sizeof(exited));
}

void container_finish(struct monitor *monitor)
{
    session_close_streams(monitor, &monitor->container);
    execs_finish(monitor);
    isolate_release_mounts(monitor->options);
    runtime_remove_files(monitor, &monitor->container);
    monitor->phase = PHASE_LINGERING;
    container_write_status(monitor);
    control_stop_listening(monitor);
    tell_end(monitor);
    clients_session_over(monitor, &monitor->container);
    deadline_set(monitor, DEADLINE_LINGER, LINGER_MS);
}

/* Nothing of this run is left but what its clients are owed. */
static void run_over(struct monitor *monitor)
{
    session_close_streams(monitor, &monitor->container);
    execs_finish(monitor);
    if (restart_begin_wait(monitor))
        clients_run_over(monitor);
    else
        container_finish(monitor);
}

static void delete (struct monitor *monitor)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    monitor->phase = PHASE_DELETING;
    if (runtime_knows_container(monitor) && runtime_delete(monitor, &err) == 0)
        return;
    if (err.code)
        log_failure(LOG_ERROR, &err, "container %s", monitor->options->id);
    run_over(monitor);
}

void container_delete_ended(struct monitor *monitor, int status)
{
    if (status != 0) {
        _cleanup_error_ struct error err = ERROR_INIT;
        runtime_failure(monitor, &monitor->container, status, &err);
        log_failure(LOG_ERROR, &err, "container %s: delete", monitor->options->id);
    }
    run_over(monitor);
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
    deadline_clear(monitor, DEADLINE_STOP);
    session_close_streams(monitor, &monitor->container);
    delete (monitor);
}

static void run(struct monitor *monitor)
{
    struct session *session = &monitor->container;
    struct session_stdio stdio;

    monitor->began = clock_milliseconds();
    monitor->phase = PHASE_STARTING;
    session->phase = SESSION_STARTING;
    if (monitor->failure.code == 0)
        joined_prepare(monitor->options, &monitor->failure);
    if (monitor->failure.code == 0 &&
        session_open_streams(monitor, session, &stdio, &monitor->failure) == 0)
        runtime_run(monitor, session, &stdio, &monitor->failure);
    if (monitor->failure.code)
        fail(monitor, EXIT_ENGINE_FAILED);
    else
        deadline_set(monitor, DEADLINE_START, START_TIMEOUT_MS);
}

/* Goes on in container_helper_ended(). */
static void kill_start(struct monitor *monitor, const char *why)
{
    monitor->start_killed = why;
    /* Our child: its number is not given away before we have reaped it. */
    if (monitor->container.helper.pid > 0)
        kill(monitor->container.helper.pid, SIGKILL);
}

void container_start_overdue(struct monitor *monitor)
{
    if (monitor->phase == PHASE_STARTING)
        kill_start(monitor, "the runtime did not start the container within two minutes");
}

void container_start(struct monitor *monitor, uint32_t request)
{
    monitor->container.request = request;
    monitor->container.asked_by = monitor->daemon_generation;
    run(monitor);
}

void container_run_again(struct monitor *monitor)
{
    session_renew(monitor, &monitor->container);
    error_finish(&monitor->failure);
    monitor->failure = (struct error)ERROR_INIT;
    monitor->restart.unhealthy = false;
    run(monitor);
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
    const char *killed = steal_ptr(monitor->start_killed);

    deadline_clear(monitor, DEADLINE_START);
    if (status != 0 && killed) {
        children_kill();
        error_set(&monitor->failure, -EINTR, "%s", killed);
        fail(monitor, EXIT_ENGINE_FAILED);
        return;
    }
    if (status != 0) {
        fail(monitor, runtime_failure(monitor, session, status, &monitor->failure));
        return;
    }
    if (take_over(monitor, &monitor->failure) < 0) {
        fail(monitor, EXIT_ENGINE_FAILED);
        return;
    }
    monitor->phase = PHASE_RUNNING;
    monitor->ran = true;
    monitor->started = (uint64_t)clock_now();
    monitor->began = clock_milliseconds();
    health_begin(monitor);
    container_write_status(monitor);
    const struct monitor_pid started = {
        .pid = session->pid, .restarts = monitor->restart.restarts, .started = monitor->started};
    control_send(monitor, MONITOR_STARTED, control_request_for(monitor, session), &started,
                 sizeof(started));
    if (monitor->restart.stop_pending)
        container_end_run(monitor, monitor->restart.stop_signal, monitor->restart.stop_timeout_ms);
}

/* ---- running ---- */

static const char start_was_killed[] = "the container was killed while it was started";

static int send_signal(struct monitor *monitor, int signal, struct error *err)
{
    if (monitor->phase != PHASE_RUNNING)
        return error_set(err, -ESRCH, "the container is not running");
    /* Our child: its number is not given away before we have reaped it. */
    if (kill(monitor->container.pid, signal) < 0)
        return error_errno(err, errno, "send signal %d", signal);
    return 0;
}

/* Before the first run, or between two of a container that is restarted: nobody is there to be
 * told, but there may be a next run, which is not to come then, or to be ended as soon as it is
 * there. */
static bool between_runs(const struct monitor *monitor)
{
    return (monitor->ran || monitor->phase == PHASE_STARTING) && monitor->phase != PHASE_RUNNING &&
           monitor->phase < PHASE_LINGERING;
}

static void end_between_runs(struct monitor *monitor, int signal, int32_t timeout_ms)
{
    struct restart *restart = &monitor->restart;

    restart->ending = true;
    if (!restart->stop_pending || restart->stop_signal != SIGKILL) {
        restart->stop_pending = true;
        restart->stop_signal = signal;
        restart->stop_timeout_ms = timeout_ms;
    }
    /* After the answer to whoever asked. */
    if (monitor->phase == PHASE_WAITING)
        deadline_set(monitor, DEADLINE_RESTART, 0);
    if (monitor->phase == PHASE_STARTING && signal == SIGKILL)
        kill_start(monitor, start_was_killed);
    else if (monitor->phase == PHASE_STARTING && timeout_ms > 0)
        deadline_set_sooner(monitor, DEADLINE_STOP, timeout_ms);
}

/* As docker: who kills a container, or sends what stops it, does not want it back. */
int container_signal(struct monitor *monitor, uint32_t signal, struct error *err)
{
    bool final = signal == SIGKILL || (int)signal == monitor->options->stop_signal;

    if (signal < 1 || signal > 64)
        return error_set(err, -EINVAL, "there is no signal %u", signal);
    if (between_runs(monitor)) {
        if (final)
            end_between_runs(monitor, (int)signal, -1);
        return 0;
    }
    int r = send_signal(monitor, (int)signal, err);
    if (r == 0 && final)
        monitor->restart.ending = true;
    return r;
}

void container_end_run(struct monitor *monitor, int signal, int32_t timeout_ms)
{
    if (timeout_ms == 0)
        signal = SIGKILL;
    if (send_signal(monitor, signal, NULL) == 0 && timeout_ms > 0)
        deadline_set_sooner(monitor, DEADLINE_STOP, timeout_ms);
}

int container_stop(struct monitor *monitor, uint32_t signal, int32_t timeout_ms, struct error *err)
{
    int number = signal ? (int)signal : monitor->options->stop_signal;

    if (signal > 64)
        return error_set(err, -EINVAL, "there is no signal %u", signal);
    if (timeout_ms == 0)
        number = SIGKILL;
    if (between_runs(monitor)) {
        end_between_runs(monitor, number, timeout_ms);
        return 0;
    }
    int r = send_signal(monitor, number, err);
    if (r == 0)
        monitor->restart.ending = true;
    if (r == 0 && timeout_ms > 0)
        deadline_set_sooner(monitor, DEADLINE_STOP, timeout_ms);
    return r;
}

void container_stop_overdue(struct monitor *monitor)
{
    if (monitor->phase == PHASE_STARTING)
        kill_start(monitor, start_was_killed);
    else
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
    health_end(monitor);
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
