/*
 * Whether the container runs again after a run has ended, and when: the policy, its growing delay,
 * and what takes the next run back.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "monitor_internal.h"

enum { DELAY_MAX_MS = 24 * 3600 * 1000 };

/* It becomes a part of a path. */
static bool is_file_name(const char *name, size_t size)
{
    size_t length = strnlen(name, size);

    if (length == size || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
            return false;
    }
    return true;
}

static int check_restart(const struct monitor_policy *policy, struct error *err)
{
    if (policy->restart > MONITOR_RESTART_ON_FAILURE || policy->delay_ms == 0 ||
        policy->delay_max_ms < policy->delay_ms || policy->delay_max_ms > DELAY_MAX_MS)
        return error_set(err, -EINVAL, "malformed restart policy");
    return 0;
}

static int check_health(const struct monitor_check *check, struct error *err)
{
    if (!is_file_name(check->process, sizeof(check->process)) ||
        (check->process[0] && (!check->interval_ms || !check->timeout_ms ||
                               !check->start_interval_ms || !check->retries)))
        return error_set(err, -EINVAL, "malformed health check");
    return 0;
}

int restart_set_policy(struct monitor *monitor, const struct monitor_policy *policy,
                       struct error *err)
{
    int r = check_restart(policy, err);

    if (r == 0)
        r = check_health(&policy->check, err);
    if (r == 0 && (policy->log_files == 0 || policy->log_files > MONITOR_LOG_FILES_MAX))
        r = error_set(err, -EINVAL, "a log of %u files", policy->log_files);
    if (r < 0)
        return r;
    monitor->restart.policy = *policy;
    monitor->restart.restarts = policy->restarts;
    if (monitor->log.file) {
        container_log_limit(&monitor->log, policy->log_size, policy->log_files);
        packing_open(monitor);
    }
    return 0;
}

int restart_update_policy(struct monitor *monitor, const struct monitor_policy *policy,
                          struct error *err)
{
    struct monitor_policy *own = &monitor->restart.policy;
    int r = check_restart(policy, err);

    if (r < 0)
        return r;
    own->restart = policy->restart;
    own->flags = policy->flags;
    own->maximum_retries = policy->maximum_retries;
    own->delay_ms = policy->delay_ms;
    own->delay_max_ms = policy->delay_max_ms;
    own->delay_reset_ms = policy->delay_reset_ms;
    return 0;
}

static bool is_wanted(const struct monitor *monitor)
{
    const struct restart *restart = &monitor->restart;
    const struct monitor_policy *policy = &restart->policy;

    if (restart->ending || !monitor->ran)
        return false;
    if (policy->restart == MONITOR_RESTART_ALWAYS)
        return true;
    if (policy->restart == MONITOR_RESTART_ON_FAILURE)
        return (monitor->exit_code != 0 || restart->unhealthy) &&
               (!policy->maximum_retries || restart->restarts < policy->maximum_retries);
    return restart->unhealthy;
}

static uint32_t next_delay(const struct monitor *monitor)
{
    const struct monitor_policy *policy = &monitor->restart.policy;
    uint32_t before = monitor->restart.delay_ms;

    if (before == 0 || clock_milliseconds() - monitor->began >= policy->delay_reset_ms)
        return policy->delay_ms;
    return before > policy->delay_max_ms / 2 ? policy->delay_max_ms : before * 2;
}

bool restart_begin_wait(struct monitor *monitor)
{
    struct restart *restart = &monitor->restart;

    if (!is_wanted(monitor))
        return false;
    restart->delay_ms = next_delay(monitor);
    restart->restarts++;
    restart->next_start = (uint64_t)clock_now() + restart->delay_ms * UINT64_C(1000000);
    monitor->phase = PHASE_WAITING;
    deadline_set(monitor, DEADLINE_RESTART, restart->delay_ms);
    container_write_status(monitor);
    const struct monitor_restarting event = {
        .exit_code = monitor->exit_code,
        .oom = monitor->oom,
        .started = monitor->started,
        .finished = monitor->finished,
        .next_start = restart->next_start,
        .restarts = restart->restarts,
    };
    control_send_new(monitor, MONITOR_RESTARTING, &event, sizeof(event));
    return true;
}

void restart_due(struct monitor *monitor)
{
    if (monitor->phase != PHASE_WAITING)
        return;
    monitor->restart.next_start = 0;
    if (monitor->restart.ending) {
        monitor->restart.restarts--; /* the one that does not come */
        container_finish(monitor);
    } else {
        container_run_again(monitor);
    }
}
