/*
 * Health checks: a command of the container's, executed in it again and again, whose exit codes say
 * whether it does its work. One at a time; each leaves its result in the bundle, the last few in
 * turn:
 *
 *     health.N            N = 0 to MONITOR_CHECKS_KEPT - 1
 *         version=1
 *         number=12       of checks, from 1
 *         status=healthy  as it is after this one
 *         failing_streak=0
 *         started=1795514400123456789
 *         finished=1795514400223456789
 *         exit_code=0     -1: it could not be started, or had its time
 *         (an empty line)
 *         its output, as it is, the first MONITOR_CHECK_OUTPUT_MAX bytes
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/log.h>
#include <monitor/status.h>

#include "monitor_internal.h"

enum {
    FREEZER_FILE_MAX = 4096,
    PAUSED_RETRY_MS = 1000,
    KILLED_WAIT_MS = 200, /* for the container's own end, which kills the check first */
    EXIT_NOT_RUN = -1,    /* docker's */
};

static const char probe_id[] = "health";

/* ---- when ---- */

static bool in_start_period(const struct monitor *monitor)
{
    const struct monitor_check *check = &monitor->restart.policy.check;

    return monitor->health.status == MONITOR_HEALTH_STARTING &&
           clock_milliseconds() - monitor->began < check->start_period_ms;
}

static void schedule(struct monitor *monitor)
{
    const struct monitor_check *check = &monitor->restart.policy.check;

    deadline_set(monitor, DEADLINE_CHECK,
                 in_start_period(monitor) && check->start_interval_ms < check->interval_ms
                     ? check->start_interval_ms
                     : check->interval_ms);
}

void health_begin(struct monitor *monitor)
{
    struct health *health = &monitor->health;

    if (!monitor->restart.policy.check.process[0])
        return;
    health->status = MONITOR_HEALTH_STARTING;
    health->failing_streak = 0;
    schedule(monitor);
}

/* "frozen 1" in cgroup.events (v2), "FROZEN" or "FREEZING" in freezer.state (v1). */
static bool is_paused(const struct monitor *monitor)
{
    _cleanup_free_ char *text = NULL;

    if (!monitor->options->freezer ||
        file_read_at(AT_FDCWD, monitor->options->freezer, FREEZER_FILE_MAX, &text, NULL, NULL) < 0)
        return false;
    return strstr(text, "frozen 1") || text[0] == 'F';
}

/* ---- what it says ---- */

static void write_result(struct monitor *monitor, int exit_code, const char *output, size_t length)
{
    const struct health *health = &monitor->health;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    char name[16];

    buffer_printf(&text,
                  "version=1\nnumber=%u\nstatus=%s\nfailing_streak=%u\nstarted=%llu\n"
                  "finished=%llu\nexit_code=%d\n\n",
                  health->number, monitor_health_name(health->status), health->failing_streak,
                  (unsigned long long)health->started, (unsigned long long)clock_now(), exit_code);
    buffer_append(&text, output, length);
    snprintf(name, sizeof(name), "health.%u", health->number % MONITOR_CHECKS_KEPT);
    if (file_replace_at(monitor->bundle_fd, name, text.data, text.length, 0600, &err) < 0)
        log_failure(LOG_WARNING, &err, "container %s", monitor->options->id);
}

static void count(struct monitor *monitor, bool failed)
{
    struct health *health = &monitor->health;

    if (!failed) {
        health->failing_streak = 0;
        health->status = MONITOR_HEALTH_HEALTHY;
    } else if (!in_start_period(monitor)) {
        health->failing_streak++;
        if (health->failing_streak >= monitor->restart.policy.check.retries)
            health->status = MONITOR_HEALTH_UNHEALTHY;
    }
}

static void tell(struct monitor *monitor)
{
    const struct monitor_health event = {
        .status = monitor->health.status,
        .failing_streak = monitor->health.failing_streak,
    };

    container_write_status(monitor);
    control_send_new(monitor, MONITOR_HEALTH, &event, sizeof(event));
}

static void restart_unhealthy(struct monitor *monitor)
{
    const struct monitor_options *options = monitor->options;

    if (monitor->restart.ending || monitor->restart.unhealthy)
        return;
    monitor->restart.unhealthy = true;
    container_end_run(monitor, options->stop_signal, options->stop_timeout_ms);
}

static void result(struct monitor *monitor, int exit_code, const char *output, size_t length)
{
    struct health *health = &monitor->health;
    enum monitor_health_status before = health->status;

    health->number++;
    count(monitor, exit_code != 0);
    write_result(monitor, exit_code, output, length);
    if (health->status != before)
        tell(monitor);
    if (health->status == MONITOR_HEALTH_UNHEALTHY &&
        (monitor->restart.policy.flags & MONITOR_POLICY_WHEN_UNHEALTHY))
        restart_unhealthy(monitor);
    else
        schedule(monitor);
}

/* ---- one check ---- */

void health_take_output(struct monitor *monitor, const char *data, size_t length)
{
    struct health *health = &monitor->health;
    size_t room = MONITOR_CHECK_OUTPUT_MAX - health->length;

    if (!health->output)
        return;
    if (length > room)
        length = room;
    memcpy(health->output + health->length, data, length);
    health->length += length;
}

/* Nobody waits for what the check leaves behind. */
static void close_check(struct monitor *monitor)
{
    struct session *session = &monitor->health.session;

    deadline_clear(monitor, DEADLINE_CHECK_TIMEOUT);
    session_close_streams(monitor, session);
    runtime_remove_files(monitor, session);
    session->phase = SESSION_ENDED;
    session->pid = 0;
    free(steal_ptr(session->document));
    free(steal_ptr(monitor->health.output));
    monitor->health.length = 0;
}

static void end_check(struct monitor *monitor, int exit_code)
{
    struct health *health = &monitor->health;
    char text[64];

    if (health->timed_out) {
        uint32_t timeout_ms = monitor->restart.policy.check.timeout_ms;
        int length = snprintf(text, sizeof(text), "Health check exceeded timeout (%u.%03us)",
                              timeout_ms / 1000, timeout_ms % 1000);
        result(monitor, EXIT_NOT_RUN, text, (size_t)length);
    } else {
        result(monitor, exit_code, health->output, health->length);
    }
    close_check(monitor);
}

static void fail_check(struct monitor *monitor, const struct error *err)
{
    const char *text = error_message(err);

    if (monitor->health.timed_out)
        end_check(monitor, EXIT_NOT_RUN);
    else
        result(monitor, EXIT_NOT_RUN, text, strnlen(text, MONITOR_CHECK_OUTPUT_MAX));
    close_check(monitor);
}

static int start_check(struct monitor *monitor, struct error *err)
{
    struct health *health = &monitor->health;
    struct session *session = &health->session;
    struct session_stdio stdio;

    session_init(session, probe_id);
    session->phase = SESSION_STARTING;
    session->with_output = true;
    session->keep_document = true;
    session->document = xstrdup(monitor->restart.policy.check.process);
    health->output = xmalloc(MONITOR_CHECK_OUTPUT_MAX);
    health->length = 0;
    health->timed_out = false;
    health->started = (uint64_t)clock_now();
    int r = session_open_streams(monitor, session, &stdio, err);
    return r < 0 ? r : runtime_exec(monitor, session, &stdio, err);
}

void health_check_due(struct monitor *monitor)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (monitor->phase != PHASE_RUNNING)
        return;
    if (is_paused(monitor)) {
        deadline_set(monitor, DEADLINE_CHECK, PAUSED_RETRY_MS);
        return;
    }
    if (start_check(monitor, &err) < 0)
        fail_check(monitor, &err);
    else
        deadline_set(monitor, DEADLINE_CHECK_TIMEOUT, monitor->restart.policy.check.timeout_ms);
}

/* What it started goes with it, where it leads a group of its own. */
static void kill_check(const struct session *session)
{
    pid_t pid = session->pid;

    if (pid > 0)
        kill(getpgid(pid) == pid ? -pid : pid, SIGKILL);
    else if (session->helper.pid > 0)
        kill(session->helper.pid, SIGKILL);
}

/* The result is told when it has ended, so that there are never two. */
void health_check_overdue(struct monitor *monitor)
{
    struct health *health = &monitor->health;

    if (health->session.phase == SESSION_ENDED) {
        end_check(monitor, health->session.exit_code);
        return;
    }
    /* The time in which nothing of the container may run does not count. */
    if (is_paused(monitor)) {
        deadline_set(monitor, DEADLINE_CHECK_TIMEOUT, PAUSED_RETRY_MS);
        return;
    }
    health->timed_out = true;
    kill_check(&health->session);
}

void health_helper_ended(struct monitor *monitor, int status)
{
    struct session *session = &monitor->health.session;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = status != 0 ? runtime_failure(monitor, session, status, &err)
                        : runtime_read_pid(monitor, session, &session->pid, &err);

    if (r == 0)
        r = session_begin(monitor, session, &err);
    if (r != 0)
        fail_check(monitor, &err);
    else if (monitor->health.timed_out)
        kill_check(session);
}

void health_process_ended(struct monitor *monitor, int status)
{
    struct session *session = &monitor->health.session;

    session->pid = 0;
    session->phase = SESSION_ENDED;
    session->exit_code = process_exit_code(status);
    session_drain(monitor, session);
    if (WIFSIGNALED(status) && !monitor->health.timed_out)
        deadline_set(monitor, DEADLINE_CHECK_TIMEOUT, KILLED_WAIT_MS);
    else
        end_check(monitor, session->exit_code);
}

void health_end(struct monitor *monitor)
{
    struct session *session = &monitor->health.session;

    deadline_clear(monitor, DEADLINE_CHECK);
    if (!session->document)
        return;
    kill_check(session);
    session->helper.pid = 0;
    close_check(monitor);
}

void health_remove_files(struct monitor *monitor)
{
    char name[16];

    for (unsigned i = 0; i < MONITOR_CHECKS_KEPT; i++) {
        snprintf(name, sizeof(name), "health.%u", i);
        unlinkat(monitor->bundle_fd, name, 0);
    }
}
